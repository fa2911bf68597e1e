"""Tables as their publishers and copies of them write it: each gives the right id, diagnosis, age, sex, site, lesion.

Columns and words are those of the publishers' own documentation; the rows are made up.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest import external_set, forms, tables, vocabulary
from dermdistill.ingest.archives import File, find_images, image_id
from dermdistill.ingest.prepare import open_raw
from dermdistill.ingest.vocabulary import ANYTHING, OTHER, may_be

ONE_HOT_2018 = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
ONE_HOT_2019 = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
TODAY = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_1,anatom_site_2,anatom_site_3,diagnosis_1,"
    "diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5,diagnosis_confirm_type,image_type,lesion_id,patient_id,sex"
)
YESTERDAY = (
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,benign_malignant,diagnosis,"
    "diagnosis_confirm_type,lesion_id,patient_id,sex"
)
PAD = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,skin_cancer_history,"
    "cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,diagnostic,itch,grew,"
    "hurt,changed,bleed,elevation,img_id,biopsed"
)
DERM7PT = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)
PH2 = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | "
    "Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)


@pytest.fixture
def labels(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """``labels(header, row, …, other=…)``: the table as ``evaluate`` reads it, by image id."""

    def read(*lines: str, name: str = "labels.csv", **how: str) -> pd.DataFrame:
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return external_set.read_labels(tmp_path / name, **how).set_index("image_id")

    return read


Labels = Callable[..., pd.DataFrame]


def test_every_term_of_the_archives_hierarchy_is_one_of_ours_or_outside() -> None:
    from isic_metadata.diagnosis_hierarchical import DiagnosisEnum

    terms = [term.value for term in DiagnosisEnum]
    read = {term: may_be(term) for term in terms}
    assert len(terms) == 418 and not [term for term in terms if read[term] == ANYTHING]
    ours = {dx: [term for term in terms if read[term] == {dx}] for dx in (*CLASSES, OTHER)}
    for dx, branch in {
        "nv": "Benign:Benign melanocytic proliferations:Nevus",
        "mel": "Malignant:Malignant melanocytic proliferations (Melanoma)",
        "bcc": "Malignant:Malignant adnexal epithelial proliferations - Follicular:Basal cell carcinoma",
        "df": "Benign:Benign soft tissue proliferations - Fibro-histiocytic:Dermatofibroma",
    }.items():
        assert ours[dx] == [term for term in terms if (term + ":").startswith(branch + ":") or branch + " " in term], dx
    actinic = "Indeterminate:Indeterminate epidermal proliferations:Solar or actinic keratosis"
    in_situ = "Malignant:Malignant epidermal proliferations:Squamous cell carcinoma in situ"
    assert ours["akiec"] == [term for term in terms if term.startswith((actinic, in_situ))]
    assert {term.split(":")[2] for term in ours["bkl"]} == {
        "Lichen planus like keratosis", "Pigmented benign keratosis", "Seborrheic keratosis", "Solar lentigo",
    }  # fmt: skip
    assert {term.split(":")[1] for term in ours["vasc"]} == {
        "Benign soft tissue proliferations - Vascular", "Hemorrhagic lesions",
    }  # fmt: skip
    undecided = [term for term in terms if "mel" in read[term] and len(read[term]) > 1]
    assert {":".join(term.split(":")[:2]) for term in undecided} == {
        "Malignant", "Indeterminate", "Malignant:Collision - At least one malignant proliferation",
        "Indeterminate:Indeterminate melanocytic proliferations",
    }  # fmt: skip
    lone = [term for term in terms if term.count(":") > 1 and may_be(term.split(":")[-1]) not in (read[term], ANYTHING)]
    assert lone == [], "the last level alone says the same, or nothing"


def test_every_old_word_of_the_archive_is_one_of_ours_or_outside() -> None:
    from isic_metadata.fields import LegacyDxEnum

    words = [word.value for word in LegacyDxEnum]
    assert not [word for word in words if may_be(word) == ANYTHING]
    assert {word for word in words if may_be(word) == {"bkl"}} == {
        "lichenoid keratosis", "pigmented benign keratosis", "seborrheic keratosis", "solar lentigo",
    }  # fmt: skip
    assert {word for word in words if may_be(word) == {"vasc"}} == {
        "angiokeratoma", "angioma", "pyogenic granuloma", "vascular lesion",
    }  # fmt: skip
    assert {word for word in words if may_be(word) == {"mel"}} == {"melanoma", "melanoma metastasis"}


def test_the_archive_of_today(labels: Labels) -> None:
    table = labels(
        TODAY,
        "ISIC_0000001,A,CC-0,85+,Trunk,Posterior trunk,Back,Benign,Benign melanocytic proliferations,Nevus,"
        '"Nevus, Atypical, Dysplastic, or Clark",,histopathology,dermoscopic,IL_1,IP_1,male',
        "ISIC_0000002,A,CC-0,40,Head and neck,Head,Face,Malignant,Malignant melanocytic proliferations (Melanoma),"
        '"Melanoma, NOS",,,histopathology,dermoscopic,,IP_2,female',
        "ISIC_0000003,A,CC-0,,,,,Benign,Benign epidermal proliferations,Pigmented benign keratosis,,,,dermoscopic,,,",
        "ISIC_0000004,A,CC-0,50,Trunk,,,Malignant,Malignant melanocytic proliferations (Melanoma),A new term,,,,,,,",
    )
    assert table["dx"].tolist() == ["nv", "mel", "bkl", "mel"]
    assert table["age"].fillna(-1).tolist() == [85, 40, -1, 50]
    assert table["sex"].tolist() == ["male", "female", "unknown", "unknown"]
    assert table["localization"].tolist() == ["back", "face", "unknown", "trunk"]
    assert table["dx_type"].tolist() == ["histo", "histo", "", ""]
    assert table["lesion_id"].tolist() == ["IL_1", "ISIC_0000002", "ISIC_0000003", "ISIC_0000004"]
    assert table["patient_id"].tolist() == ["IP_1", "IP_2", "", ""]


def test_the_archive_of_yesterday(labels: Labels) -> None:
    table = labels(
        YESTERDAY,
        "ISIC_1,A,CC-0,45,anterior torso,benign,pigmented benign keratosis,single image expert consensus,,,female",
        "ISIC_2,A,CC-0,45,anterior torso,malignant,melanoma,histopathology,,,male",
        "ISIC_3,A,CC-0,NA,nan,benign,actinic keratosis,histopathology,,,male",
    )
    assert table["dx"].tolist() == ["bkl", "mel", "akiec"] and table["localization"].tolist()[2] == "unknown"
    assert table["dx_type"].tolist() == ["consensus", "histo", "histo"] and np.isnan(table["age"].iloc[2])


def test_the_archives_older_files_call_the_image_name(labels: Labels) -> None:
    table = labels("name,age_approx,anatom_site_general,benign_malignant,diagnosis,sex", "ISIC_1,30,,benign,nevus,male")
    assert table["dx"].to_dict() == {"ISIC_1": "nv"} and table["sex"].tolist() == ["male"]
    nested = "isic_id,metadata.clinical.sex,metadata.clinical.diagnosis_1,metadata.clinical.diagnosis_3"
    table = labels(nested, "ISIC_1,female,Benign,Solar lentigo")
    assert table["dx"].to_dict() == {"ISIC_1": "bkl"} and table["sex"].tolist() == ["female"]


def test_isic_2018_with_the_columns_of_its_scoring(labels: Labels) -> None:
    table = labels(
        f"{ONE_HOT_2018},score_weight,validation_weight",
        "ISIC_0034524,0.0,1.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
        "ISIC_0034525,1.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0",
    )
    assert table["dx"].to_dict() == {"ISIC_0034524": "nv", "ISIC_0034525": "mel"}


def test_isic_2019(labels: Labels) -> None:
    rows = [
        "ISIC_0000000_downsampled,0,1,0,0,0,0,0,0,0",
        "ISIC_0000001,0,0,0,1,0,0,0,0,0",
        "ISIC_0000002,0,0,0,0,0,0,0,1,0",
        "ISIC_0000003,0,0,0,0,0,0,0,0,1",
        "ISIC_0000004,1,0,0,0,0,0,0,0,0",
    ]
    with pytest.raises(UserError, match=r"2 rows outside our seven diagnoses: 1 × 'SCC', 1 × 'UNK' .*--other drop"):
        labels(ONE_HOT_2019, *rows)
    kept = labels(ONE_HOT_2019, *rows, other="drop")["dx"]
    assert kept.to_dict() == {"ISIC_0000000": "nv", "ISIC_0000001": "akiec", "ISIC_0000004": "mel"}
    rest = labels(ONE_HOT_2019, *rows, other="rest")["dx"]
    assert rest.to_dict() == kept.to_dict() | {"ISIC_0000002": "rest", "ISIC_0000003": "rest"}


def test_isic_2019_in_a_folder_has_lesions_and_patients_beside_it(tmp_path: Path) -> None:
    (tmp_path / "truth.csv").write_text(
        f"{ONE_HOT_2019}\nISIC_1_downsampled,0,1,0,0,0,0,0,0,0\nISIC_2{',1' + ',0' * 8}\n"
    )
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(
        "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_1_downsampled,55,anterior torso,MSK4_1,female\n"
        "ISIC_2,,,,\n"
    )
    for name in ("ISIC_1_downsampled.jpg", "ISIC_2.jpg"):
        (tmp_path / name).write_bytes(b"")
    raw = open_raw(tmp_path)
    assert raw.table.iloc[0].tolist() == ["MSK4_1", "ISIC_1", "nv", "", 55, "female", "anterior torso"]
    assert raw.table["dx"].tolist() == ["nv", "mel"] and raw.form == "challenge" and not raw.lesions_known
    other = tmp_path / "more.csv"
    other.write_text("image,lesion_id\nISIC_1,IL_9\n")
    with pytest.raises(
        UserError, match=r"contradict each other: lesion_id of ISIC_1 is (MSK4_1 or IL_9|IL_9 or MSK4_1)"
    ):
        open_raw(tmp_path)


def test_isic_2020_is_of_nevi_melanomas_and_many_unknown(labels: Labels) -> None:
    head = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    rows = [
        "ISIC_2637011,IP_7279968,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0015719,IP_3075186,female,45.0,upper extremity,nevus,benign,0",
        "ISIC_0052212,IP_2842074,female,50.0,lower extremity,melanoma,malignant,1",
        "ISIC_0068279,IP_6890425,female,45.0,head/neck,atypical melanocytic proliferation,benign,0",
    ]
    with pytest.raises(UserError, match=r"1 × 'atypical melanocytic proliferation', 1 × 'unknown'"):
        labels(head, *rows)
    table = labels(head, *rows, other="rest")
    assert table["dx"].to_dict() == {
        "ISIC_0015719": "nv", "ISIC_0052212": "mel", "ISIC_0068279": "rest", "ISIC_2637011": "rest",
    }  # fmt: skip
    assert table["patient_id"]["ISIC_0015719"] == "IP_3075186"
    assert labels("image_name,target", "a,0", "b,1")["dx"].to_dict() == {"a": "rest", "b": "mel"}


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        ("image_id,melanoma,seborrheic_keratosis", ["a,1.0,0.0", "b,0.0,1.0", "c,0.0,0.0"]),  # ISIC 2017
        ("image_id,is_melanoma,benign_malignant", ["a,True,malignant", "b,False,benign", "c,False,benign"]),
        ("image_id,diagnosis", ["a,melanoma", "b,non-melanoma", "c,not melanoma"]),
        ("image_id,label", ["a,Melanoma", "b,Benign", "c,Benign"]),
    ],
)
def test_a_truth_of_melanoma_or_not(labels: Labels, head: str, rows: list[str]) -> None:
    assert labels(head, *rows)["dx"].to_dict() == {"a": "mel", "b": "rest", "c": "rest"}


def test_malignant_is_not_melanoma(labels: Labels, tmp_path: Path) -> None:
    rows = "isic_id,target", "a,0", "b,1"  # ISIC 2024: any cancer
    with pytest.raises(UserError, match=r"says in target malignant or not.*`columns: \{melanoma: target\}`"):
        labels(*rows)
    (tmp_path / "columns.yaml").write_text("columns: {melanoma: target}")
    assert labels(*rows)["dx"].to_dict() == {"a": "rest", "b": "mel"}


def test_isic_2024_has_other_cancers_among_its_targets(labels: Labels) -> None:
    head = "isic_id,target,patient_id,age_approx,sex,anatom_site_general,iddx_full,iddx_1,iddx_2,iddx_3"
    follicular = "Malignant adnexal epithelial proliferations - Follicular"
    table = labels(
        head,
        f"a,1,P,60,male,posterior torso,x,Malignant,{follicular},Basal cell carcinoma",
        "b,0,P,60,male,posterior torso,x,Benign,Benign melanocytic proliferations,Nevus",
        "c,0,P,60,male,posterior torso,Benign,Benign,,",
        other="rest",
    )
    assert table["dx"].to_dict() == {"a": "bcc", "b": "nv", "c": "rest"}


def test_derm7pt(labels: Labels) -> None:
    words = {
        "clark nevus": "nv", "reed or spitz nevus": "nv", "blue nevus": "nv", "combined nevus": "nv",
        "congenital nevus": "nv", "dermal nevus": "nv", "recurrent nevus": "nv", "melanoma": "mel",
        "melanoma (in situ)": "mel", "melanoma (less than 0.76 mm)": "mel", "melanoma (0.76 to 1.5 mm)": "mel",
        "melanoma (more than 1.5 mm)": "mel", "melanoma metastasis": "mel", "basal cell carcinoma": "bcc",
        "dermatofibroma": "df", "lentigo": "bkl", "seborrheic keratosis": "bkl", "vascular lesion": "vasc",
    }  # fmt: skip
    row = "{n},{word},3,absent,absent,absent,absent,absent,absent,absent,low,flat,back,male,excision,{a},{b},{n},"
    rows = [row.format(n=n, word=word, a=f"NEL/Nbl{n:03}.jpg", b=f"NEL/Nel{n:03}.jpg") for n, word in enumerate(words)]
    table = labels(DERM7PT, *rows)
    assert dict(zip(words, table["dx"], strict=True)) == words
    assert table.index[0] == "Nel000" and table["localization"].iloc[0] == "back" and table["sex"].iloc[0] == "male"
    outside = [
        row.format(n=90 + n, word=word, a="", b=f"x{n}") for n, word in enumerate(["melanosis", "miscellaneous"])
    ]
    assert len(labels(DERM7PT, *rows, *outside, other="drop")) == len(words)


def test_ph2(tmp_path: Path) -> None:
    rows = (
        "|| IMD003 ||                   ||       0      ||  0  |  T  |  A  |  A  |  A  |  A  ||  4  ||",
        "|| IMD146 ||   Compound Nevus  ||       1      ||  1  |  T  |  A  |  P  |  A  |  A  || 2 3 ||",
        "|| IMD405 ||   Melanoma        ||       2      ||  2  | AT  | AT  |  P  |  P  |  P  || 1 4 ||",
    )
    (tmp_path / "PH2_dataset.txt").write_text("\r\n".join([PH2, *rows, "", "Legends:", "0 - Common Nevus;"]))
    for name in ("IMD003", "IMD146", "IMD405"):
        (tmp_path / f"{name}.bmp").write_bytes(b"")
        (tmp_path / f"{name}_lesion.bmp").write_bytes(b"the mask")
    raw = open_raw(tmp_path)
    assert dict(zip(raw.table["image_id"], raw.table["dx"], strict=True)) == {
        "IMD003": "nv",
        "IMD146": "nv",
        "IMD405": "mel",
    }
    assert raw.unlisted == 3
    marks = "Image Name,Histological Diagnosis,Common Nevus,Atypical Nevus,Melanoma\nIMD003,,X,,\nIMD405,,,,X\n"
    (tmp_path / "sheet.csv").write_text(marks)
    assert external_set.read_labels(tmp_path / "sheet.csv")["dx"].tolist() == ["nv", "mel"]


def test_pad_ufes_20(labels: Labels) -> None:
    row = "PAT_{n},{n}1,,,,,{age},,{sex},,,,,,{site},,,{dx},,,,,,,PAT_{n}_{n}1_530.png,{biopsied}"
    rows = [
        row.format(n=1, age=8, sex="MALE", site="ARM", dx="NEV", biopsied="False"),
        row.format(n=2, age=55, sex="FEMALE", site="NECK", dx="ACK", biopsied="True"),
        row.format(n=3, age="", sex="", site="", dx="SEK", biopsied="False"),
        row.format(n=4, age=70, sex="MALE", site="FACE", dx="MEL", biopsied="True"),
    ]
    table = labels(PAD, *rows, row.format(n=5, age=1, sex="", site="", dx="SCC", biopsied="True"), other="drop")
    assert table["dx"].to_dict() == {
        "PAT_1_11_530": "nv",
        "PAT_2_21_530": "akiec",
        "PAT_3_31_530": "bkl",
        "PAT_4_41_530": "mel",
    }
    assert table["sex"].tolist() == ["male", "female", "unknown", "male"]
    assert table["localization"].tolist() == ["arm", "neck", "unknown", "face"]
    assert table["dx_type"].tolist() == ["", "histo", "", "histo"] and table["lesion_id"].tolist()[0] == "11"


@pytest.mark.parametrize(
    "words",
    [
        ["melanocytic_Nevi", "melanoma", "benign_keratosis-like_lesions", "basal_cell_carcinoma", "actinic_keratoses",
         "vascular_lesions", "dermatofibroma"],
        ["Melanocytic nevi", "Melanoma", "Benign keratosis-like lesions ", "Basal cell carcinoma", "Actinic keratoses",
         "Vascular lesions", "Dermatofibroma"],
        ["NV", "MEL", "BKL", "BCC", "AKIEC", "VASC", "DF"],
        ["melanocytic nevus", "malignant melanoma", "benign keratosis", "basal cell carcinoma",
         "Actinic keratoses and intraepithelial carcinoma / Bowen’s disease", "vascular lesion", "dermatofibroma"],
    ],
)  # fmt: skip
def test_copies_on_hubs_with_their_own_spellings(labels: Labels, words: list[str]) -> None:
    rows = [f"ISIC_{n}.jpg,HAM_{n},{word},histo,50.0,male,back" for n, word in enumerate(words)]
    assert labels("image_id,lesion_id,dx,dx_type,age,sex,localization", *rows)["dx"].tolist() == list(CLASSES)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("ISIC_1", "ISIC_1"), ("ISIC_1.JPG", "ISIC_1"), ("a/b/ISIC_1.jpeg", "ISIC_1"), (r"C:\x\ISIC_1.png", "ISIC_1"),
        ("ISIC_1_downsampled", "ISIC_1"), ("x/ISIC_1_Downsampled.jpg", "ISIC_1"), (" ISIC_1 ", "ISIC_1"),
        ("visit.2.left", "visit.2.left"), ("visit.2.tif", "visit.2"), ("", ""),
    ],
)  # fmt: skip
def test_an_id_is_the_same_however_it_is_written(written: str, wanted: str) -> None:
    assert image_id(written) == wanted


@pytest.mark.parametrize("blank", sorted(vocabulary.BLANKS))
def test_blanks_are_blanks_in_every_column(labels: Labels, blank: str) -> None:
    table = labels(
        "image_id,dx,age,sex,localization,lesion_id,dx_type", f"a,mel,{blank},{blank},{blank},{blank},{blank}"
    )
    row = table.loc["a"]
    assert np.isnan(row["age"]) and row[["sex", "localization", "dx_type"]].tolist() == ["unknown", "unknown", ""]
    assert row["lesion_id"] == "a"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_table_is_the_same_however_it_was_saved(tmp_path: Path, separator: str, end: str, encoding: str) -> None:
    rows = [["image_id", "dx", "age", "localization"], ["a", "nv", "45", "größte Stelle"], ["b", "mel", "85+", "back"]]
    path = tmp_path / "labels.csv"
    path.write_bytes((end.join(separator.join(row) for row in rows) + end).encode(encoding))
    table = external_set.read_labels(path)
    assert table[["image_id", "dx", "localization"]].to_numpy().tolist() == [
        ["a", "nv", "größte stelle"],
        ["b", "mel", "back"],
    ]
    assert table["age"].tolist() == [45, 85]


def test_excels_ways_of_saving(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("sep=;\r\nimage_id;dx;age\r\na;nv;45,5\r\n")
    assert external_set.read_labels(path)["age"].tolist() == [45.5]
    with zipfile.ZipFile(path, "w") as workbook:
        workbook.writestr("xl/workbook.xml", "")
    with pytest.raises(UserError, match=r"labels\.csv is a workbook, no text; save its sheet as CSV"):
        external_set.read_labels(path)
    path.write_text("image_id,dx\nL1,a,nv\nL2,b,mel\n")  # pandas would take the first cells for an index
    with pytest.raises(UserError, match="is no readable table"):
        external_set.read_labels(path)


@pytest.mark.parametrize(
    ("head", "row", "says"),
    [
        ("image_id,dx,diagnosis", "x,nv,melanoma", r"1 rows, first x \(dx 'nv', diagnosis 'melanoma'\)"),
        ("image_id,dx,dx", "x,nv,mel", r"dx 'nv', dx\.1 'mel'"),
        ("image_id,dx,benign_malignant", "x,nv,malignant", r"dx 'nv', benign_malignant 'malignant'"),
        ("image_id,diagnosis,melanoma", "x,nevus,1", r"diagnosis 'nevus', melanoma '1'"),
        ("isic_id,diagnosis,diagnosis_1", "x,melanoma,Benign", r"diagnosis 'melanoma', diagnosis_1 … 'Benign'"),
        (f"{ONE_HOT_2018},diag", "x,1,0,0,0,0,0,0,nv", r"the marks 'MEL', diag 'nv'"),
        ("image_name,diagnosis,target", "x,seborrheic keratosis,1", r"diagnosis 'seborrheic keratosis', target '1'"),
    ],
)  # fmt: skip
def test_columns_that_contradict_each_other_are_named(labels: Labels, head: str, row: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"labels\.csv contradicts itself in {says}" if says[0] == "1" else says):
        labels(head, row)


def test_what_may_be_melanoma_is_never_counted_as_rest(labels: Labels, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["a,melanoma", "b,AIMP", "c,malignant", "d,scar", "e,squamous cell carcinoma", "f,nevus"]
    table = labels("image_id,diagnosis", *rows, other="rest")
    assert table["dx"].to_dict() == {"a": "mel", "d": "rest", "e": "rest", "f": "nv"}
    said = capsys.readouterr().err
    assert "count as no melanoma: 1 × 'scar', 1 × 'squamous cell carcinoma'" in said
    assert "are left out: 1 × 'AIMP', 1 × 'malignant'" in said
    for word in ("böser Fleck", "", "nevus, melanoma"):  # not known: it may be one
        with pytest.raises(UserError, match=r"1 rows outside our seven diagnoses: 1 × .*columns\.yaml"):
            labels("image_id,diagnosis", *rows, f'g,"{word}"', other="rest")
    assert len(labels("image_id,diagnosis", *rows, "g,böser Fleck", other="drop")) == 2


def test_columns_yaml_leaves_out_what_training_cannot_use(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image_id,dx\na,nv\nb,scc\nc,wen\n")
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    with pytest.raises(UserError, match="2 rows outside our seven"):
        open_raw(tmp_path)
    (tmp_path / "columns.yaml").write_text("other: drop\ndx: {wen: df}\n")
    assert open_raw(tmp_path).table["dx"].tolist() == ["nv", "df"]
    (tmp_path / "t.csv").write_text("image_id,melanoma\na,1\nb,0\n")
    with pytest.raises(UserError, match="melanoma or not, which nobody can train on"):
        open_raw(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("columns: {image_id: [a, b]}", "columns must have one `ours: theirs` a line"),
        ("columns: [image_id, dx]", "columns must have one `ours: theirs` a line"),
        ("columns: {image: File}", "columns knows no image, only lesion_id, image_id"),
        ("dx: {nv: [nevus, naevus]}", "dx must have one `their word: ours` a line"),
        ("dx: {nevus: nv, wart: warts}", "dx knows no warts, only nv, mel"),
        ("dx: {wart: }", "dx must have one"),
        ("other: rest", "says `other: rest`, but only `other: drop` is known"),
        ("- a", "may hold `columns:`"),
        ("columns: {", "is not valid YAML"),
    ],
)
def test_a_wrong_value_in_columns_yaml_is_a_sentence(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "columns.yaml").write_text(content)
    with pytest.raises(UserError) as caught:
        forms.read_mapping(tmp_path)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_for_diagnoses_need_columns_yaml(labels: Labels, tmp_path: Path) -> None:
    rows = "image_id,label", "a,0", "b,4"
    with pytest.raises(UserError, match=r"2 rows outside our seven diagnoses: 1 × '0', 1 × '4' .*columns\.yaml"):
        labels(*rows)
    (tmp_path / "columns.yaml").write_text("columns: {dx: labels}")
    with pytest.raises(UserError, match=r"columns\.yaml names the column\(s\) labels, which labels .* lacks"):
        labels(*rows)
    (tmp_path / "columns.yaml").write_text("columns: {melanoma: mole}")
    with pytest.raises(UserError, match=r"columns\.yaml names the column\(s\) mole, which the table lacks"):
        labels(*rows)
    (tmp_path / "columns.yaml").write_text("dx: {0: nv, 4: mel}")
    assert labels(*rows)["dx"].tolist() == ["nv", "mel"]


def test_a_zip_inside_a_zip_is_looked_into_or_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as archive:
        archive.writestr("images/ISIC_1.jpg", b"picture")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "task/inner.zip")
    images = find_images(tmp_path / "outer.zip")
    assert list(images) == ["isic_1"] and images["isic_1"]() == b"picture"
    assert list(find_images(tmp_path)) == ["isic_1"], "an equal copy counts as one"
    with zipfile.ZipFile(tmp_path / "deeper.zip", "w") as archive:
        archive.write(tmp_path / "outer.zip", "outer.zip")
    with pytest.raises(UserError, match=r"deeper\.zip:outer\.zip:task/inner\.zip is a zip inside a zip.*unpack"):
        find_images(tmp_path / "deeper.zip")


def test_a_split_is_read_as_its_publishers_write_it(tmp_path: Path) -> None:
    data = pd.DataFrame({"image_id": ["ISIC_1", "ISIC_2"], "lesion_id": ["HAM_1", "HAM_2"]})

    path = tmp_path / "split.csv"

    def read(text: str) -> list[list[str]]:
        path.write_text(text)
        return forms.read_split(path, data).to_numpy().tolist()

    original = "split,index,image_id\ntrain,0,ISIC_1\ntest,1,isic_2\n"  # DermaMNIST's own, then the corrected ones
    corrected = (
        "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset,split\n"
        "HAM_1,ISIC_1,bkl,histo,80.0,male,scalp,vidir_modern,train\n"
        "HAM_2,ISIC_2,nv,histo,80.0,male,scalp,vidir_modern,test\n"
    )
    extended = f"{ONE_HOT_2018},diag,diag_int,split\nISIC_1.jpg{',0' * 7},nv,5,train\nISIC_2{',0' * 7},nv,5,test\n"
    for text in (original, corrected, extended):
        assert read(text) == [["ISIC_1", "train"], ["ISIC_2", "holdout"]]
    assert read("lesion_id;part\r\nham_1;Validation\r\n") == [["HAM_1", "val"]]
    with pytest.raises(UserError, match=r"needs the columns part and lesion_id or image_id.*columns\.yaml"):
        read("image_id,Teil\nISIC_1,train\n")
    (tmp_path / "columns.yaml").write_text("columns: {part: Teil}")
    assert read("image_id,Teil\nISIC_1,train\n") == [["ISIC_1", "train"]]


def test_a_workbook_in_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "PH2_dataset.xlsx").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"PH2_dataset\.xlsx is no table that can be read here; save it as CSV"):
        open_raw(tmp_path)


def test_no_such_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        tables.read(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is no readable table"):
        tables.parse(File("t.csv", "t.csv", lambda: "é".encode("latin-1")))

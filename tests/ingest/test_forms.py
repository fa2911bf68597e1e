"""Every form of HAM10000 or another data set gives one clean table, and says whether lesion ids are known."""

import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest import vocabulary
from dermdistill.ingest.archives import find_images
from dermdistill.ingest.dermamnist import LABELS
from dermdistill.ingest.fetch import bring
from dermdistill.ingest.prepare import open_raw, prepare
from dermdistill.phantom.phantom import PARTS, TABLE

SIZE = (32, 48)


@pytest.fixture
def raw(phantom_raw: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom_raw, tmp_path / "raw"))


def ham(raw: Path) -> pd.DataFrame:
    return pd.read_csv(raw / TABLE, dtype=str, keep_default_na=False)


def as_challenge(raw: Path, grouped: bool = True) -> None:
    """The layout of the ISIC 2018 challenge: images in one folder, truth and grouping in files of their own."""
    table, theirs = ham(raw), {ours: words for words, ours in vocabulary.CONFIRMATIONS.items()}
    (raw / TABLE).unlink()
    for name in PARTS:
        with zipfile.ZipFile(raw / name) as archive:
            archive.extractall(raw / "ISIC2018_Task3_Training_Input")
        (raw / name).unlink()
    truth = pd.DataFrame({"image": table["image_id"]})
    for dx in ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"):
        truth[dx.upper()] = (table["dx"] == dx).astype(float)
    folder = raw / "ISIC2018_Task3_Training_GroundTruth"
    folder.mkdir()
    truth.to_csv(folder / "ISIC2018_Task3_Training_GroundTruth.csv", index=False)
    if grouped:
        columns = {"image": table["image_id"], "lesion_id": table["lesion_id"]}
        groups = pd.DataFrame(columns | {"diagnosis_confirm_type": table["dx_type"].map(theirs)})
        groups.to_csv(raw / "ISIC2018_Task3_Training_LesionGroupings.csv", index=False)


def as_dermamnist(raw: Path, side: int = 28) -> None:
    table = ham(raw)
    shutil.rmtree(raw)
    raw.mkdir()
    random, arrays = np.random.default_rng(0), {}
    for part, rows in zip(("train", "val", "test"), np.array_split(np.arange(len(table)), 3), strict=True):
        coarse = random.integers(0, 256, (len(rows), 4, 4, 3), dtype=np.uint8)  # smooth pictures
        resized = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in coarse]
        arrays[f"{part}_images"] = np.array([np.asarray(one) for one in resized])
        arrays[f"{part}_labels"] = np.array([[LABELS.index(table["dx"][row])] for row in rows], np.uint8)
    np.savez_compressed(raw / "dermamnist.npz", **arrays)


def as_mapped(raw: Path) -> None:
    """Somebody's own names: columns, words, a suffix on the id, German decimal separators' semicolon."""
    table = ham(raw)
    words = {"mel": "Melanoma", "nv": "Nevus", "bcc": "BCC", "bkl": "seborrheic keratosis"}
    own = pd.DataFrame({
        "File Name": table["image_id"] + ".jpg", "Diagnosis": table["dx"].replace(words), "Lesion": table["lesion_id"],
        "Gender": table["sex"].str[0].str.upper().replace("U", ""), "age_approx": table["age"],
    })  # fmt: skip
    own.to_csv(raw / "clinic.csv", index=False, sep=";")
    (raw / TABLE).unlink()


def test_the_challenge_layout_is_the_same_data(phantom_raw: Path, raw: Path, tmp_path: Path) -> None:
    as_challenge(raw)
    report = prepare(open_raw(raw), tmp_path / "challenge", *SIZE)
    prepare(open_raw(phantom_raw), tmp_path / "ham", *SIZE)
    ours, theirs = (pd.read_csv(tmp_path / name / "metadata.csv") for name in ("challenge", "ham"))
    same = ["image_id", "lesion_id", "dx", "dx_type", "pixels_sha256"]
    pd.testing.assert_frame_equal(ours[same], theirs[same])
    assert (tmp_path / "challenge/images.npy").read_bytes() == (tmp_path / "ham/images.npy").read_bytes()
    assert report["form"] == "challenge" and report["lesions_known"] is True
    assert report["ages_missing"] == report["sex_unknown"] == len(ours)


def test_without_the_grouping_table_lesions_are_unknown(raw: Path) -> None:
    as_challenge(raw, grouped=False)
    data = open_raw(raw)
    assert not data.lesions_known and (data.table["lesion_id"] == data.table["image_id"]).all()


def test_dermamnist_trains_but_its_lesions_are_unknown(phantom_raw: Path, raw: Path, tmp_path: Path) -> None:
    as_dermamnist(raw)
    data = open_raw(raw)
    report = prepare(data, tmp_path / "out", 30, 40)
    assert report["form"] == "DermaMNIST" and not report["lesions_known"]
    assert data.table["dx"].value_counts().to_dict() == ham(phantom_raw)["dx"].value_counts().to_dict()
    assert set(data.table["dx"]) <= set(CLASSES)
    with np.load(raw / "dermamnist.npz") as arrays:
        square = Image.fromarray(arrays["test_images"][0])
    row = list(data.table["image_id"]).index("dermamnist_test_00000")
    wanted = np.asarray(square.resize((40, 30), Image.Resampling.BICUBIC), np.float64)  # nothing cut off, 4:3 again
    assert np.abs(np.load(tmp_path / "out/images.npy")[row] - wanted).mean() < 4


def test_columns_and_words_of_another_set_are_recognised(phantom_raw: Path, raw: Path) -> None:
    as_mapped(raw)
    data, wanted = open_raw(raw), open_raw(phantom_raw)
    assert data.form == "mapped" and data.lesions_known
    for column in ("image_id", "lesion_id", "dx", "age", "sex"):
        assert list(data.table[column].astype(str)) == list(wanted.table[column].astype(str)), column


def test_a_mapping_file_names_what_is_not_recognised(phantom_raw: Path, raw: Path) -> None:
    table = ham(raw).rename(columns={"image_id": "Aufnahme", "dx": "Befund"}).replace({"mel": "bösartig"})
    table.to_csv(raw / "praxis.csv", index=False)
    (raw / TABLE).unlink()
    with pytest.raises(UserError, match=r"has no table with an image id.*Aufnahme.*name its columns in columns\.yaml"):
        open_raw(raw)
    (raw / "columns.yaml").write_text("columns: {image_id: Aufnahme, dx: Befund}\ndx: {Bösartig: mel}\n")
    assert list(open_raw(raw).table["dx"]) == list(open_raw(phantom_raw).table["dx"])
    (raw / "columns.yaml").write_text("columns: {image_id: Aufnahme, dx: Befund, lesion_id: Lesoin}\n")
    with pytest.raises(UserError, match=r"columns\.yaml names the column\(s\) Lesoin, which the table lacks"):
        open_raw(raw)  # else each image would be a lesion of its own
    (raw / "columns.yaml").write_text("colums: {image_id: Aufnahme}\n")
    with pytest.raises(UserError, match=r"columns\.yaml may hold `columns:`"):
        open_raw(raw)


def test_a_truth_whose_zeros_are_left_blank_says_the_same(raw: Path) -> None:
    as_challenge(raw)
    whole = open_raw(raw).table
    path = next(raw.rglob("*GroundTruth.csv"))
    path.write_text(path.read_text().replace("0.0", ""))
    assert ",1.0,,,,,\n" in path.read_text()
    assert open_raw(raw).table["dx"].tolist() == whole["dx"].tolist()


def test_a_truth_with_two_marks_and_two_truths_are_refused(raw: Path) -> None:
    as_challenge(raw)
    path = next(raw.rglob("*GroundTruth.csv"))
    table = pd.read_csv(path)
    table.assign(MEL=1.0, NV=1.0).to_csv(path, index=False)
    with pytest.raises(UserError, match=r"outside our seven diagnoses: \d+ × 'none or several'"):
        open_raw(raw)
    shutil.copy(path, raw / "again.csv")
    with pytest.raises(UserError, match=r"holds several metadata tables .*; keep one"):
        open_raw(raw)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda arrays: arrays.pop("val_labels"), r"is no readable DermaMNIST file"),
        (lambda arrays: arrays.update(test_images=np.zeros((3, 28, 28), np.uint8)), r"is not DermaMNIST: test has"),
        (lambda arrays: arrays["train_labels"].fill(8), r"is not DermaMNIST: train has"),
    ],
)
def test_another_npz_is_refused(raw: Path, change: object, says: str) -> None:
    as_dermamnist(raw)
    with np.load(raw / "dermamnist.npz") as content:
        arrays = dict(content)
    change(arrays)  # type: ignore[operator]
    np.savez(raw / "dermamnist.npz", **arrays)
    with pytest.raises(UserError, match=says):
        open_raw(raw)
    np.savez(raw / "again.npz", **arrays)
    with pytest.raises(UserError, match=r"holds several data sets \(again\.npz, dermamnist\.npz\); keep one"):
        open_raw(raw)


@pytest.mark.parametrize("change", [as_challenge, as_dermamnist, as_mapped])
def test_make_data_brings_every_form(raw: Path, tmp_path: Path, change: object) -> None:
    change(raw)  # type: ignore[operator]
    bring(raw, tmp_path / "data/raw")
    assert open_raw(tmp_path / "data/raw").table.equals(open_raw(raw).table)


def test_one_reader_for_folders_and_zips(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "PNG")
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/One.PNG").write_bytes(buffer.getvalue())
    (tmp_path / "a/.hidden.png").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "a/two.zip", "w") as archive:
        archive.writestr("deep/er/two.jpeg", b"2")
        archive.writestr("__MACOSX/deep/._two.jpeg", b"")
        archive.writestr("deep/notes.txt", b"")
    readers = find_images(tmp_path / "a")
    assert set(readers) == {"one", "two"} and readers["two"]() == b"2" and readers["one"]() == buffer.getvalue()
    assert set(find_images(tmp_path / "a/two.zip")) == {"two"}
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        find_images(tmp_path / "absent")

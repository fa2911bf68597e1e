"""Raw data in every form they come in give the same arrays; faulty ones give one sentence and leave nothing behind."""

import dataclasses
import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import RunStage
from PIL import Image

from dermdistill.errors import UserError
from dermdistill.ingest.prepare import open_raw, prepare
from dermdistill.phantom.phantom import PARTS, TABLE
from stages import prepare as stage

SIZE = (32, 48)
RAW = Path("data/raw")


@pytest.fixture
def raw(phantom_raw: Path, tmp_path: Path) -> Path:
    """A copy of the raw folder to change at will."""
    return Path(shutil.copytree(phantom_raw, tmp_path / "raw"))


@pytest.fixture(scope="module")
def expected(phantom_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    return outputs(phantom_raw, tmp_path_factory.mktemp("expected"))


def outputs(raw: Path, into: Path) -> tuple[bytes, bytes]:
    """Bytes of the image array and of the clean table."""
    prepare(open_raw(raw), into, *SIZE)
    return (into / "images.npy").read_bytes(), (into / "metadata.csv").read_bytes()


def unpack(raw: Path, keep_zips: bool = False) -> None:
    for name in PARTS:
        with zipfile.ZipFile(raw / name) as archive:
            archive.extractall(raw / Path(name).stem)
        if not keep_zips:
            (raw / name).unlink()


def edit_table(raw: Path, change: Callable[[str], str]) -> None:
    path = raw / TABLE
    path.write_bytes(change(path.read_bytes().decode("utf-8")).encode("utf-8"))


def rezip(raw: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> None:
    """Rewrite the first archive after ``change`` has edited its members."""
    with zipfile.ZipFile(raw / PARTS[0]) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    with zipfile.ZipFile(raw / PARTS[0], "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


# --- the same data in another form ------------------------------------------------------------------------------


def test_array_and_table_are_of_the_same_images_in_the_order_of_their_ids(phantom_raw: Path, tmp_path: Path) -> None:
    report = prepare(open_raw(phantom_raw), tmp_path, *SIZE)
    images = np.load(tmp_path / "images.npy", allow_pickle=False)
    table = pd.read_csv(tmp_path / "metadata.csv", dtype=str, keep_default_na=False)
    source = pd.read_csv(phantom_raw / TABLE, dtype=str, keep_default_na=False).set_index("image_id")
    assert images.shape == (len(source), *SIZE, 3) and images.dtype == np.uint8
    assert list(table["image_id"]) == sorted(source.index) and table["pixels_sha256"].is_unique
    for column in ("lesion_id", "dx", "dx_type", "sex", "localization"):
        assert list(table[column]) == list(source.loc[table["image_id"], column])
    assert report["images"] == len(source) == sum(report["images_by_diagnosis"].values())
    assert report["lesions"] == source["lesion_id"].nunique() and report["identical_pixels"] == 0
    with zipfile.ZipFile(phantom_raw / PARTS[1]) as archive:
        name = archive.namelist()[7]
        with Image.open(io.BytesIO(archive.read(name))) as image:
            thumbnail = np.asarray(image.resize((48, 32), Image.Resampling.BOX), np.float64)
    row = list(table["image_id"]).index(Path(name).stem)
    distances = np.abs(images - thumbnail).mean((1, 2, 3))
    assert distances.argmin() == row


def test_unpacked_folders_and_a_tab_separated_table_without_extension_are_the_same(
    raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    unpack(raw)
    edit_table(raw, lambda text: text.replace(",", "\t"))
    (raw / TABLE).rename(raw / "HAM10000_metadata")
    assert outputs(raw, tmp_path / "out") == expected


def test_a_bom_crlf_quotes_and_blanks_around_values_are_accepted(
    raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    edit_table(raw, lambda text: "\ufeff" + text.replace(",mel,", ',"mel" ,').replace("\n", "\r\n"))
    assert (raw / TABLE).read_bytes().startswith(b"\xef\xbb\xbflesion_id") and b'"mel" ' in (raw / TABLE).read_bytes()
    assert outputs(raw, tmp_path / "out") == expected


def test_the_order_of_the_tables_rows_and_of_the_archives_members_changes_nothing(
    raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    def reverse(text: str) -> str:
        head, *rows = text.splitlines()
        return "\n".join([head, *rows[::-1]]) + "\n"

    def turn(members: dict[str, bytes]) -> None:
        items = list(members.items())[::-1]
        members.clear()
        members |= {f"folder/inside/{name}": content for name, content in items}

    edit_table(raw, reverse)
    rezip(raw, turn, zipfile.ZIP_DEFLATED)
    assert outputs(raw, tmp_path / "out") == expected


def test_extra_columns_and_images_without_a_row_are_ignored_and_counted(
    raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    edit_table(raw, lambda text: "\n".join(f"{line},{i}" for i, line in enumerate(text.splitlines())))
    Image.new("RGB", (8, 6)).save(raw / "ISIC_0000001.png")
    report = prepare(open_raw(raw), tmp_path / "out", *SIZE)
    assert report["files_without_a_row"] == 1
    assert (tmp_path / "out/metadata.csv").read_bytes() == expected[1]


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "I;16", "RGBA"])
def test_other_colour_modes_and_a_wrong_extension_are_read(raw: Path, tmp_path: Path, mode: str) -> None:
    """These are no faults."""
    if mode == "I;16":
        picture = Image.fromarray(np.full((60, 80), 40_000, np.uint16))
    else:
        picture = Image.new("RGB", (80, 60), (156, 156, 156)).convert(mode)
    content = encoded(picture, "TIFF")  # named .jpg all the same
    rezip(raw, lambda members: members.update({next(iter(members)): content}))
    prepare(open_raw(raw), tmp_path / "out", *SIZE)
    with zipfile.ZipFile(raw / PARTS[0]) as archive:
        name = Path(archive.namelist()[0]).stem
    sources = pd.read_csv(tmp_path / "out/sources.csv", index_col="image_id")
    row = list(sources.index).index(name)
    images = np.load(tmp_path / "out/images.npy", mmap_mode="r")
    assert sources["mode"][name] == mode
    assert np.abs(images[row].astype(int) - 156).mean() <= 6  # a palette is coarse and dithered


def test_ids_differing_in_case_from_their_files_are_found(
    raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]
) -> None:
    def lower(members: dict[str, bytes]) -> None:
        items = list(members.items())
        members.clear()
        members |= {name.lower().replace(".jpg", ".JPG"): content for name, content in items}

    rezip(raw, lower)
    assert outputs(raw, tmp_path / "out") == expected


def test_quoted_commas_stay_in_their_field(raw: Path, tmp_path: Path) -> None:
    edit_table(raw, lambda text: text.replace(",back\n", ',"back, left"\n'))
    prepare(open_raw(raw), tmp_path / "out", *SIZE)
    table = pd.read_csv(tmp_path / "out/metadata.csv")
    assert (table["localization"] == "back, left").any() and not (table["localization"] == "back").any()


@pytest.mark.parametrize("blank", ["", "NA", "nan", "None", "unknown"])
def test_blank_lesion_ids_are_unknown_ones(raw: Path, blank: str) -> None:
    with_ids = open_raw(raw)
    row = with_ids.table["lesion_id"].iloc[0]
    edit_table(raw, lambda text: text.replace(f"{row},", f"{blank},"))
    data = open_raw(raw)
    changed = data.table["lesion_id"] != with_ids.table["lesion_id"]
    assert with_ids.lesions_known and not data.lesions_known and changed.any()
    assert (data.table["lesion_id"][changed] == data.table["image_id"][changed]).all()


def test_equal_copies_of_images_count_as_one(raw: Path, tmp_path: Path, expected: tuple[bytes, bytes]) -> None:
    unpack(raw, keep_zips=True)
    assert outputs(raw, tmp_path / "out") == expected


def test_missing_ages_stay_missing(raw: Path, tmp_path: Path) -> None:
    edit_table(raw, lambda text: text.replace(first_age(text), ",,", 1))
    before = (pd.read_csv(raw / TABLE)["age"]).isna().sum()
    report = prepare(open_raw(raw), tmp_path / "out", *SIZE)
    assert report["ages_missing"] == before >= 1


def first_age(text: str) -> str:
    """``,45.0,`` of the first row that has an age."""
    return next(f",{row.split(',')[4]}," for row in text.splitlines()[1:] if row.split(",")[4])


def test_identical_pixels_have_identical_hashes(raw: Path, tmp_path: Path) -> None:
    def copy_first(members: dict[str, bytes]) -> None:
        first, second = list(members)[:2]
        members[second] = members[first]

    rezip(raw, copy_first)
    assert prepare(open_raw(raw), tmp_path / "out", *SIZE)["identical_pixels"] == 1


# --- faulty data ------------------------------------------------------------------------------------------------


def no_folder(raw: Path) -> None:
    shutil.rmtree(raw)


def no_table(raw: Path) -> None:
    (raw / TABLE).unlink()


def two_tables(raw: Path) -> None:
    shutil.copyfile(raw / TABLE, raw / "HAM10000_metadata.tab")


def truncated_zip(raw: Path) -> None:
    content = (raw / PARTS[0]).read_bytes()
    (raw / PARTS[0]).write_bytes(content[: len(content) // 2])


def flipped_bytes(raw: Path) -> None:
    """Inside one member's data; the archive's own directory stays good."""
    with zipfile.ZipFile(raw / PARTS[1]) as archive:
        info = archive.infolist()[3]
    content = bytearray((raw / PARTS[1]).read_bytes())
    middle = info.header_offset + 60 + info.compress_size // 2
    for i in range(middle, middle + 4):
        content[i] ^= 0xFF
    (raw / PARTS[1]).write_bytes(content)


def missing_image(raw: Path) -> None:
    rezip(raw, lambda members: members.pop(next(iter(members))) and None)


def missing_part(raw: Path) -> None:
    (raw / PARTS[0]).unlink()


def no_image(raw: Path) -> None:
    rezip(raw, lambda members: members.update({next(iter(members)): b"<html>404 not found</html>"}))


def truncated_image(raw: Path) -> None:
    def cut(members: dict[str, bytes]) -> None:
        name = list(members)[-1]
        members[name] = members[name][: len(members[name]) // 2]

    rezip(raw, cut)


def no_column(raw: Path) -> None:
    edit_table(raw, lambda text: text.replace("dx_type", "ground_truth", 1))


def unknown_dx(raw: Path) -> None:
    edit_table(raw, lambda text: text.replace(",nv,", ",mole,", 1))


def outside_our_seven(raw: Path) -> None:
    edit_table(raw, lambda text: text.replace(",nv,", ",scc,", 3).replace(",mel,", ",wen,", 1))


def listed_twice(raw: Path) -> None:
    edit_table(raw, lambda text: text + text.splitlines()[1] + "\n")


def several_faults(raw: Path) -> None:
    """Every finding is in the one sentence, with counts."""
    edit_table(
        raw, lambda text: text.replace(",nv,", ",wart,", 2).replace(first_age(text), ",-3,") + "HAM_1,,mel,histo,,,\n"
    )


def same_id_in_another_case(raw: Path) -> None:
    edit_table(raw, lambda text: text + text.splitlines()[1].replace("ISIC", "isic") + "\n")


def bare_text_as_jpeg(raw: Path) -> None:
    rezip(raw, lambda members: members.update({next(iter(members)): b"not a picture, whatever its name says"}))


def one_pixel(raw: Path) -> None:
    rezip(raw, lambda members: members.update({next(iter(members)): encoded(Image.new("RGB", (1, 1)), "PNG")}))


def pixel_bomb(raw: Path) -> None:
    """A few kilobytes that claim 900 million pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    rezip(raw, lambda members: members.update({next(iter(members)): bomb}))


def zip_bomb(raw: Path) -> None:
    rezip(raw, lambda members: members.update({next(iter(members)): bytes(101_000_000)}), zipfile.ZIP_DEFLATED)


def zip_leads_out(raw: Path) -> None:
    with zipfile.ZipFile(raw / PARTS[0], "a") as archive:
        archive.writestr("../../outside.jpg", b"")


def zip_with_absolute_path(raw: Path) -> None:
    with zipfile.ZipFile(raw / PARTS[0], "a") as archive:
        archive.writestr("/etc/x.jpg", b"")


def zip_with_path_of_windows(raw: Path) -> None:
    with zipfile.ZipFile(raw / PARTS[0], "a") as archive:
        archive.writestr(zipfile.ZipInfo("C:\\Users\\me\\x.jpg"), b"")


def twice_in_a_zip(raw: Path) -> None:
    with zipfile.ZipFile(raw / PARTS[0], "a") as archive:
        archive.writestr("again/" + archive.namelist()[0], b"another picture")


def encrypted_zip(raw: Path) -> None:
    """The flag that an encrypting program sets, in the archive's directory."""
    content = bytearray((raw / PARTS[0]).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (raw / PARTS[0]).write_bytes(content)


def encoded(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def two_places(raw: Path) -> None:
    unpack(raw, keep_zips=True)
    path = next(raw.rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"0")


def age_as_text(raw: Path) -> None:
    edit_table(raw, lambda text: text.replace(first_age(text), ",fifty,"))


def age_beyond(raw: Path) -> None:
    edit_table(raw, lambda text: text.replace(first_age(text), ",450,"))


def no_rows(raw: Path) -> None:
    edit_table(raw, lambda text: text.splitlines()[0] + "\n")


def nothing_in_table(raw: Path) -> None:
    (raw / TABLE).write_bytes(b"")


def short_row(raw: Path) -> None:
    edit_table(raw, lambda text: text + "HAM_1,ISIC_1\n")


def long_row(raw: Path) -> None:
    edit_table(raw, lambda text: text + text.splitlines()[1] + ",more,and,more\n")


def latin1_table(raw: Path) -> None:
    (raw / TABLE).write_bytes((raw / TABLE).read_bytes() + "é".encode("latin-1"))


FAULTS = [
    (no_folder, r"data/raw holds no HAM10000: .*`make data SOURCE=DIR`.*`make data`.*`make demo`"),
    (no_table, r"data/raw holds no HAM10000: .*`make data SOURCE=DIR`.*`make data`.*`make demo`"),
    (two_tables, r"several metadata tables \(HAM10000_metadata\.csv, HAM10000_metadata\.tab\); keep one"),
    (truncated_zip, r"HAM10000_images_part_1\.zip is no complete zip.*run `make data` again"),
    (flipped_bytes, r"ISIC_\d+\.jpg in data/raw/HAM10000_images_part_2\.zip is damaged.*run `make data` again"),
    (missing_image, r"lacks the files of 1 of \d+ images in the table \(ISIC_\d+\)"),
    (missing_part, r"lacks the files of \d+ of \d+ images in the table \((ISIC_\d+, ){5}…\)"),
    (no_image, r"image ISIC_\d+ cannot be read \(not an image\); replace the file"),
    (truncated_image, r"image ISIC_\d+ cannot be read \(.+\); replace the file"),
    (no_column, r"HAM10000_metadata\.csv lacks the column\(s\) dx_type; it has lesion_id, .*ground_truth"),
    (unknown_dx, r"has 1 rows outside our seven diagnoses: 1 × 'mole' \(say in columns\.yaml .*`other: drop`"),
    (outside_our_seven, r"4 rows outside our seven diagnoses: 3 × 'scc', 1 × 'wen' .* --other drop, and --other rest"),
    (listed_twice, r"has ISIC_\d+ more than once \(1 repeated"),
    (same_id_in_another_case, r"has isic_\d+ more than once \(1 repeated"),
    (several_faults, r"1 rows without image_id and 2 rows outside .*: 2 × 'wart' .* and ages .* such as '-3'"),
    (bare_text_as_jpeg, r"image ISIC_\d+ cannot be read \(not an image\); replace the file"),
    (one_pixel, r"image ISIC_\d+ is 1 × 1 pixels, which shows nothing; replace the file"),
    (pixel_bomb, r"image ISIC_\d+ has more than 200,000,000 pixels; scale it down"),
    (zip_bomb, r"ISIC_\d+\.jpg in data/raw/\S+\.zip unpacks to more than 100,000,000 bytes"),
    (zip_leads_out, r"part_1\.zip holds '\.\./\.\./outside\.jpg', a path that leads out of the archive"),
    (zip_with_absolute_path, r"part_1\.zip holds '/etc/x\.jpg', a path that leads out of the archive"),
    (zip_with_path_of_windows, r"part_1\.zip holds 'C:.*x\.jpg', a path that leads out of the archive"),
    (twice_in_a_zip, r"image ISIC_\d+ is there twice with other content, data/raw/.*\.jpg and data/raw/.*zip:again/"),
    (encrypted_zip, r"part_1\.zip is encrypted \(ISIC_\d+\.jpg\); unpack it with its password"),
    (two_places, r"image ISIC_\d+ is there twice with other content, data/raw/.* and data/raw/.*; remove one"),
    (age_as_text, r"ages that are no number from 0 to 120, such as 'fifty'"),
    (age_beyond, r"ages that are no number from 0 to 120, such as '450'"),
    (no_rows, r"HAM10000_metadata\.csv has no rows"),
    (nothing_in_table, r"HAM10000_metadata\.csv is no readable table"),
    (short_row, r"1 × no diagnosis"),
    (long_row, r"HAM10000_metadata\.csv is no readable table"),
    (latin1_table, r"HAM10000_metadata\.csv is no readable table"),
]


@pytest.mark.parametrize(("spoil", "says"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_fault_is_one_sentence_and_leaves_what_was_there(
    project: Path, spoil: Callable[[Path], None], says: str
) -> None:
    before = {path: path.read_bytes() for path in Path("data/prepared").iterdir()}
    spoil(RAW)
    with pytest.raises(UserError, match=says) as caught:
        stage.main()
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in Path("data/prepared").iterdir()} == before


@pytest.mark.parametrize("spoil", [no_folder, truncated_zip, flipped_bytes, no_image, age_as_text])
def test_as_a_process_a_fault_is_one_line_and_no_file(
    project: Path, spoil: Callable[[Path], None], run_stage: RunStage
) -> None:
    shutil.rmtree("data/prepared")
    Path("metrics/prepare.json").unlink()
    spoil(RAW)
    ended = run_stage("prepare", cwd=project)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and ended.stderr.rstrip().endswith(errors[0])
    assert not Path("metrics/prepare.json").exists()
    assert not Path("data/prepared").exists() or not list(Path("data/prepared").iterdir())


def test_an_interruption_leaves_what_was_there_and_nothing_else(project: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in Path("data/prepared").iterdir()}

    def interrupted() -> bytes:
        raise KeyboardInterrupt

    before, raw = files(), open_raw(RAW)
    readers = [*raw.readers[:-1], interrupted]
    with pytest.raises(KeyboardInterrupt):
        prepare(dataclasses.replace(raw, readers=readers), "data/prepared", *SIZE)
    assert files() == before


def test_the_raw_stage_finds_missing_images_before_anything_is_decoded(project: Path, run_stage: RunStage) -> None:
    good = run_stage("raw", cwd=project)
    assert good.returncode == 0 and "images of 60 lesions" in good.stdout
    missing_image(RAW)
    bad = run_stage("raw", cwd=project)
    assert bad.returncode == 1 and bad.stderr.startswith("error: data/raw lacks the files of 1 of")

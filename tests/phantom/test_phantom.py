"""The phantom data set: HAM10000's raw form, reproducible, with lesions photographed more than once."""

import csv
import io
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.phantom import camera, phantom, tissue

HEIGHT, WIDTH = 48, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("phantom")
    phantom.write(directory, lesions=40, seed=3, height=HEIGHT, width=WIDTH, progress=False)
    return directory


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "HAM10000_metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _names(folder: Path, part: int) -> list[str]:
    with zipfile.ZipFile(folder / f"HAM10000_images_part_{part}.zip") as archive:
        return archive.namelist()


def _content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_seed_same_bytes_other_seed_other_images(folder: Path, tmp_path: Path) -> None:
    phantom.write(tmp_path / "again", lesions=40, seed=3, height=HEIGHT, width=WIDTH, progress=False)
    phantom.write(tmp_path / "other", lesions=40, seed=4, height=HEIGHT, width=WIDTH, progress=False)
    assert _content(tmp_path / "again") == _content(folder)
    assert all(_content(tmp_path / "other")[name] != content for name, content in _content(folder).items())


def test_table_has_the_raw_columns_and_every_row_an_image_of_the_requested_size(folder: Path) -> None:
    text = (folder / "HAM10000_metadata.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "lesion_id,image_id,dx,dx_type,age,sex,localization"
    listed = [f"{row['image_id']}.jpg" for row in _rows(folder)]
    first, second = _names(folder, 1), _names(folder, 2)
    assert not set(first) & set(second) and abs(len(first) - len(second)) <= 1
    assert sorted(first + second) == sorted(listed) and len(set(listed)) == len(listed)
    for part in (1, 2):
        with zipfile.ZipFile(folder / f"HAM10000_images_part_{part}.zip") as archive:
            for name in archive.namelist():
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))


def test_ids_have_the_real_shape_but_cannot_be_real(folder: Path) -> None:
    for row in _rows(folder):
        assert len(row["image_id"]) == len("ISIC_0024306") and row["image_id"].startswith("ISIC_90")
        assert len(row["lesion_id"]) == len("HAM_0000550") and row["lesion_id"].startswith("HAM_90")


def test_every_diagnosis_occurs_and_a_lesion_keeps_its_data_and_reaches_both_archives(folder: Path) -> None:
    rows = _rows(folder)
    assert {row["dx"] for row in rows} == set(CLASSES)
    lesions = defaultdict(list)
    for row in rows:
        lesions[row["lesion_id"]].append(row)
    assert len(lesions) == 40
    several = [group for group in lesions.values() if len(group) > 1]
    assert several
    for group in several:
        shared = {(row["dx"], row["dx_type"], row["age"], row["sex"], row["localization"]) for row in group}
        assert len(shared) == 1
    first = set(_names(folder, 1))
    assert any(len({f"{row['image_id']}.jpg" in first for row in group}) == 2 for group in several)


def test_default_size_has_the_promised_mix() -> None:
    """At 700 lesions, without drawing: ≥ 12 lesions of each class, melanoma near 18 % and mostly repeated."""
    diagnoses = phantom._diagnoses(np.random.default_rng(0), 700)
    assert len(diagnoses) == 700 and min(Counter(diagnoses).values()) >= 12
    records = [phantom._record(np.random.default_rng((0, n)), dx) for n, dx in enumerate(diagnoses)]
    images = [fields.split(",") for fields, count in records for _ in range(count)]
    assert 0.15 < sum(fields[0] == "mel" for fields in images) / len(images) < 0.21
    views = [count for fields, count in records if fields.startswith("mel")]
    assert sum(count for count in views if count > 1) / sum(views) > 0.7
    ages = [fields[2] for fields in images]
    assert 0 < ages.count("") < 0.1 * len(ages) and all(float(age) % 5 == 0 for age in ages if age)
    assert {fields[3] for fields in images} == {"male", "female", "unknown"}
    assert {fields[1] for fields in images if fields[0] == "mel"} == {"histo"}
    assert {"follow_up", "histo"} <= {fields[1] for fields in images if fields[0] == "nv"}
    assert "consensus" in {fields[1] for fields in images if fields[0] == "bkl"}


@pytest.mark.parametrize("dx", ["nv", "mel"])
def test_two_views_of_a_lesion_differ_but_are_more_alike_than_two_lesions(dx: str) -> None:
    views = []
    for lesion in range(12):
        ground = tissue.paint(np.random.default_rng((9, lesion, 0)), dx, HEIGHT)
        streams = [np.random.default_rng((9, lesion, view)) for view in (1, 2)]
        one, two = (camera.photograph(rng, ground, HEIGHT, WIDTH).astype(float) for rng in streams)
        assert not np.array_equal(one, two)
        views.append([one, two])
    flat = np.stack([image.ravel() for pair in views for image in pair])
    alike = np.corrcoef(flat)
    lesion_of = np.repeat(np.arange(12), 2)
    same = lesion_of[:, None] == lesion_of[None, :]
    off_diagonal = ~np.eye(24, dtype=bool)
    assert alike[same & off_diagonal].mean() > alike[~same].mean() + 0.1
    assert alike[same & off_diagonal].max() < 0.999


@pytest.mark.parametrize("dx", CLASSES)
def test_draw_gives_a_picture_with_contrast(dx: str) -> None:
    image = phantom.draw(np.random.default_rng(1), dx, HEIGHT, WIDTH)
    assert image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8
    assert image.std() > 10


def test_melanomas_are_darker_inside_than_the_skin_around() -> None:
    grounds = [tissue.paint(np.random.default_rng(n), "mel", HEIGHT).mean(axis=2) for n in range(8)]
    middle = slice(HEIGHT - 4, HEIGHT + 4)
    for ground in grounds:
        assert ground[middle, middle].mean() < ground[:4, :4].mean() - 20


def test_real_data_are_never_overwritten_but_a_phantom_is(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "HAM10000_metadata.csv"
    real = "HAM_0000550,ISIC_0024306,nv,follow_up,45.0,male,trunk"
    table.write_text(f"{phantom.HEADER}\n{real}\n", encoding="utf-8")
    with pytest.raises(UserError, match="no phantom"):
        phantom.write(tmp_path, lesions=7, height=24, width=32, progress=False)
    assert "HAM_0000550" in table.read_text(encoding="utf-8")
    again = tmp_path / "again"
    for seed in (0, 1):
        phantom.write(again, lesions=7, seed=seed, height=24, width=32, progress=False)
    assert len({row["lesion_id"] for row in _rows(again)}) == 7


def test_archives_without_a_table_count_as_real(tmp_path: Path) -> None:
    (tmp_path / "HAM10000_images_part_2.zip").write_bytes(b"precious")
    with pytest.raises(UserError, match="part_2"):
        phantom.write(tmp_path, lesions=7, height=24, width=32, progress=False)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"lesions": 6}, "lesions is 6; give at least 7"),
        ({"seed": -1}, "seed is -1; give at least 0"),
        ({"height": 0}, "height is 0; give at least 24"),
        ({"width": 16}, "width is 16; give at least 32"),
        ({"width": 300}, "wider than 4:3"),
    ],
)
def test_impossible_requests_are_refused(tmp_path: Path, arguments: dict[str, int], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        phantom.write(tmp_path, progress=False, **arguments)
    assert not list(tmp_path.iterdir())

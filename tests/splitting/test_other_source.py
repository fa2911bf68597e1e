"""The halves of the second source: fixed for ever, alike in size, and never two photographs of one lesion apart."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermdistill.phantom import camera, tissue
from dermdistill.splitting import duplicates
from dermdistill.splitting.other_source import counts, find_shared, halves, lesion_of, part_of


@pytest.mark.parametrize(
    ("image_id", "part"),
    [
        ("A1l_Aal002", "other_test"),
        ("A1l_Aal002bis", "other_test"),
        ("image_0", "other_test"),
        ("image_1", "other_val"),
    ],
)
def test_a_half_never_changes(image_id: str, part: str) -> None:
    assert part_of(image_id) == part


@given(st.text())
def test_the_hash_as_a_number_decides(image_id: str) -> None:
    odd = int(hashlib.sha256(lesion_of(image_id).encode()).hexdigest(), 16) % 2
    assert part_of(image_id) == ("other_test" if odd else "other_val")


@given(st.text().filter(lambda text: not text.endswith("bis")))
def test_a_second_photograph_stays_with_the_first(image_id: str) -> None:
    assert lesion_of(f"{image_id}bis") == image_id
    assert part_of(f"{image_id}bis") == part_of(image_id)


def test_the_halves_are_halves() -> None:
    parts = [part_of(f"image_{i}") for i in range(2000)]
    assert 0.45 < parts.count("other_val") / len(parts) < 0.55


def test_halves_hold_every_image_but_those_of_lesions_that_ham10000_shows() -> None:
    names = [f"image_{i}{again}" for i in range(40) for again in ("", "bis")]
    table = pd.DataFrame({"image_id": names, "lesion_id": names, "dx": "nv"})
    tables = halves(table, ["image_3bis", "image_7"])
    both = pd.concat(tables.values())
    assert set(names) - set(both["image_id"]) == {"image_3", "image_3bis", "image_7", "image_7bis"}
    assert set(both["lesion_id"]) == {f"image_{i}" for i in range(40)} - {"image_3", "image_7"}
    assert all((rows["image_id"].map(part_of) == part).all() for part, rows in tables.items())
    counted = counts(tables, {"image_7": "ISIC_1"})
    assert counted["other_val"]["images"] + counted["other_test"]["images"] == 76 == 2 * 38
    assert counted["other_val"]["images"] == 2 * counted["other_val"]["lesions"]
    assert counted["shared_with_ham10000"] == {"image_7": "ISIC_1"}


def test_a_copy_and_another_photograph_of_a_known_lesion_are_found() -> None:
    def photographs(lesion: int) -> list[np.ndarray]:
        painter = np.random.default_rng([5, lesion])
        ground = tissue.paint(painter, ("mel", "nv", "bkl", "bcc")[lesion % 4], 150)
        return [camera.photograph(painter, ground, 150, 200) for _ in range(2)]

    lesions = [photographs(lesion) for lesion in range(8)]
    ham = np.stack([first for first, _ in lesions[:6]])
    images = np.stack([lesions[7][0], ham[4], lesions[2][1], lesions[6][1]])
    thresholds = duplicates.Thresholds(votes=4, hash_distance=4, inliers=10, correlation=0.1)
    assert find_shared(images, ["new", "copy", "again", "other"], ham, thresholds) == {"copy": 4, "again": 2}

"""Copies of a training image are recognised at any size and quality; other pictures are not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from dermdistill.errors import UserError
from dermdistill.phantom import phantom
from dermdistill.splitting import image_hashes


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    kinds = ("nv", "mel", "bkl", "bcc", "vasc", "df")
    return [phantom.draw(np.random.default_rng(n), kinds[n % 6], 90, 120) for n in range(18)]


def copies(image: np.ndarray) -> list[np.ndarray]:
    picture, buffer = Image.fromarray(image), io.BytesIO()
    picture.resize((200, 150), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
    brighter = ImageEnhance.Brightness(picture).enhance(1.08)
    return [np.asarray(one) for one in (picture, Image.open(buffer), picture.resize((80, 60)), brighter)]


def test_copies_are_found_and_named(images: list[np.ndarray], tmp_path: Path) -> None:
    names = [f"t{n}" for n in range(len(images))]
    image_hashes.table(names, images).to_csv(tmp_path / "known.csv", index=False)
    for n, image in enumerate(images[:6]):
        unknown = np.stack([np.frombuffer(image_hashes.image_hash(one), np.uint8) for one in copies(image)])
        ids = [f"u{k}" for k in range(len(unknown))]
        assert image_hashes.shared(ids, unknown, tmp_path / "known.csv") == [(k, f"t{n}") for k in ids]


def test_other_pictures_are_not_copies(images: list[np.ndarray], tmp_path: Path) -> None:
    image_hashes.table([f"t{n}" for n in range(9)], images[:9]).to_csv(tmp_path / "known.csv", index=False)
    unknown = np.stack([np.frombuffer(image_hashes.image_hash(one), np.uint8) for one in images[9:]])
    assert image_hashes.shared([f"u{n}" for n in range(9)], unknown, tmp_path / "known.csv") == []


def test_distance_is_the_count_of_different_bits() -> None:
    random = np.random.default_rng(0)
    known, unknown = (
        random.integers(0, 256, (700, 32), dtype=np.uint8),
        random.integers(0, 256, (5, 32), dtype=np.uint8),
    )
    index, distance = image_hashes.nearest(unknown, known)
    for row in range(5):
        slow = [int(np.unpackbits(unknown[row] ^ one).sum()) for one in known]
        assert (index[row], distance[row]) == (int(np.argmin(slow)), min(slow))


def test_a_missing_or_foreign_table_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        image_hashes.read(tmp_path / "none.csv")
    for text in ("image_id,other\na,b\n", "image_id,fingerprint\na,xyz\n", "image_id,fingerprint\na,00\n", ""):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(UserError, match="no table of fingerprints" if text else "not a readable CSV table"):
            image_hashes.read(tmp_path / "x.csv")

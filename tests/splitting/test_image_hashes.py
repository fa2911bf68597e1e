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


def hashed(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([np.frombuffer(image_hashes.image_hash(image), np.uint8) for image in images])


def test_copies_are_found_and_named(images: list[np.ndarray], tmp_path: Path) -> None:
    names = [f"t{n}" for n in range(len(images))]
    image_hashes.table(names, images).to_csv(tmp_path / "train.csv", index=False)
    for n, image in enumerate(images[:6]):
        hashes = hashed(copies(image))
        ids = [f"u{k}" for k in range(len(hashes))]
        assert image_hashes.copies(ids, hashes, tmp_path / "train.csv") == dict.fromkeys(ids, f"t{n}")


def test_other_pictures_are_not_copies(images: list[np.ndarray], tmp_path: Path) -> None:
    image_hashes.table([f"t{n}" for n in range(9)], images[:9]).to_csv(tmp_path / "train.csv", index=False)
    assert image_hashes.copies([f"u{n}" for n in range(9)], hashed(images[9:]), tmp_path / "train.csv") == {}


def test_the_nearest_hash_has_fewest_different_bits_and_is_the_first_of_these() -> None:
    random = np.random.default_rng(0)
    for largest in (256, 2):  # 2: 32 bits may be set, so that many hashes are equally near
        hashes, queries = (random.integers(0, largest, (count, 32), dtype=np.uint8) for count in (3000, 25))
        index, distance = image_hashes.nearest(queries, hashes)
        ties = 0
        for row, query in enumerate(queries):
            slow = [int(np.unpackbits(query ^ one).sum()) for one in hashes]
            assert (index[row], distance[row]) == (slow.index(min(slow)), min(slow))
            ties += slow.count(min(slow)) > 1
        assert largest > 2 or ties >= 5


def test_a_missing_or_foreign_table_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        image_hashes.read(tmp_path / "none.csv")
    for text in ("image_id,other\na,b\n", "image_id,image_hash\na,xyz\n", "image_id,image_hash\na,00\n", ""):
        (tmp_path / "x.csv").write_text(text)
        with pytest.raises(UserError, match="no table of image hashes" if text else "not a readable CSV table"):
            image_hashes.read(tmp_path / "x.csv")

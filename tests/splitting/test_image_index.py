"""Copies of indexed images are found however they were changed, other images are not, and files are checked."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import copies
from dermdistill.core.dataset import Split
from dermdistill.errors import UserError
from dermdistill.phantom import phantom
from dermdistill.splitting import image_index
from dermdistill.splitting.image_index import ImageIndex

COUNT = 24


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    random = np.random.default_rng(1)
    return np.stack([phantom.draw(random, ("mel", "nv", "bkl", "bcc")[n % 4], 150, 200) for n in range(2 * COUNT)])


@pytest.fixture(scope="module")
def index(images: np.ndarray) -> ImageIndex:
    """Of the first half of the images, in two parts, with ids in another order than rows."""
    ids = [f"i{99 - n}" for n in range(COUNT)]
    halves = (slice(0, COUNT // 2), slice(COUNT // 2, COUNT))
    rows = np.arange(COUNT)
    return image_index.build(images, [Split(ids[half], ids[half], rows[half], rows[half]) for half in halves])


@pytest.mark.parametrize("name", [*copies.CHANGES, "two"])
def test_a_changed_copy_is_found_as_itself(name: str, images: np.ndarray, index: ImageIndex) -> None:
    """Of drawings; how surely of photographs: benchmarks/results/copies.json."""
    random, pairs = np.random.default_rng(0), list(itertools.permutations(copies.CHANGES.values(), 2))
    changed = []
    for image in images[:COUNT]:
        copy = Image.fromarray(image)
        for change in pairs[int(random.integers(len(pairs)))] if name == "two" else [copies.CHANGES[name]]:
            copy = change(copy, random)
        changed.append(copy)
    found = copies.looked_up(index, changed)
    right = [bool(ms) and index.image_id[ms[0].row] == f"i{99 - n}" for n, ms in enumerate(found)]
    assert np.mean(right) >= 0.9


def test_other_images_are_not_found(images: np.ndarray, index: ImageIndex) -> None:
    assert copies.looked_up(index, map(Image.fromarray, images[COUNT:])) == [[]] * COUNT


def test_what_shows_nothing_is_no_copy(index: ImageIndex) -> None:
    flat = index.picture(np.full((50, 70, 3), 128, np.uint8))
    assert index.matches([flat, flat]) == [[], []] and image_index.groups([flat, flat]).tolist() == [0, 1]


def test_a_collection_is_grouped_by_what_it_shows(images: np.ndarray, index: ImageIndex) -> None:
    random, first = np.random.default_rng(0), [Image.fromarray(image) for image in images[:6]]
    changed = [copies.mirror(first[0], random), copies.crop(first[0], random), copies.squeeze(first[3], random)]
    pictures = [index.picture(np.asarray(image)) for image in (*first, *changed)]
    groups = image_index.groups(pictures)
    assert groups[0] == groups[6] == groups[7] and groups[3] == groups[8] and len(set(groups.tolist())) == 6


def test_the_mirror_image_of_a_descriptor_is_that_of_the_picture(images: np.ndarray, index: ImageIndex) -> None:
    ours, theirs = index.picture(images[0]), index.picture(images[0][:, ::-1])
    half = len(ours.frames) // 2
    distance = ((ours.vectors[half:, None] - theirs.vectors[None, : len(theirs.frames) // 2]) ** 2).sum(axis=2)
    assert np.median(distance.min(axis=1)) < 0.05


def test_a_file_brings_back_what_was_written(index: ImageIndex, tmp_path: Path) -> None:
    image_index.write(tmp_path / "index.npz", index)
    again = image_index.read(tmp_path / "index.npz")
    for name in ImageIndex.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(index, name)), name
    image_index.write(tmp_path / "twice.npz", again)
    assert (tmp_path / "twice.npz").read_bytes() == (tmp_path / "index.npz").read_bytes()


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        image_index.read(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other", "text"):
        with pytest.raises(UserError, match="is no index of images"):
            image_index.read(tmp_path / f"{name}.npz")

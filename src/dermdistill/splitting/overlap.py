"""Finds the images of an external set that were used to make the model: copies, and photographs of the same lesions.

The model's weights were trained on train; thresholds, temperature and the deployed model were chosen on val. Images of
either part flatter every metric of an external set.

A copy (re-encoded, scaled, recoloured) has nearly the same perceptual hash; the hashes of train and val are in git
(:mod:`dermdistill.splitting.image_hashes`). Another photograph of the same lesion is found as the audit finds duplicate
lesions: shared local features, then the geometric check. That needs the prepared images, so it runs only where they
are. Of HAM10000's 3,207 pairs with one lesion id the hash finds 4 %, the second search 68 %.

An empty result therefore does not prove that a set is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_table
from dermdistill.splitting import image_hashes

if TYPE_CHECKING:  # they bring OpenCV and faiss, which only the search for photographs needs
    from dermdistill.splitting import duplicates

HERE = Path(__file__).resolve()
ROOTS = (Path(), HERE.parents[3], HERE.parents[1] / "deployed")  # working folder, repository, installed package
IMAGE_HASHES = Path("data/image_hashes.csv")

Read = Callable[[], np.ndarray]  # (H, W, 3) uint8


@dataclass(frozen=True)
class ConcatImages:
    """Some rows of an array (N, H, W, 3), and after them external images, each read when it is indexed."""

    array: np.ndarray
    rows: np.ndarray
    external: Sequence[Read]

    def __len__(self) -> int:
        return len(self.rows) + len(self.external)

    def __getitem__(self, i: int) -> np.ndarray:
        count = len(self.rows)
        return np.asarray(self.array[self.rows[i]]) if i < count else self.external[i - count]()


def root() -> Path | None:
    """The folder that holds :data:`IMAGE_HASHES`; None if there is none."""
    return next((folder for folder in ROOTS if (folder / IMAGE_HASHES).exists()), None)


def copies(names: list[str], hashes: np.ndarray, folder: Path) -> dict[str, str]:
    """External image → the image of train or val that it is a copy of.

    Args:
        names: ids of m external images.
        hashes: their :func:`image_hashes.image_hash`, (m, 32) uint8.
        folder: the result of :func:`root`.
    """
    return image_hashes.copies(names, hashes, folder / IMAGE_HASHES)


def photographs(names: list[str], read: Callable[[str, int, int], np.ndarray], folder: Path) -> dict[str, str] | None:
    """External image → an image of train or val of the same lesion; None where the prepared images are missing.

    Args:
        names: ids of the external images.
        read: id, height, width → pixels (height, width, 3) uint8 of an external image.
        folder: the result of :func:`root`.
    """
    prepared = folder / "data/prepared/images.npy", folder / "data/prepared/metadata.csv"
    if not all(path.exists() for path in prepared):
        return None
    from dermdistill import params
    from dermdistill.splitting import duplicates

    array = load_images(folder / "data/prepared")
    image_id = read_table(prepared[1])["image_id"]
    rows = np.flatnonzero(image_id.isin(image_hashes.read(folder / IMAGE_HASHES)[0]))
    height, width = array.shape[1:3]
    images = ConcatImages(array, rows, [partial(read, name, height, width) for name in names])
    pairs = confirmed_across(images, duplicates.Thresholds(**params.load(folder / "params.yaml").audit.thresholds()))
    return {names[j - len(rows)]: str(image_id[rows[i]]) for i, j in pairs}


def confirmed_across(images: ConcatImages, thresholds: "duplicates.Thresholds") -> list[list[int]]:
    """Confirmed pairs (i, j) of an image of the array and an external one."""
    from dermdistill.splitting import duplicates

    descriptors = duplicates.compute_descriptors(images)
    pairs = duplicates.propose(descriptors, thresholds)
    count = len(images.rows)
    across = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)]
    measured = duplicates.verify(images, descriptors.features, across, thresholds)
    return across[measured[duplicates.MEASURES].any(axis=1).to_numpy(bool)].tolist()

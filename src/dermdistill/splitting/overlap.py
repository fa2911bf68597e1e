"""Finds the images of an external set that were used to make the model, by their ids and by what they show.

The model's weights were trained on train; thresholds, temperature and the deployed model were chosen on val. Images of
either part flatter every metric of an external set.

Ids and lesion ids come first, since they cost nothing. Whatever was renamed is found by content, with an index in git
(:mod:`dermdistill.splitting.image_index`); the images themselves need not be there.

For another source of the pipeline, :func:`confirmed_across` looks for duplicate lesions as the audit does: it finds
more photographs that are no copies, needs the prepared images, and takes minutes.

An empty result does not prove that a set is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dermdistill.splitting import duplicates, image_index
from dermdistill.splitting.image_index import ImageIndex, Picture

ROOTS = (Path(), Path(__file__).resolve().parents[3])  # the working folder, else the repository of this module
INDEX = Path("data/image_index.npz")

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


def index() -> ImageIndex | None:
    """The index of train and val; None if there is none.

    Raises:
        UserError: the file is damaged.
    """
    folder = next((folder for folder in ROOTS if (folder / INDEX).exists()), None)
    return None if folder is None else image_index.read(folder / INDEX)


def by_id(table: pd.DataFrame, known: ImageIndex) -> dict[str, str]:
    """External image → the image or lesion of train or val whose id it has, without regard to case.

    Args:
        table: ``image_id, lesion_id`` of the external set.
        known: the result of :func:`index`.
    """
    ids = {name.casefold(): name for name in (*known.lesion_id.tolist(), *known.image_id.tolist())}
    columns = [[ids.get(name.casefold()) for name in table[key]] for key in ("lesion_id", "image_id")]
    return {
        name: same
        for name, lesion, image in zip(table["image_id"], *columns, strict=True)
        if (same := image or lesion) is not None
    }


def by_content(names: Sequence[str], pictures: Sequence[Picture], known: ImageIndex) -> dict[str, str]:
    """External image → the image of train or val that shows the same skin.

    Args:
        names: ids of the external images.
        pictures: what ``known.picture`` describes of each.
    """
    found = zip(names, known.matches(pictures), strict=True)
    return {name: str(known.image_id[matches[0].row]) for name, matches in found if matches}


def confirmed_across(images: ConcatImages, thresholds: duplicates.Thresholds) -> list[list[int]]:
    """Confirmed pairs (i, j) of an image of the array and an external one."""
    descriptors = duplicates.compute_descriptors(images)
    pairs = duplicates.propose(descriptors, thresholds)
    count = len(images.rows)
    across = pairs[(pairs[:, 0] < count) & (pairs[:, 1] >= count)]
    measured = duplicates.verify(images, descriptors.features, across, thresholds)
    return across[measured[duplicates.MEASURES].any(axis=1).to_numpy(bool)].tolist()

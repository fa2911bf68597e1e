"""Prepared images and splits in memory: what training, quantization and prediction read.

The images stay in one memory-mapped uint8 array, so there are no loader processes to feed and
order is a matter of indices alone.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_table
from dermdistill.errors import UserError


@dataclass(frozen=True)
class Split:
    """The images of one part: ``labels`` (n,) int64 in class order, ``rows`` (n,) int64 into the image array."""

    image_id: list[str]
    lesion_id: list[str]
    labels: np.ndarray
    rows: np.ndarray


def load_images(root: str | Path = "data/prepared") -> np.ndarray:
    """All prepared images, (N, H, W, 3) uint8, memory-mapped read-only."""
    path = Path(root) / "images.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro prepare` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro prepare`") from None


def load_split(name: str, root: str | Path = "data") -> Split:
    """The part ``name`` (train, val or holdout), sorted by image id."""
    path = Path(root) / "splits" / f"{name}.csv"
    table = read_table(path).sort_values("image_id")
    order = read_table(Path(root) / "prepared" / "metadata.csv")["image_id"]
    rows = pd.Index(order).get_indexer(pd.Index(table["image_id"]))
    if (rows < 0).any():
        raise UserError(f"{path} names images that data/prepared lacks; run `dvc repro split`")
    labels = np.array([CLASSES.index(dx) for dx in table["dx"]], dtype=np.int64)
    return Split(list(table["image_id"]), list(table["lesion_id"]), labels, rows.astype(np.int64))

"""Prepared images and splits in memory: what training, quantization and prediction read.

The images stay in one memory-mapped uint8 array, so there are no loader processes to feed and
order is a matter of indices alone.
"""

import mmap
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_table
from dermdistill.core.parts import OTHER
from dermdistill.errors import UserError


@dataclass(frozen=True)
class Split:
    """The images of one part: ``labels`` (n,) int64 in class order, ``rows`` (n,) int64 into the image array.

    ``folds`` (n,) int64, by lesion, if the split has some (``split.folds``).
    """

    image_id: list[str]
    lesion_id: list[str]
    labels: np.ndarray
    rows: np.ndarray
    folds: np.ndarray | None = None

    def in_fold(self, fold: int) -> np.ndarray:
        """(n,) bool.

        Raises:
            UserError: the split has no such fold.
        """
        if self.folds is None or not (self.folds == fold).any():
            raise UserError(f"data/splits has no fold {fold}; raise split.folds and run `dvc repro split`")
        return self.folds == fold

    def where(self, kept: np.ndarray) -> "Split":
        """The images for which ``kept`` (n,) is true."""
        folds = None if self.folds is None else self.folds[kept]
        ids, lesions = (list(compress(names, kept)) for names in (self.image_id, self.lesion_id))
        return Split(ids, lesions, self.labels[kept], self.rows[kept], folds)


class Mapped(np.memmap):
    """A mapped array that lets go of the pages it has read, a gigabyte at most staying in this process's memory.

    The system's cache keeps them as long as it likes. Indexing gives plain arrays.
    """

    RELEASE = 1 << 30  # bytes read between two releases
    read = 0

    def __getitem__(self, key: Any) -> Any:
        result = np.asarray(self)[key]
        self.read += result.nbytes
        if self.read > self.RELEASE and hasattr(mmap, "MADV_DONTNEED"):  # absent on Windows
            self._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
            self.read = 0
        return result


def load_images(root: str | Path = "data/prepared") -> np.ndarray:
    """All prepared images, (N, H, W, 3) uint8, memory-mapped read-only."""
    path = Path(root) / "images.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).view(Mapped)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro prepare` makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); delete it and run `dvc repro prepare`") from None


def load_split(name: str, root: str | Path = "data") -> Split:
    """The part ``name`` (train, val or holdout), sorted by image id."""
    return _read(Path(root) / "splits" / f"{name}.csv", Path(root) / "prepared", "split")


def load_other(source: str, root: str | Path = "data") -> dict[str, Split]:
    """other_val and other_test of another source, as :func:`load_split`; ``rows`` are those of its own images."""
    folder = Path(root) / "other" / source
    return {part: _read(folder / f"{part}.csv", folder, f"prepare_other@{source}") for part in OTHER}


def _read(path: Path, prepared: Path, stage: str) -> Split:
    """The images of a part's table, found in a folder of prepared images; ``stage`` wrote the table."""
    table = read_table(path).sort_values("image_id")
    order = read_table(prepared / "metadata.csv")["image_id"]
    rows = pd.Index(order).get_indexer(pd.Index(table["image_id"]))
    if (rows < 0).any():
        raise UserError(f"{path} names images that {prepared} lacks; run `dvc repro {stage}`")
    labels = np.array([CLASSES.index(dx) for dx in table["dx"]], dtype=np.int64)
    folds = table["fold"].to_numpy(np.int64) if "fold" in table else None
    return Split(list(table["image_id"]), list(table["lesion_id"]), labels, rows.astype(np.int64), folds)

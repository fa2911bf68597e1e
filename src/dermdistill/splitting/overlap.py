"""Was the model made with these images? An outside set against those of train and val, in two looks.

Train taught the weights, val chose thresholds, temperature and which model ships; both flatter an outside figure.

A copy (re-encoded, scaled, recoloured) is known by its perceptual hash, which lies in git for each of them
(:mod:`dermdistill.splitting.image_hashes`). Another photograph of such a lesion is found the way the audit finds twins,
shared local features and then the geometric check; that needs the prepared images, so it is done where they are. Of
HAM10000's 3,207 pairs with one lesion id the hash finds 4 in 100, the second look 68.

An empty answer therefore does not prove that a set is new.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dermdistill import params
from dermdistill.core.files import read_table
from dermdistill.splitting import duplicates, image_hashes

ROOTS = (Path(), Path(__file__).resolve().parents[3])  # the working folder, else the repository this module lies in
FINGERPRINTS = Path("data/fingerprints.csv")

Read = Callable[[], np.ndarray]  # (H, W, 3) uint8


@dataclass(frozen=True)
class Joined:
    """Images of train and val, some rows of an array (N, H, W, 3), and after them outside ones, read when looked at."""

    array: np.ndarray
    rows: np.ndarray
    outside: Sequence[Read]

    def __len__(self) -> int:
        return len(self.rows) + len(self.outside)

    def __getitem__(self, i: int) -> np.ndarray:
        known = len(self.rows)
        return np.asarray(self.array[self.rows[i]]) if i < known else self.outside[i - known]()


def root() -> Path | None:
    """The folder below which the fingerprints lie."""
    return next((folder for folder in ROOTS if (folder / FINGERPRINTS).exists()), None)


def copies(names: list[str], prints: np.ndarray, folder: Path) -> dict[str, str]:
    """Outside image → the image of train or val it is a copy of; ``prints`` (n, 32): ``fingerprints.fingerprint``."""
    return dict(image_hashes.shared(names, prints, folder / FINGERPRINTS))


def photographs(names: list[str], read: Callable[[str, int, int], np.ndarray], folder: Path) -> dict[str, str] | None:
    """Outside image → an image of train or val of the same lesion; None where those are not prepared.

    Args:
        names: ids of the outside images.
        read: id, height, width → pixels of an outside image; they must fit the prepared ones'.
    """
    prepared = folder / "data/prepared/images.npy", folder / "data/prepared/metadata.csv"
    if not all(path.exists() for path in prepared):
        return None
    array = np.load(prepared[0], mmap_mode="r", allow_pickle=False)
    table = read_table(prepared[1])
    rows = np.flatnonzero(table["image_id"].isin(image_hashes.read(folder / FINGERPRINTS)[0]))
    height, width = array.shape[1:3]
    images = Joined(array, rows, [partial(read, name, height, width) for name in names])
    thresholds = duplicates.Thresholds(**params.load(folder / "params.yaml").audit.model_dump())
    known = duplicates.describe(images)
    pairs = duplicates.propose(known, thresholds)
    across = pairs[(pairs[:, 0] < len(rows)) & (pairs[:, 1] >= len(rows))]
    confirmed = across[duplicates.verify(images, known.features, across, thresholds)["confirmed"].to_numpy(bool)]
    return {names[j - len(rows)]: str(table["image_id"][rows[i]]) for i, j in confirmed.tolist()}

"""What a model says of corrupted images: the file that every figure of robustness comes from.

Which images (by diagnosis, each class by its share), the model's raw probabilities for them, clean and in every cell
of corruptions.py × severities, and their file. The model is a function from images to probabilities, so the same code
serves PyTorch and the INT8 file. Probabilities are kept in half precision: 0.05 % of each is less than any figure
shows, and a quarter of the text's size lets the file stand in git. Metrics are always computed from what the file
keeps, so whoever has the file gets the same ones. Deliberately absent: any figure (robustness.py).
"""

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic
from dermdistill.errors import UserError
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (n, H, W, 3) uint8 → raw probabilities (n, 7)."""

CELLS = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
NAMES = [f"{name} {severity}" for name, severity in CELLS]


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Raw probabilities of n images; make one with :func:`predict` or :func:`read`."""

    image_id: np.ndarray  # (n,) str
    clean: np.ndarray  # (n, 7) float16
    cells: np.ndarray  # (len(CELLS), n, 7) float16, in the order of CELLS


def choose(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Ascending indices of about ``count`` of the N images, every diagnosis by its share and at least one."""
    if count >= len(labels):
        return np.arange(len(labels))
    random, found = np.random.default_rng(seed), []
    for k in range(len(CLASSES)):
        members = np.flatnonzero(labels == k)
        wanted = max(round(count * len(members) / len(labels)), min(len(members), 1))
        found.append(random.permutation(members)[:wanted])
    return np.sort(np.concatenate(found))


def predict(model: Predict, images: np.ndarray, image_id: np.ndarray, seed: int) -> Corrupted:
    """Ask ``model`` about ``images`` (n, H, W, 3) uint8, clean and corrupted in every way."""
    cells = [model(_corrupted(images, name, severity, image_id, seed)) for name, severity in CELLS]
    return Corrupted(image_id, model(images).astype(np.float16), np.stack(cells).astype(np.float16))


def _corrupted(images: np.ndarray, name: str, severity: int, image_id: np.ndarray, seed: int) -> np.ndarray:
    pairs = zip(images, image_id, strict=True)
    return np.stack([corrupt(image, name, severity, str(key), seed) for image, key in pairs])


def write(path: str | Path, found: Corrupted) -> None:
    """Compressed arrays with the names of the cells; the same content gives the same bytes."""
    images, names = found.image_id.astype(str), np.array(NAMES)
    with atomic(path) as temporary:
        np.savez_compressed(temporary, image_id=images, names=names, clean=found.clean, cells=found.cells)


def write_mean(path: str | Path, members: Sequence[str | Path]) -> None:
    """The mean of several models' files, which is what they together predict of the same images."""
    read_members = [read(member) for member in members]
    image_id = read_members[0].image_id
    if any(one.image_id.tolist() != image_id.tolist() for one in read_members):
        raise UserError(f"{', '.join(map(str, members))} hold different images; run `dvc repro corrupt`")
    clean, cells = (
        np.mean([getattr(one, name).astype(np.float64) for one in read_members], axis=0).astype(np.float16)
        for name in ("clean", "cells")
    )
    write(path, Corrupted(image_id, clean, cells))


def read(path: str | Path) -> Corrupted:
    """UserError if there is no such file, or it holds something else than today's cells."""
    try:
        with np.load(path, allow_pickle=False) as content:
            image_id, names, clean, cells = (content[key] for key in ("image_id", "names", "clean", "cells"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; restore it from git or run `dvc repro`") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} is not a file of predictions on corrupted images; run `dvc repro`") from None
    wanted = (len(CELLS), len(image_id), len(CLASSES))
    if names.tolist() != NAMES or cells.shape != wanted or clean.shape != wanted[1:]:
        raise UserError(f"{path} holds other corruptions or images than the code asks for; run `dvc repro`")
    return Corrupted(image_id, clean, cells)

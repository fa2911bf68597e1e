"""A model's predictions for corrupted images: the files that the robustness metrics come from.

A file holds the image ids and the model's raw probabilities, clean and under each condition (corruption × severity).
The images are a sample of the holdout, stratified by diagnosis. The model is a function from images to probabilities,
so the same code serves PyTorch and INT8. Probabilities have half precision, which keeps the file small enough for git;
the relative error of 0.05 % is below every reported digit. Metrics are always computed from the stored values, so
everyone with the file gets the same ones.

Deliberately absent: metrics (``evaluation.robustness``) and the corruptions themselves (``evaluation.corruptions``).
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

CONDITIONS = tuple((name, severity) for name in CORRUPTIONS for severity in SEVERITIES)
NAMES = [f"{name} {severity}" for name, severity in CONDITIONS]


@dataclass(frozen=True, eq=False)
class Corrupted:
    """Raw probabilities for n images; :func:`predict` and :func:`read` make them."""

    image_id: np.ndarray  # (n,) str
    clean: np.ndarray  # (n, 7) float16
    conditions: np.ndarray  # (len(CONDITIONS), n, 7) float16, in the order of CONDITIONS


def choose(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Ascending indices of about ``count`` of the N images, stratified by ``labels`` (N,), at least one a class."""
    if count >= len(labels):
        return np.arange(len(labels))
    random, chosen = np.random.default_rng(seed), []
    for k in range(len(CLASSES)):
        members = np.flatnonzero(labels == k)
        size = max(round(count * len(members) / len(labels)), min(len(members), 1))
        chosen.append(random.permutation(members)[:size])
    return np.sort(np.concatenate(chosen))


def predict(model: Predict, images: np.ndarray, image_id: np.ndarray, seed: int) -> Corrupted:
    """Evaluate ``model`` on ``images`` (n, H, W, 3) uint8, clean and under every condition."""
    conditions = [model(_corrupted(images, name, severity, image_id, seed)) for name, severity in CONDITIONS]
    return Corrupted(image_id, model(images).astype(np.float16), np.stack(conditions).astype(np.float16))


def _corrupted(images: np.ndarray, name: str, severity: int, image_id: np.ndarray, seed: int) -> np.ndarray:
    pairs = zip(images, image_id, strict=True)
    return np.stack([corrupt(image, name, severity, str(key), seed) for image, key in pairs])


def write(path: str | Path, predictions: Corrupted) -> None:
    """Write compressed arrays and the names of the conditions; the same content gives the same bytes."""
    image_id, names, clean = predictions.image_id.astype(str), np.array(NAMES), predictions.clean
    with atomic(path) as temporary:  # "cells" is the key in the files in git
        np.savez_compressed(temporary, image_id=image_id, names=names, clean=clean, cells=predictions.conditions)


def write_mean(path: str | Path, members: Sequence[str | Path]) -> None:
    """Write the mean of several models' files, which is what they together predict for the same images.

    Raises:
        UserError: if a file is missing or damaged, or they hold different images.
    """
    predictions = [read(member) for member in members]
    image_id = predictions[0].image_id
    if any(one.image_id.tolist() != image_id.tolist() for one in predictions):
        raise UserError(f"{', '.join(map(str, members))} hold different images; run `dvc repro robustness`")
    clean = np.mean([one.clean.astype(np.float64) for one in predictions], axis=0)
    conditions = np.mean([one.conditions.astype(np.float64) for one in predictions], axis=0)
    write(path, Corrupted(image_id, clean.astype(np.float16), conditions.astype(np.float16)))


def read(path: str | Path) -> Corrupted:
    """Read a file of :func:`write`.

    Raises:
        UserError: if the file is missing, is something else, or holds other conditions than CONDITIONS.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            image_id, names, clean, conditions = (content[key] for key in ("image_id", "names", "clean", "cells"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; restore it from git or run `dvc repro`") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{path} is not a file of predictions on corrupted images; run `dvc repro`") from None
    shape = (len(CONDITIONS), len(image_id), len(CLASSES))
    if names.tolist() != NAMES or conditions.shape != shape or clean.shape != shape[1:]:
        raise UserError(f"{path} holds other corruptions or images than the code expects; run `dvc repro`")
    return Corrupted(image_id, clean, conditions)

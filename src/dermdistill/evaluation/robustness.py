"""How a model's figures fall when its images are corrupted: every corruption of corruptions.py at five severities.

The same images, clean and corrupted, so a change is paired and needs far fewer of them than an AUC does; they are drawn
by diagnosis, each class by its share but at least one. The mean corruption drop is the clean figure minus the mean over
all cells, with a lesion bootstrap in which clean and corrupted meet the same resamples. ``moved`` tells how many images
changed their probabilities by more than rounding: a cell that moves little says nothing about robustness.

The model is a function from images to raw probabilities, so the same code serves PyTorch and the INT8 file. Calibration
and threshold are the ones fitted on clean val, as on a phone. Deliberately absent: retraining on corrupted images.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from dermdistill.classes import CLASSES, MELANOMA
from dermdistill.evaluation import metrics, uncertainty
from dermdistill.evaluation.calibration import Calibration
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (n, H, W, 3) uint8 → raw probabilities (n, 7)."""

MOVED = 0.01  # change of some probability that is no rounding, not even that of INT8
FIGURES = ("roc_auc", "macro_f1")


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


def study(
    predict: Predict,
    images: np.ndarray,
    image_id: np.ndarray,
    labels: np.ndarray,
    lesions: np.ndarray,
    fitted: Calibration,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """The content of ``metrics/robustness/<id>.json``; ``images`` (n, H, W, 3) uint8 and their ids, labels, lesions."""
    clean = fitted.apply(predict(images))
    found = {
        (name, severity): fitted.apply(predict(_corrupted(images, name, severity, image_id, seed)))
        for name in CORRUPTIONS
        for severity in SEVERITIES
    }
    threshold = fitted.thresholds["sensitivity"]
    unchanged = _cell(labels, clean, clean, threshold)
    cells = {
        name: {str(s): _cell(labels, found[name, s], clean, threshold) for s in SEVERITIES} for name in CORRUPTIONS
    }
    return {
        "n": {"images": len(labels), "lesions": len(np.unique(lesions)), "melanoma": int((labels == MELANOMA).sum())},
        "clean": unchanged,
        "cells": cells,
        "drop_by_corruption": {
            name: {figure: _drop(unchanged, rows, figure) for figure in FIGURES} for name, rows in cells.items()
        },
        "mean_drop": _mean_drop(labels, lesions, clean, list(found.values()), bootstrap, seed),
        "least_moved": min(row["moved"] for severities in cells.values() for row in severities.values()),
    }


def _corrupted(images: np.ndarray, name: str, severity: int, image_id: np.ndarray, seed: int) -> np.ndarray:
    pairs = zip(images, image_id, strict=True)
    return np.stack([corrupt(image, name, severity, str(key), seed) for image, key in pairs])


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Share of images of which some probability changed by more than MOVED; both (n, 7)."""
    return float((np.abs(after - before).max(axis=1) > MOVED).mean())


def _cell(labels: np.ndarray, p: np.ndarray, clean: np.ndarray, threshold: float) -> dict[str, Any]:
    positive, score = labels == MELANOMA, p[:, MELANOMA]
    per_class = metrics.per_class(labels, p.argmax(axis=1)).values()
    point = metrics.operating_point(positive, score >= threshold)
    return {
        "roc_auc": metrics.roc_auc(positive, score),
        "macro_f1": float(np.mean([row["f1"] for row in per_class if row["n"]])),
        "sensitivity": point["sensitivity"],
        "specificity": point["specificity"],
        "moved": moved(clean, p),
    }


def _drop(clean: dict[str, Any], rows: dict[str, Any], figure: str) -> float | None:
    """Of one corruption, over its severities."""
    before, after = clean[figure], [row[figure] for row in rows.values()]
    return None if before is None or None in after else before - float(np.mean(after))


def _mean_drop(
    labels: np.ndarray, lesions: np.ndarray, clean: np.ndarray, cells: list[np.ndarray], bootstrap: int, seed: int
) -> dict[str, Any]:
    """{figure: {"drop", "interval"}}: clean minus the mean over cells."""

    def drop(build: Callable[[np.ndarray], uncertainty.Metric]) -> uncertainty.Metric:
        before, after = build(clean), [build(p) for p in cells]
        return lambda weights: before(weights) - np.mean([one(weights) for one in after], axis=0)

    drops = {
        "roc_auc": drop(lambda p: uncertainty.roc_auc(labels == MELANOMA, p[:, MELANOMA])),
        "macro_f1": drop(lambda p: uncertainty.macro_f1(labels, p.argmax(axis=1))),
    }
    bounds = uncertainty.intervals(drops, lesions, bootstrap, seed)
    return {
        name: {"drop": uncertainty.value(metric, lesions), "interval": bounds[name]} for name, metric in drops.items()
    }

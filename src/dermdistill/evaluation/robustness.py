"""How a model's figures fall when its images are corrupted: every corruption of corruptions.py at five severities.

The same images, clean and corrupted, so a change is paired and needs far fewer of them than an AUC does. The mean
corruption drop is the clean figure minus the mean over all cells, with a lesion bootstrap in which clean and corrupted
meet the same resamples. ``moved`` tells how many images changed their probabilities by more than rounding: a cell that
moves little says nothing about robustness.

Calibration and threshold are the ones fitted on clean val, as on a phone. Those of a teacher who is judged with mirror
images (``predict.flips``) were fitted to such means, while it is asked once here: compare its drops with the students',
not its levels. Deliberately absent: retraining on corrupted images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dermdistill.core.classes import MELANOMA
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap, corrupted
from dermdistill.evaluation.corrupted import CELLS, Corrupted
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from dermdistill.metrics import calibration, metrics, predictions
from dermdistill.metrics.calibration import Calibration

MOVED = 0.01  # change of some probability that is no rounding, not even that of INT8
FIGURES = ("roc_auc", "macro_f1")


def of_model(root: str | Path, model: str, images: int, resamples: int, seed: int) -> dict[str, Any]:
    """The content of ``metrics/robustness/<model>.json``, from the committed predictions of ``model`` alone.

    Raises:
        UserError: if a file is missing, or the corrupted images or their clean probabilities are not the holdout's;
            the latter not of a teacher, who is asked once here, and about mirror images too where it is judged.
    """
    name, root = f"predictions/corrupted/{model}.npz", Path(root)
    found = corrupted.read(root / name)
    holdout = predictions.read(root / f"predictions/holdout/{model}.csv")
    chosen = corrupted.choose(holdout.labels, images, seed)
    if found.image_id.tolist() != holdout.image_id[chosen].tolist():
        raise UserError(f"{name} is not of the images that robustness.images and seed choose; run `dvc repro`")
    if not model.startswith("teacher_") and moved(holdout.probabilities[chosen], found.clean) > 0:
        raise UserError(f"{name} comes from another model than predictions/holdout/{model}.csv; run `dvc repro`")
    fitted = calibration.read(root / f"metrics/calibrate/{model}.json")
    result = measure(found, holdout.labels[chosen], holdout.lesion_id[chosen], fitted, resamples, seed)
    rounded: dict[str, Any] = metrics.rounded(result)
    return rounded


def measure(
    given: Corrupted, labels: np.ndarray, lesions: np.ndarray, fitted: Calibration, resamples: int, seed: int
) -> dict[str, Any]:
    """Every cell, the drops and their intervals; ``labels`` and ``lesions`` (n,) of the images in ``given``."""
    clean = fitted.apply(given.clean.astype(np.float64))
    found = {cell: fitted.apply(p.astype(np.float64)) for cell, p in zip(CELLS, given.cells, strict=True)}
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
        "mean_drop": _mean_drop(labels, lesions, clean, list(found.values()), resamples, seed),
        "least_moved": min(row["moved"] for severities in cells.values() for row in severities.values()),
    }


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Proportion of images of which some probability changed by more than MOVED; both (n, 7)."""
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
    labels: np.ndarray, lesions: np.ndarray, clean: np.ndarray, cells: list[np.ndarray], resamples: int, seed: int
) -> dict[str, Any]:
    """{figure: {"drop", "interval"}}: clean minus the mean over cells."""

    def drop(build: Callable[[np.ndarray], bootstrap.Metric]) -> bootstrap.Metric:
        before, after = build(clean), [build(p) for p in cells]
        return lambda weights: before(weights) - np.mean([one(weights) for one in after], axis=0)

    drops = {
        "roc_auc": drop(lambda p: bootstrap.roc_auc(labels == MELANOMA, p[:, MELANOMA])),
        "macro_f1": drop(lambda p: bootstrap.macro_f1(labels, p.argmax(axis=1))),
    }
    bounds = bootstrap.intervals(drops, lesions, resamples, seed)
    return {
        name: {"drop": bootstrap.value(metric, lesions), "interval": bounds[name]} for name, metric in drops.items()
    }

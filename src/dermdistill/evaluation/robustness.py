"""How much a model's metrics drop when its images are corrupted: every corruption at five severities.

Clean and corrupted images are the same, so a change is paired and needs far fewer images than an AUC does. The mean
corruption drop is the clean metric minus the mean over all conditions. Its interval is a lesion bootstrap in which
clean and corrupted images share the resamples. ``moved`` is the proportion of images whose probabilities change by more
than rounding. A condition that moves few images says nothing about robustness.

Calibration and threshold are those fitted on clean val, as on a phone. A teacher's were fitted to means over mirror
images (``predict.flips``), while its corrupted predictions use each image once. Compare its drops with the students',
not its levels.

Deliberately absent: training on corrupted images.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dermdistill.core.classes import MELANOMA
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap, corrupted
from dermdistill.evaluation.corrupted import CONDITIONS, Corrupted
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from dermdistill.evaluation.weighted_metrics import Metric, macro_f1, roc_auc
from dermdistill.metrics import calibration, metrics, predictions
from dermdistill.metrics.calibration import Calibration

MOVED = 0.01  # change of a probability that exceeds rounding, even that of INT8
METRICS = ("roc_auc", "macro_f1")


def of_model(root: str | Path, model: str, images: int, resamples: int, seed: int) -> dict[str, Any]:
    """The content of ``metrics/robustness/<model>.json``, from the committed predictions of ``model`` alone.

    Args:
        images: size of the sample of holdout images, drawn with ``seed``.
        resamples: of the bootstrap.

    Raises:
        UserError: if a file is missing, if the images are not that sample, or if the clean probabilities differ from
            the holdout's. Those of a teacher may differ, because its holdout predictions average mirror images.
    """
    name, root = f"predictions/corrupted/{model}.npz", Path(root)
    content = corrupted.read(root / name)
    holdout = predictions.read(root / f"predictions/holdout/{model}.csv")
    chosen = corrupted.choose(holdout.labels, images, seed)
    if content.image_id.tolist() != holdout.image_id[chosen].tolist():
        raise UserError(f"{name} is not of the images that robustness.images and seed choose; run `dvc repro`")
    if not model.startswith("teacher_") and moved(holdout.probabilities[chosen], content.clean) > 0:
        raise UserError(f"{name} comes from another model than predictions/holdout/{model}.csv; run `dvc repro`")
    fitted = calibration.read(root / f"metrics/calibrate/{model}.json")
    result = measure(content, holdout.labels[chosen], holdout.lesion_id[chosen], fitted, resamples, seed)
    rounded: dict[str, Any] = metrics.rounded(result)
    return rounded


def measure(
    content: Corrupted, labels: np.ndarray, lesions: np.ndarray, fitted: Calibration, resamples: int, seed: int
) -> dict[str, Any]:
    """Metrics under every condition, the drops and their intervals.

    Args:
        content: raw probabilities of n images.
        labels, lesions: (n,) of the same images.
        fitted: calibration and threshold of the model.
    """
    clean, threshold = fitted.apply(content.clean.astype(np.float64)), fitted.thresholds["sensitivity"]
    calibrated = [fitted.apply(p.astype(np.float64)) for p in content.conditions]
    rows = {
        condition: _condition_metrics(labels, p, clean, threshold)
        for condition, p in zip(CONDITIONS, calibrated, strict=True)
    }
    clean_row = _condition_metrics(labels, clean, clean, threshold)
    conditions = {name: {str(severity): rows[name, severity] for severity in SEVERITIES} for name in CORRUPTIONS}
    return {
        "n": {"images": len(labels), "lesions": len(np.unique(lesions)), "melanoma": int((labels == MELANOMA).sum())},
        "clean": clean_row,
        "conditions": conditions,
        "drop_by_corruption": {
            name: {metric: _drop(clean_row, severities, metric) for metric in METRICS}
            for name, severities in conditions.items()
        },
        "mean_drop": _mean_drop(labels, lesions, clean, calibrated, resamples, seed),
        "least_moved": min(row["moved"] for row in rows.values()),
    }


def moved(before: np.ndarray, after: np.ndarray) -> float:
    """Proportion of images of which some probability changes by more than MOVED; both arguments (n, 7)."""
    return float((np.abs(after - before).max(axis=1) > MOVED).mean())


def _condition_metrics(labels: np.ndarray, p: np.ndarray, clean: np.ndarray, threshold: float) -> dict[str, Any]:
    y_true, y_score = labels == MELANOMA, p[:, MELANOMA]
    per_class = metrics.per_class(labels, p.argmax(axis=1)).values()
    point = metrics.operating_point(y_true, y_score >= threshold)
    return {
        "roc_auc": metrics.roc_auc(y_true, y_score),
        "macro_f1": float(np.mean([row["f1"] for row in per_class if row["n"]])),
        "sensitivity": point["sensitivity"],
        "specificity": point["specificity"],
        "moved": moved(clean, p),
    }


def _drop(clean: dict[str, Any], severities: dict[str, Any], metric: str) -> float | None:
    """Of one corruption: clean minus the mean over its severities."""
    before, after = clean[metric], [row[metric] for row in severities.values()]
    return None if before is None or None in after else before - float(np.mean(after))


def _mean_drop(
    labels: np.ndarray, lesions: np.ndarray, clean: np.ndarray, conditions: list[np.ndarray], resamples: int, seed: int
) -> dict[str, Any]:
    """{metric: {"drop", "interval"}}: clean minus the mean over ``conditions``, all of them (n, 7)."""

    def drop(build: Callable[[np.ndarray], Metric]) -> Metric:
        before, after = build(clean), [build(p) for p in conditions]
        return lambda weights: before(weights) - np.mean([metric(weights) for metric in after], axis=0)

    drops = {
        "roc_auc": drop(lambda p: roc_auc(labels == MELANOMA, p[:, MELANOMA])),
        "macro_f1": drop(lambda p: macro_f1(labels, p.argmax(axis=1))),
    }
    bounds = bootstrap.intervals(drops, lesions, resamples, seed)
    return {
        name: {"drop": bootstrap.value(metric, lesions), "interval": bounds[name]} for name, metric in drops.items()
    }

"""A threshold of one's own: fitted on a clinic's labelled images, with what it can be expected to reach there.

The deployed threshold was chosen on HAM10000's val and misses its sensitivity on other cameras. Whoever has labelled
images of their own can choose again. On the very images that it was chosen on, a threshold reaches its aim by
construction. Sensitivity and specificity are therefore cross-validated by lesion: each fold is judged with the
threshold fitted on the others. The interval resamples lesions, of those judgements.

Deliberately absent: fitting anything else. Temperature and class biases need more images than a clinic will label.
"""

from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Proportion
from dermdistill.metrics.calibration import sensitivity_threshold
from dermdistill.metrics.metrics import rounded
from dermdistill.metrics.predictions import Predictions
from dermdistill.splitting.splits import folds

IMAGES, EACH, FOLDS, RESAMPLES, SEED = 100, 20, 5, 2000, 0


def fit(predictions: Predictions, sensitivity: float) -> dict[str, Any]:
    """``threshold`` of calibrated P(melanoma), and ``cross_validated`` sensitivity and specificity with intervals.

    Args:
        predictions: calibrated.
        sensitivity: that the threshold is to reach.

    Raises:
        UserError: fewer than 100 images, or than 20 of melanoma or of anything else: a threshold would be chance.
    """
    y_true, y_score, lesions = predictions.melanoma, predictions.p_melanoma, predictions.lesion_id
    melanomas = int(y_true.sum())
    if len(y_true) < IMAGES or min(melanomas, len(y_true) - melanomas) < EACH:
        raise UserError(
            f"{len(y_true)} images with {melanomas} of melanoma are too few to fit a threshold on; label at least "
            f"{IMAGES}, {EACH} of them of melanoma and {EACH} of others"
        )
    fold = by_lesion(predictions)
    referred = np.zeros(len(y_true), bool)
    for k in range(FOLDS):
        others, judged = fold != k, fold == k
        referred[judged] = y_score[judged] >= sensitivity_threshold(y_true[others], y_score[others], sensitivity)
    metrics = {"sensitivity": Proportion(referred, among=y_true), "specificity": Proportion(~referred, among=~y_true)}
    intervals = bootstrap.intervals(metrics, lesions, RESAMPLES, SEED)
    reached = {name: bootstrap.value(metric, lesions) for name, metric in metrics.items()}
    content: dict[str, Any] = rounded({
        "aimed_at": sensitivity, "images": len(y_true), "melanoma": melanomas,
        "cross_validated": {name: {"value": reached[name], "interval": intervals[name]} for name in metrics},
    })  # fmt: skip
    return {"threshold": sensitivity_threshold(y_true, y_score, sensitivity)} | content


def by_lesion(predictions: Predictions) -> np.ndarray:
    """(N,) the fold of each image."""
    table = pd.DataFrame({"lesion_id": predictions.lesion_id, "dx": np.array(CLASSES)[predictions.labels]})
    return table["lesion_id"].map(folds(table, FOLDS, SEED)).to_numpy()


def lines(fitted: dict[str, Any]) -> list[str]:
    """The result as lines of text."""
    reached = fitted["cross_validated"]
    shown = [
        f"{name} {one['value']:.3f} [{', '.join(f'{bound:.3f}' for bound in one['interval'])}]"
        for name, one in reached.items()
    ]
    return [
        f"threshold of your own for sensitivity {fitted['aimed_at']:.0%}: {fitted['threshold']:.4f}",
        f"  to be expected on images like these (cross-validated by lesion, 95 %): {', '.join(shown)}",
        f"  use it: dermdistill predict --threshold {fitted['threshold']:.6f} IMAGE …",
    ]

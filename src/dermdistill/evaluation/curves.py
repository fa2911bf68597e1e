"""The tables behind the plots of one model: ROC, precision–recall, reliability, thresholds, confusion.

Each is written as a CSV for `dvc plots` and drawn by the report. Every point follows from the same functions
as the metrics file, so that a curve cannot disagree with its area. Deliberately absent: smoothing, and points
beyond those the data give.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics.metrics import one_sided, operating_point, width_bins


def tables(labels: np.ndarray, raw: np.ndarray, calibrated: np.ndarray, bins: int) -> dict[str, pd.DataFrame]:
    """By name; roc and pr are empty unless both sides are present. ``raw`` and ``calibrated`` are (N, 7)."""
    positive, score = labels == MELANOMA, calibrated[:, MELANOMA]
    return {
        "roc": _roc_table(positive, score),
        "pr": _pr_table(positive, score),
        "reliability": _reliability_table(positive, score, bins),
        "reliability_raw": _reliability_table(positive, raw[:, MELANOMA], bins),
        "threshold": _threshold_table(positive, score),
    }


def confusion_rows(labels: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """``actual,predicted`` by name, one row per image: what DVC's confusion template counts."""
    return pd.DataFrame({"actual": np.array(CLASSES)[labels], "predicted": np.array(CLASSES)[predicted]})


def _roc_table(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    if one_sided(positive):
        return pd.DataFrame(columns=["fpr", "tpr", "threshold"])
    fpr, tpr, threshold = roc_curve(positive, score)
    threshold = np.minimum(threshold, 1.0)  # the first, which calls nobody, is infinite
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": threshold})


def _pr_table(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    if one_sided(positive):
        return pd.DataFrame(columns=["recall", "precision", "threshold"])
    precision, recall, threshold = precision_recall_curve(positive, score, drop_intermediate=True)
    return pd.DataFrame({"recall": recall, "precision": precision, "threshold": np.append(threshold, 1.0)})


def _reliability_table(positive: np.ndarray, score: np.ndarray, bins: int) -> pd.DataFrame:
    """Means per occupied bin; an empty bin has no row."""
    images = pd.DataFrame({"bin": width_bins(score, bins), "confidence": score, "frequency": positive * 1.0})
    table = images.groupby("bin").mean()
    return table.assign(count=images.groupby("bin").size()).reset_index()


def _threshold_table(positive: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    grid = np.arange(201) / 200  # fine enough for a screening threshold of a few per cent
    rows = [{"threshold": t} | operating_point(positive, score >= t) for t in grid]
    return pd.DataFrame(rows)[["threshold", "sensitivity", "specificity", "f1"]]

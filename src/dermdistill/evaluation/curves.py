"""The tables behind the plots of one model: ROC, precision–recall, reliability, thresholds, confusion.

Each is written as a CSV; `dvc plots` and the report draw them. The points come from the same functions as the
metrics file, so a curve cannot disagree with its area. Deliberately absent: smoothing and interpolation.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics.metrics import one_sided, operating_point, width_bins


def tables(labels: np.ndarray, raw: np.ndarray, calibrated: np.ndarray, bins: int) -> dict[str, pd.DataFrame]:
    """Tables by name, from ``labels`` (N,), ``raw`` (N, 7) and ``calibrated`` (N, 7).

    roc and pr have no row unless both sides are present.
    """
    y_true, y_score = labels == MELANOMA, calibrated[:, MELANOMA]
    return {
        "roc": _roc_table(y_true, y_score),
        "pr": _pr_table(y_true, y_score),
        "reliability": _reliability_table(y_true, y_score, bins),
        "reliability_raw": _reliability_table(y_true, raw[:, MELANOMA], bins),
        "threshold": _threshold_table(y_true, y_score),
    }


def confusion_rows(labels: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """Columns ``actual, predicted`` with class names, one row per image: the input of DVC's confusion template."""
    return pd.DataFrame({"actual": np.array(CLASSES)[labels], "predicted": np.array(CLASSES)[predicted]})


def _roc_table(y_true: np.ndarray, y_score: np.ndarray) -> pd.DataFrame:
    if one_sided(y_true):
        return pd.DataFrame(columns=["fpr", "tpr", "threshold"])
    fpr, tpr, threshold = roc_curve(y_true, y_score)
    threshold = np.minimum(threshold, 1.0)  # the first, where every prediction is negative, is infinite
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, "threshold": threshold})


def _pr_table(y_true: np.ndarray, y_score: np.ndarray) -> pd.DataFrame:
    if one_sided(y_true):
        return pd.DataFrame(columns=["recall", "precision", "threshold"])
    precision, recall, threshold = precision_recall_curve(y_true, y_score, drop_intermediate=True)
    return pd.DataFrame({"recall": recall, "precision": precision, "threshold": np.append(threshold, 1.0)})


def _reliability_table(y_true: np.ndarray, y_score: np.ndarray, bins: int) -> pd.DataFrame:
    """Means per occupied bin; an empty bin has no row."""
    images = pd.DataFrame({"bin": width_bins(y_score, bins), "confidence": y_score, "frequency": y_true * 1.0})
    table = images.groupby("bin").mean()
    return table.assign(count=images.groupby("bin").size()).reset_index()


def _threshold_table(y_true: np.ndarray, y_score: np.ndarray) -> pd.DataFrame:
    grid = np.arange(201) / 200  # fine enough for a screening threshold of a few per cent
    rows = [{"threshold": t} | operating_point(y_true, y_score >= t) for t in grid]
    return pd.DataFrame(rows)[["threshold", "sensitivity", "specificity", "f1"]]

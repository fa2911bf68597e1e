"""Decision curves: whether acting on the model has more net benefit than referring everyone, or no one.

Net benefit at threshold t = TP / N − FP / N · t / (1 − t). Whoever refers at a probability of t weighs one missed
melanoma like (1 − t) / t needless referrals (Vickers & Elkin, Med. Decis. Making 26:565, 2006).

It is given at the prevalence of the images, and at that of a screening, where melanoma is far rarer. For the latter,
Bayes' rule multiplies the model's odds by the ratio of the prior odds, and the new prevalence weights sensitivity and
specificity. This assumes that the images of each side look as they do here. A screened population has easier benign
lesions, so the second curve is a bound on usefulness, not a forecast.

Deliberately absent: any unit but true positives per image, since no cost is known here.
"""

from typing import Any

import numpy as np
import pandas as pd

from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, Proportion, mean
from dermdistill.metrics.metrics import one_sided

GRID = np.arange(1, 101) / 200  # thresholds 0.5 % to 50 %; nobody waits for more before referring


def at_prevalence(y_true: np.ndarray, y_score: np.ndarray, prevalence: float | None) -> np.ndarray:
    """``y_score`` (N,) shifted to another ``prevalence`` of melanoma by Bayes' rule; None leaves it unchanged."""
    if prevalence is None or one_sided(y_true):
        return y_score
    observed = y_true.mean()
    ratio = prevalence / (1 - prevalence) * (1 - observed) / observed
    return np.asarray(y_score * ratio / (y_score * ratio + 1 - y_score))


def net_benefit(y_true: np.ndarray, y_pred: np.ndarray, threshold: float, prevalence: float | None = None) -> Metric:
    """Net benefit of referring ``y_pred`` (N,) bool; NaN where a prevalence is set and a side is missing."""
    odds = threshold / (1 - threshold)
    if prevalence is None:
        return mean((y_true & y_pred).astype(float) - odds * (~y_true & y_pred).astype(float))
    tpr, fpr = Proportion(y_pred, among=y_true), Proportion(y_pred, among=~y_true)
    return lambda weights: prevalence * tpr(weights) - (1 - prevalence) * odds * fpr(weights)


def advantage(y_true: np.ndarray, y_score: np.ndarray, threshold: float, prevalence: float | None = None) -> Metric:
    """Net benefit of the model minus the better of referring everyone and referring no one (0)."""
    shifted = at_prevalence(y_true, y_score, prevalence)
    model = net_benefit(y_true, shifted >= threshold, threshold, prevalence)
    everyone = net_benefit(y_true, np.ones(len(y_score), bool), threshold, prevalence)
    return lambda weights: model(weights) - np.maximum(everyone(weights), 0)


def measure(y_true: np.ndarray, y_score: np.ndarray, thresholds: list[float], prevalence: float) -> dict[str, Any]:
    """The section "net_benefit" of a metrics file: at each threshold, here and at the screening ``prevalence``."""
    return {
        name: {f"{t:g}": _row(y_true, y_score, t, value) for t in thresholds}
        for name, value in (("here", None), ("screening", prevalence))
    }


def advantages(
    y_true: np.ndarray, y_score: np.ndarray, thresholds: list[float], prevalence: float
) -> dict[str, Metric]:
    """The advantages of :func:`measure` as metrics for the bootstrap, by their path in the metrics file."""
    return {
        f"net_benefit.{name}.{t:g}.advantage": advantage(y_true, y_score, t, value)
        for name, value in (("here", None), ("screening", prevalence))
        for t in thresholds
    }


def _row(y_true: np.ndarray, y_score: np.ndarray, threshold: float, prevalence: float | None) -> dict[str, float]:
    shifted, everyone = at_prevalence(y_true, y_score, prevalence), np.ones(len(y_score), bool)
    metrics = {
        "model": net_benefit(y_true, shifted >= threshold, threshold, prevalence),
        "treat_all": net_benefit(y_true, everyone, threshold, prevalence),
        "advantage": advantage(y_true, y_score, threshold, prevalence),
    }
    return {name: bootstrap.value(metric, y_true) for name, metric in metrics.items()}


def curve(y_true: np.ndarray, y_score: np.ndarray, prevalence: float) -> pd.DataFrame:
    """Columns ``threshold, model, treat_all, model_screening, treat_all_screening``; referring no one is always 0."""
    rows = []
    for t in GRID.tolist():
        here, screening = (_row(y_true, y_score, t, value) for value in (None, prevalence))
        rows.append((t, here["model"], here["treat_all"], screening["model"], screening["treat_all"]))
    return pd.DataFrame(rows, columns=["threshold", "model", "treat_all", "model_screening", "treat_all_screening"])

"""Whether acting on the model does more good than treating everyone, or no one: decision curves.

Net benefit at threshold t = share of true alarms − share of false alarms · t / (1 − t): who refers at a probability
of t holds one missed melanoma as bad as (1 − t) / t needless referrals (Vickers & Elkin, Med. Decis. Making 26:565,
2006). It is given at the prevalence of the images and at that of a screening, where melanoma is far rarer: there the
model's odds are multiplied by the ratio of the prior odds, as Bayes' rule asks, and sensitivity and specificity are
weighted with the new prevalence. That supposes that melanomas and others look as they do here; a screened population
has easier benign lesions, so take the second curve as a bound on usefulness rather than a forecast.

Absent on purpose: a net benefit in any unit but true alarms per image, since no cost is known here.
"""

from typing import Any

import numpy as np
import pandas as pd

from dermdistill.evaluation import bootstrap
from dermdistill.metrics.metrics import one_sided

GRID = np.arange(1, 101) / 200  # 0.5 % to 50 %; nobody refers only above that


def at_prevalence(positive: np.ndarray, score: np.ndarray, prevalence: float | None) -> np.ndarray:
    """The probabilities (N,) as they would be where melanoma has another ``prevalence`` (None: unchanged)."""
    if prevalence is None or one_sided(positive):
        return score
    here = positive.mean()
    ratio = prevalence / (1 - prevalence) * (1 - here) / here
    return np.asarray(score * ratio / (score * ratio + 1 - score))


def net_benefit(
    positive: np.ndarray, called: np.ndarray, threshold: float, prevalence: float | None = None
) -> bootstrap.Metric:
    """Net benefit of referring the ``called`` (N,) bool; NaN where a prevalence is set and a side is missing."""
    odds = threshold / (1 - threshold)
    hit, alarm = (positive & called).astype(float), (~positive & called).astype(float)
    found = bootstrap.Proportion(called, among=positive)
    raised = bootstrap.Proportion(called, among=~positive)
    if prevalence is None:
        return bootstrap.mean(hit - odds * alarm)
    return lambda weights: prevalence * found(weights) - (1 - prevalence) * odds * raised(weights)


def advantage(
    positive: np.ndarray, score: np.ndarray, threshold: float, prevalence: float | None = None
) -> bootstrap.Metric:
    """Net benefit of the model minus that of the better of treating all and treating none."""
    shifted = at_prevalence(positive, score, prevalence)
    model = net_benefit(positive, shifted >= threshold, threshold, prevalence)
    everyone = net_benefit(positive, np.ones(len(score), bool), threshold, prevalence)
    return lambda weights: model(weights) - np.maximum(everyone(weights), 0)


def measure(positive: np.ndarray, score: np.ndarray, thresholds: list[float], prevalence: float) -> dict[str, Any]:
    """Section "net_benefit" of a metrics file: at each of ``thresholds``, here and at the screening ``prevalence``."""
    return {
        name: {f"{t:g}": _row(positive, score, t, one) for t in thresholds}
        for name, one in (("here", None), ("screening", prevalence))
    }


def advantages(
    positive: np.ndarray, score: np.ndarray, thresholds: list[float], prevalence: float
) -> dict[str, bootstrap.Metric]:
    """The advantages that :func:`measure` reports, by their path in the metrics file, for their intervals."""
    return {
        f"net_benefit.{name}.{t:g}.advantage": advantage(positive, score, t, one)
        for name, one in (("here", None), ("screening", prevalence))
        for t in thresholds
    }


def _row(positive: np.ndarray, score: np.ndarray, threshold: float, prevalence: float | None) -> dict[str, float]:
    shifted, everyone = at_prevalence(positive, score, prevalence), np.ones(len(score), bool)
    metrics = {
        "model": net_benefit(positive, shifted >= threshold, threshold, prevalence),
        "treat_all": net_benefit(positive, everyone, threshold, prevalence),
        "advantage": advantage(positive, score, threshold, prevalence),
    }
    return {name: bootstrap.value(metric, positive) for name, metric in metrics.items()}


def curve(positive: np.ndarray, score: np.ndarray, prevalence: float) -> pd.DataFrame:
    """``threshold, model, treat_all, model_screening, treat_all_screening``; treating none is 0 throughout."""
    rows = []
    for t in GRID.tolist():
        here, screening = (_row(positive, score, t, one) for one in (None, prevalence))
        rows.append((t, here["model"], here["treat_all"], screening["model"], screening["treat_all"]))
    return pd.DataFrame(rows, columns=["threshold", "model", "treat_all", "model_screening", "treat_all_screening"])

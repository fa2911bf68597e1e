"""One model on one set of images: every metric, and intervals for the headline ones.

The stage ``evaluate``, ``make verify`` and ``dermdistill evaluate`` all call this one function, so a
recomputed number cannot differ from a published one by a difference in code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap, curves, decision, subgroups
from dermdistill.metrics import metrics, selective
from dermdistill.metrics.predictions import Predictions


@dataclass(frozen=True)
class Settings:
    """The block ``evaluate`` of params.yaml."""

    bootstrap: int  # resamples of lesions behind every interval
    bins: int  # of the calibration errors
    seed: int
    decision_thresholds: list[float]  # at which net benefit is reported
    screening_prevalence: float
    slice_minimum: int  # images a figure of a slice needs on each side


def measure(
    known: Predictions,
    calibrated: np.ndarray,
    thresholds: Mapping[str, float],
    rules: selective.Rules | None,
    traits: pd.DataFrame,
    settings: Settings,
) -> dict[str, Any]:
    """The content of a metrics file.

    Args:
        known: raw probabilities and labels of N images.
        calibrated: (N, 7) probabilities after calibration.
        thresholds: of the operating points, on calibrated P(mel).
        rules: for deferral and conformal sets; None leaves that section out.
        traits: ``dx_type, sex, age, localization`` by image_id, of at least these images.
    """
    labels, lesions, shipped = known.labels, known.lesion_id, thresholds["sensitivity"]
    positive, score, shown = known.melanoma, calibrated[:, MELANOMA], known.rows(traits)
    histology = (shown["dx_type"] == "histo").to_numpy()
    numbers, screening = (settings.bootstrap, settings.seed), settings.screening_prevalence
    result = metrics.evaluate(labels, lesions, known.probabilities, calibrated, thresholds, histology, settings.bins)
    result["net_benefit"] = decision.measure(positive, score, settings.decision_thresholds, screening)
    headline = bootstrap.headline(labels, calibrated, shipped, histology, settings.bins)
    headline |= decision.advantages(positive, score, settings.decision_thresholds, screening)
    if rules is not None:
        result["selective"] = selective.measure(labels, calibrated, shipped, rules)
        headline |= _coverage(labels, calibrated, rules)
    result["subgroups"] = subgroups.measure(labels, lesions, score, shipped, shown, settings.slice_minimum, *numbers)
    result["intervals"] = bootstrap.intervals(headline, lesions, *numbers)
    rounded: dict[str, Any] = metrics.rounded(result)
    return rounded


def _coverage(labels: np.ndarray, calibrated: np.ndarray, rules: selective.Rules) -> dict[str, bootstrap.Metric]:
    """Coverage of both kinds of conformal sets, by its path in the metrics file, for the intervals."""
    rows = np.arange(len(labels))
    return {
        f"selective.conformal.{kind}.coverage": bootstrap.Proportion(selective.sets(calibrated, q)[rows, labels])
        for kind, q in (("marginal", rules.marginal), ("class_conditional", rules.by_class))
    }


def tables(known: Predictions, calibrated: np.ndarray, settings: Settings) -> dict[str, pd.DataFrame]:
    """Every curve of one model, by name, and the confusion rows."""
    labels, score = known.labels, calibrated[:, MELANOMA]
    plain = curves.tables(labels, known.probabilities, calibrated, settings.bins)
    return {f"curves/{name}": table for name, table in plain.items()} | {
        "curves/decision": decision.curve(known.melanoma, score, settings.screening_prevalence),
        "curves/risk_coverage": selective.risk_coverage(labels, calibrated),
        "confusion": curves.confusion_rows(labels, calibrated.argmax(axis=1)),
    }

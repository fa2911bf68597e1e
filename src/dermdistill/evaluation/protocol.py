"""The evaluation protocol: every metric of one model on one set of images, and intervals for the headline ones.

The stage ``evaluate``, ``make verify`` and ``dermdistill evaluate`` all call :func:`measure`, so a recomputed
number cannot differ from a published one by a difference in code.

Deliberately absent: reading and writing files, and fitting anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap, curves, decision, subgroups, weighted_metrics
from dermdistill.evaluation.weighted_metrics import Metric, Proportion
from dermdistill.metrics import metrics, selective
from dermdistill.metrics.predictions import Predictions


@dataclass(frozen=True)
class Settings:
    """The block ``evaluate`` of params.yaml."""

    bootstrap: int  # resamples of lesions for every interval
    bins: int  # of the calibration errors
    seed: int
    decision_thresholds: list[float]  # at which net benefit is reported
    screening_prevalence: float
    subgroup_minimum: int  # images that a metric of a subgroup needs on each side


def measure(
    predictions: Predictions,
    calibrated: np.ndarray,
    thresholds: Mapping[str, float],
    rules: selective.Rules | None,
    metadata: pd.DataFrame,
    settings: Settings,
) -> dict[str, Any]:
    """The content of a metrics file, rounded to six decimals.

    Args:
        predictions: raw probabilities and labels of N images.
        calibrated: (N, 7) probabilities after calibration.
        thresholds: of the operating points, on calibrated P(mel).
        rules: for deferral and conformal sets; None leaves that section out.
        metadata: ``dx_type, sex, age, localization`` by image_id, of at least these images.

    Raises:
        UserError: if an image has no metadata.
    """
    labels, lesions, y_score = predictions.labels, predictions.lesion_id, calibrated[:, MELANOMA]
    rows, deployed = predictions.rows(metadata), thresholds["sensitivity"]
    histology = (rows["dx_type"] == "histo").to_numpy()
    raw, bins, minimum = predictions.probabilities, settings.bins, settings.subgroup_minimum
    referral = settings.decision_thresholds, settings.screening_prevalence
    resampling = settings.bootstrap, settings.seed

    result = metrics.evaluate(labels, lesions, raw, calibrated, thresholds, histology, bins)
    result["net_benefit"] = decision.measure(predictions.melanoma, y_score, *referral)
    if rules is not None:
        result["selective"] = selective.measure(labels, calibrated, deployed, rules)
    result["subgroups"] = subgroups.measure(labels, lesions, y_score, deployed, rows, minimum, *resampling)

    headline = weighted_metrics.headline(labels, calibrated, deployed, histology, bins)
    headline |= decision.advantages(predictions.melanoma, y_score, *referral)
    headline |= coverage_metrics(labels, calibrated, rules) if rules is not None else {}
    result["intervals"] = bootstrap.intervals(headline, lesions, *resampling)
    rounded: dict[str, Any] = metrics.rounded(result)
    return rounded


def coverage_metrics(labels: np.ndarray, calibrated: np.ndarray, rules: selective.Rules) -> dict[str, Metric]:
    """Coverage of both kinds of conformal sets as metrics for the bootstrap, by their path in the metrics file."""
    rows = np.arange(len(labels))
    return {
        f"selective.conformal.{kind}.coverage": Proportion(selective.sets(calibrated, q)[rows, labels])
        for kind, q in (("marginal", rules.marginal), ("class_conditional", rules.by_class))
    }


def tables(predictions: Predictions, calibrated: np.ndarray, settings: Settings) -> dict[str, pd.DataFrame]:
    """Every curve of one model and the confusion rows, by path below ``plots``; ``calibrated`` (N, 7)."""
    labels, y_score = predictions.labels, calibrated[:, MELANOMA]
    curve_tables = curves.tables(labels, predictions.probabilities, calibrated, settings.bins)
    return {f"curves/{name}": table for name, table in curve_tables.items()} | {
        "curves/decision": decision.curve(predictions.melanoma, y_score, settings.screening_prevalence),
        "curves/risk_coverage": selective.risk_coverage(labels, calibrated),
        "confusion": curves.confusion_rows(labels, calibrated.argmax(axis=1)),
    }

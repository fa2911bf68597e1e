"""One model on one set of images: every metric, and intervals for the headline ones.

The stage ``evaluate``, ``make verify`` and ``dermdistill evaluate`` all call this one function, so a
recomputed number cannot differ from a published one by a difference in code.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dermdistill.evaluation import metrics, uncertainty
from dermdistill.evaluation.predictions import Predictions


def measure(
    known: Predictions,
    calibrated: np.ndarray,
    thresholds: Mapping[str, float],
    histology: np.ndarray,
    bins: int,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """The content of a metrics file.

    Args:
        known: raw probabilities and labels of N images.
        calibrated: (N, 7) probabilities after calibration.
        thresholds: of the operating points, on calibrated P(mel).
        histology: (N,) bool, whether the diagnosis was confirmed by histology.
        bins: of the calibration errors.
        bootstrap, seed: resamples of lesions behind every interval, and their seed.
    """
    labels, lesions = known.labels, known.lesion_id
    result = metrics.evaluate(labels, lesions, known.probabilities, calibrated, thresholds, histology, bins)
    headline = uncertainty.headline(labels, calibrated, thresholds["sensitivity"], histology, bins)
    result["intervals"] = uncertainty.intervals(headline, lesions, bootstrap, seed)
    rounded: dict[str, Any] = metrics.rounded(result)
    return rounded

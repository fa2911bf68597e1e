"""How far one version of a model strays from another on the same images: the one place that says so.

Plain arrays of probabilities in, plain numbers out. What INT8 costs is measured as it would ship: each
version with its own calibration and its own threshold, both fitted on val.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dermdistill.core.classes import MELANOMA
from dermdistill.metrics import calibration, metrics


class Version(NamedTuple):
    """Calibrated probabilities (N, 7) and the threshold of P(melanoma) at which this version refers."""

    probabilities: np.ndarray
    threshold: float

    @property
    def score(self) -> np.ndarray:
        """(N,): P(melanoma)."""
        return self.probabilities[:, MELANOMA]


def calibrated(labels: np.ndarray, raw: np.ndarray, sensitivity: float) -> Version:
    """Calibrated on these images themselves; UserError if they hold no melanoma, or nothing else."""
    fitted = calibration.fit(labels, raw, sensitivity)
    return Version(fitted.apply(raw), fitted.thresholds["sensitivity"])


def compare(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Largest and mean |Δp| of two (N, 7), and the share of images with the same diagnosis."""
    difference = np.abs(reference - other)
    return {
        "max_abs_dp": float(difference.max()),
        "mean_abs_dp": float(difference.mean()),
        "agreement": float((reference.argmax(axis=1) == other.argmax(axis=1)).mean()),
    }


def cost(labels: np.ndarray, reference: Version, other: Version, bins: int) -> dict[str, float]:
    """What ``other`` loses against ``reference`` on these images: as :func:`compare`, AUC, ECE, equal decisions."""
    positive = labels == MELANOMA
    auc = [metrics.roc_auc(positive, side.score) for side in (reference, other)]
    before, after = (np.nan if area is None else area for area in auc)
    ece = [metrics.calibration_error(side.score, positive, bins) for side in (reference, other)]
    called = [side.score >= side.threshold for side in (reference, other)]
    return compare(reference.probabilities, other.probabilities) | {
        "auc": after,
        "auc_drop": before - after,
        "ece": ece[1],
        "ece_rise": ece[1] - ece[0],
        "equal_decisions": float((called[0] == called[1]).mean()),
    }


def export_violations(
    row: Mapping[str, Any], max_dp: float, int8: Mapping[str, float], max_dp_unoptimised: float
) -> list[str]:
    """Which limits one export crosses, in words.

    Args:
        row: what the `export` stage measured of it; one with a ``cost`` is INT8.
        max_dp: largest |Δp| of a float format against PyTorch, at any batch size.
        int8: limits of the cost; names that do not occur in it (bytes) are not its business.
        max_dp_unoptimised: largest |Δp| between the optimised graph and the same graph run literally.
    """
    batches = {name: part for name, part in row.items() if name.startswith("batch_")}
    if "cost" not in row:
        return [
            f"{name} {one}" for name, part in batches.items() for one in violations(part, {"max_max_abs_dp": max_dp})
        ]
    known = {name: limit for name, limit in int8.items() if name.partition("_")[2] in row["cost"]}
    literal = row.get("optimisations_off", {"max_abs_dp": 0.0})
    off = violations(literal, {"max_max_abs_dp": max_dp_unoptimised})
    return violations(row["cost"], known) + [f"with optimisations off {one}" for one in off]


def violations(found: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Which limits the numbers break, in words: ``min_x`` is a floor of ``x``, ``max_x`` its ceiling.

    NaN breaks any limit; a number that was not measured is a KeyError.
    """
    wrong = []
    for name, limit in limits.items():
        kind, _, key = name.partition("_")
        value = found[key]
        holds = value >= limit if kind == "min" else value <= limit
        if not holds:
            wrong.append(f"{key} {value:.4g} ({'needed' if kind == 'min' else 'allowed'} {limit:g})")
    return wrong

"""How far one version of a model deviates from another on the same images, and which limits it violates.

Plain arrays of probabilities in, plain numbers out. The cost of INT8 is measured as deployed: each version has
its own calibration and its own threshold, both fitted on val.

Deliberately absent: intervals (``evaluation.comparison``) and the choice among candidates (``quantization``).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dermdistill.core.classes import MELANOMA
from dermdistill.metrics import calibration, metrics


class Version(NamedTuple):
    """One version of a model: calibrated probabilities (N, 7), and the threshold of P(melanoma) to refer a patient."""

    probabilities: np.ndarray
    threshold: float

    @property
    def y_score(self) -> np.ndarray:
        """(N,): P(melanoma)."""
        return self.probabilities[:, MELANOMA]


def calibrated(labels: np.ndarray, raw: np.ndarray, sensitivity: float) -> Version:
    """Fit calibration and threshold on these same images: ``labels`` (N,), ``raw`` (N, 7).

    Raises:
        UserError: if the images hold no melanoma, or nothing else.
    """
    fitted = calibration.fit(labels, raw, sensitivity)
    return Version(fitted.apply(raw), fitted.thresholds["sensitivity"])


def compare(reference: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Largest and mean |Δp| of two arrays (N, 7), and the proportion of images with the same diagnosis."""
    difference = np.abs(reference - other)
    return {
        "max_abs_dp": float(difference.max()),
        "mean_abs_dp": float(difference.mean()),
        "agreement": float((reference.argmax(axis=1) == other.argmax(axis=1)).mean()),
    }


def cost(labels: np.ndarray, reference: Version, other: Version, bins: int) -> dict[str, float]:
    """What ``other`` loses against ``reference`` on the images of ``labels`` (N,).

    Returns:
        The entries of :func:`compare`; melanoma AUC and ECE of ``other`` with their changes (NaN where undefined);
        ``equal_decisions``, the proportion of images that both refer or both do not.
    """
    y_true = labels == MELANOMA
    auc = [metrics.roc_auc(y_true, side.y_score) for side in (reference, other)]
    before, after = (np.nan if area is None else area for area in auc)
    ece = [metrics.calibration_error(side.y_score, y_true, bins) for side in (reference, other)]
    y_pred = [side.y_score >= side.threshold for side in (reference, other)]
    return compare(reference.probabilities, other.probabilities) | {
        "auc": after,
        "auc_drop": before - after,
        "ece": ece[1],
        "ece_rise": ece[1] - ece[0],
        "equal_decisions": float((y_pred[0] == y_pred[1]).mean()),
    }


def export_violations(
    row: Mapping[str, Any], max_dp: float, int8: Mapping[str, float], max_dp_unoptimised: float
) -> list[str]:
    """The limits that one exported format violates, as sentences.

    Args:
        row: what the stage `export` measured of the format; one with a ``cost`` is INT8.
        max_dp: largest |Δp| of a float format against PyTorch, at any batch size.
        int8: limits of the cost; those of values that the cost does not hold (bytes) are ignored.
        max_dp_unoptimised: largest |Δp| between the graph with and without the runtime's optimisations.
    """
    batches = {name: part for name, part in row.items() if name.startswith("batch_")}
    if "cost" not in row:
        return [
            f"{name} {violation}"
            for name, part in batches.items()
            for violation in violations(part, {"max_max_abs_dp": max_dp})
        ]
    limits = {name: limit for name, limit in int8.items() if name.partition("_")[2] in row["cost"]}
    unoptimised = row.get("optimisations_off", {"max_abs_dp": 0.0})
    off = violations(unoptimised, {"max_max_abs_dp": max_dp_unoptimised})
    return violations(row["cost"], limits) + [f"with optimisations off {violation}" for violation in off]


def violations(measured: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """The limits that ``measured`` violates, as sentences; ``min_x`` is a floor of ``x``, ``max_x`` its ceiling.

    NaN violates any limit.

    Raises:
        KeyError: if a limited value was not measured.
    """
    sentences = []
    for name, limit in limits.items():
        kind, _, key = name.partition("_")
        value = measured[key]
        satisfied = value >= limit if kind == "min" else value <= limit
        if not satisfied:
            sentences.append(f"{key} {value:.4g} ({'needed' if kind == 'min' else 'allowed'} {limit:g})")
    return sentences

"""Selective prediction: deferral of the least confident images, and conformal sets of diagnoses.

Two rules are fitted on val and evaluated on the holdout.

- **Deferral**: an image is answered if the largest of its seven probabilities reaches a threshold. The threshold
  is chosen so that a wanted proportion of val is answered. The risk–coverage curve gives the error among the answered
  images at every coverage. Its area (AURC: Geifman, Uziel, El-Yaniv, ICLR 2019) is 0 for a model without errors.
  ``excess_aurc`` subtracts the area of an oracle that defers its errors first. Images of equal confidence share
  their errors evenly, the expectation over random orders, so the order of rows does not matter.
- **Conformal sets** (split conformal with the nonconformity score 1 − p(label): Sadinle, Lei, Wasserman, JASA
  114:223, 2019): the set holds every diagnosis whose probability reaches 1 − q, with q the ⌈(n + 1)·coverage⌉-th
  smallest score of val. The marginal rule has one q; the class-conditional (Mondrian) rule has one per diagnosis.
  A diagnosis with too few val images has q = 1 and is in every set. A set may be empty.

The guarantee requires that val and holdout are exchangeable. Lesions are, because the split is random by lesion.
Images of one lesion are not independent, and temperature and biases are fitted on the same val. Coverage is therefore
measured, not assumed. Deliberately absent: rules fitted on the evaluated images, and randomised sets.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import read_json
from dermdistill.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

DECIMALS = 6
MARGIN = 1e-9  # 0.9 · 10 must not become 10 by rounding error


@dataclass(frozen=True, eq=False)
class Rules:
    """Rules fitted on val; stored in ``metrics/calibrate/<id>.json`` and in the metadata of the deployed model."""

    coverage: float  # target of the sets
    marginal: float  # q
    by_class: np.ndarray  # (7,) q of each diagnosis, in the order of CLASSES
    keep: Mapping[str, float]  # target proportion of answered images → least confidence

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file; :func:`from_dict` is the inverse."""
        by_class = dict(zip(CLASSES, self.by_class.tolist(), strict=True))
        quantiles = {"coverage": self.coverage, "marginal": self.marginal, "class_conditional": by_class}
        return {"conformal": quantiles, "keep": dict(self.keep)}

    def to_text(self) -> str:
        """JSON text for the metadata of a model file; :func:`from_text` is the inverse."""
        return json.dumps(self.to_dict(), sort_keys=True)


def from_dict(content: Mapping[str, Any], source: str) -> Rules:
    """The inverse of :meth:`Rules.to_dict`; UserError, naming ``source``, if ``content`` is something else."""
    try:
        quantiles = content["conformal"]
        by_class = np.array([float(quantiles["class_conditional"][name]) for name in CLASSES])
        keep = {str(target): float(value) for target, value in content["keep"].items()}
        return Rules(float(quantiles["coverage"]), float(quantiles["marginal"]), by_class, keep)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{source} holds no rules for deferral and conformal sets; run `dvc repro`") from None


def from_text(text: str, source: str) -> Rules:
    """The inverse of :meth:`Rules.to_text`; errors as in :func:`from_dict`."""
    try:
        return from_dict(json.loads(text), source)
    except json.JSONDecodeError:
        raise UserError(f"{source} holds unreadable rules for deferral; restore it with `git checkout`") from None


def read(path: str | Path) -> Rules:
    """Read ``metrics/calibrate/<id>.json``; UserError if it is missing or holds no rules."""
    return from_dict(read_json(path), str(path))


def fit(labels: np.ndarray, calibrated: np.ndarray, coverage: float, keep: Sequence[float]) -> Rules:
    """Fit quantiles and least confidences on val.

    Args:
        labels: (N,) int.
        calibrated: (N, 7) probabilities.
        coverage: target of the conformal sets, 0 to 1.
        keep: target proportions of answered images.
    """
    scores = 1 - calibrated[np.arange(len(labels)), labels]
    by_class = [quantile(scores[labels == k], coverage) for k in range(len(CLASSES))]
    confidence = np.sort(calibrated.max(axis=1))[::-1]
    counts = {f"{target:g}": max(int(np.ceil(target * len(labels) - MARGIN)), 1) for target in keep}
    least = {target: _down(confidence[count - 1]) for target, count in counts.items()}
    return Rules(coverage, quantile(scores, coverage), np.array(by_class), least)


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1)·coverage⌉-th smallest of ``scores`` (n,), rounded up to six decimals; 1 if n is too small."""
    rank = int(np.ceil((len(scores) + 1) * coverage - MARGIN))
    if rank > len(scores):
        return 1.0
    return min(round(np.ceil(np.sort(scores)[rank - 1] * 1e6 + 0.5) / 1e6, DECIMALS), 1.0)


def sets(calibrated: np.ndarray, quantiles: float | np.ndarray) -> np.ndarray:
    """(N, 7) bool: whether each diagnosis is in the set; ``calibrated`` (N, 7), ``quantiles`` one q or (7,)."""
    return np.asarray(1 - calibrated <= quantiles)


def measure(labels: np.ndarray, calibrated: np.ndarray, threshold: float, rules: Rules) -> dict[str, Any]:
    """The section "selective" of a metrics file.

    Args:
        labels: (N,) int.
        calibrated: (N, 7) probabilities.
        threshold: of P(mel) at the deployed operating point.
        rules: fitted on val.
    """
    wrong = calibrated.argmax(axis=1) != labels
    confidence = calibrated.max(axis=1)
    curve = risk(confidence, wrong)
    oracle = risk(-wrong.astype(float), wrong)
    y_pred = calibrated[:, MELANOMA] >= threshold
    return {
        "aurc": float(curve.mean()),
        "excess_aurc": float(curve.mean() - oracle.mean()),
        "keep": {
            target: {"least_confidence": least} | answered(labels, y_pred, wrong, confidence >= least)
            for target, least in rules.keep.items()
        },
        "conformal": {"coverage_aimed_at": rules.coverage}
        | {
            kind: sets_summary(labels, calibrated, sets(calibrated, q))
            for kind, q in (("marginal", rules.marginal), ("class_conditional", rules.by_class))
        },
    }


def risk(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(N,) float: at i, the error rate among the i + 1 most confident images.

    Args:
        confidence: (N,); images of equal confidence share their errors evenly.
        wrong: (N,) bool.
    """
    values, index, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(index, weights=wrong, minlength=len(values))
    per_image = np.repeat(errors / sizes, sizes)
    return np.asarray(per_image.cumsum() / np.arange(1, len(wrong) + 1))


def risk_coverage(labels: np.ndarray, calibrated: np.ndarray) -> "pd.DataFrame":
    """The risk–coverage curve at every half per cent of coverage: columns ``coverage, risk``."""
    import pandas as pd  # not at the top: whoever installs only `predict` has none, and reads its rules here

    curve = risk(calibrated.max(axis=1), calibrated.argmax(axis=1) != labels)
    count = np.unique(np.ceil(np.arange(1, 201) / 200 * len(labels) - MARGIN).astype(int))
    return pd.DataFrame({"coverage": count / len(labels), "risk": curve[count - 1]})


def answered(labels: np.ndarray, y_pred: np.ndarray, wrong: np.ndarray, kept: np.ndarray) -> dict[str, float | None]:
    """What is deferred, and the metrics of the images ``kept``; all (N,), the last three bool."""
    from dermdistill.metrics.metrics import operating_point  # brings scikit-learn

    y_true = labels == MELANOMA
    point = operating_point(y_true[kept], y_pred[kept])
    return {
        "answered": float(kept.mean()),
        "melanomas_deferred": _mean(~kept, y_true),
        "accuracy": _mean(~wrong, kept),
        "sensitivity": point["sensitivity"],
        "specificity": point["specificity"],
    }


def sets_summary(labels: np.ndarray, calibrated: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    """Coverage, by diagnosis too, and size of the sets; and the metrics if only sets of one diagnosis are answered.

    Args: ``labels`` (N,), ``calibrated`` (N, 7), ``inside`` (N, 7) bool from :func:`sets`.
    """
    covered, size, y_true = inside[np.arange(len(labels)), labels], inside.sum(axis=1), labels == MELANOMA
    single = size == 1
    ruled_out = ~inside[:, MELANOMA]
    return {
        "coverage": float(covered.mean()),
        "coverage_by_class": {name: _mean(covered, labels == k) for k, name in enumerate(CLASSES)},
        "mean_size": float(size.mean()),
        "sizes": [float((size == n).mean()) for n in range(len(CLASSES) + 1)],
        "answered": float(single.mean()),  # sets of one diagnosis; the others are deferred
        "melanomas_deferred": _mean(~single, y_true),
        "accuracy": _mean(covered, single),
        "sensitivity": _mean(covered, single & y_true),
        "melanoma_ruled_out": float(ruled_out.mean()),
        "melanomas_ruled_out": _mean(ruled_out, y_true),
    }


def _mean(event: np.ndarray, among: np.ndarray) -> float | None:
    """Proportion of ``among`` (N,) bool for which ``event`` (N,) bool is true; None of no image."""
    return float(event[among].mean()) if among.any() else None


def _down(confidence: float) -> float:
    """Round down to six decimals with a margin for float32 noise, so that the image is answered elsewhere too."""
    return max(round(float(np.floor(confidence * 1e6 - 0.5) / 1e6), DECIMALS), 0.0)

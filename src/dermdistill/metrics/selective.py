"""Knowing when not to answer: deferring the least sure images, and sets of diagnoses that hold the truth.

Two rules are fitted on val and judged on the holdout.

- **Deferral**: an image is answered if the largest of its seven probabilities reaches a threshold that keeps a
  wanted share of val. The risk–coverage curve shows the error among the answered at every share; its area
  (AURC: Geifman, Uziel, El-Yaniv, ICLR 2019) is 0 for a model that is never wrong, and ``excess_aurc`` is what an
  oracle that defers its errors first would save. Images of equal confidence are answered together in part, as if
  in random order, so the order of rows does not matter.
- **Conformal sets** (split conformal with the score 1 − p(truth): Sadinle, Lei, Wasserman, JASA 114:223, 2019):
  every diagnosis whose probability reaches 1 − q, with q the ⌈(n + 1)·coverage⌉-th smallest score of val. The
  marginal rule has one q, the class-conditional one (Mondrian) a q per diagnosis; with too few val images of a
  diagnosis its q is 1, so that it stands in every set. A set may be empty: nothing looks like anything known.

The guarantee asks that val and holdout are exchangeable. Lesions are (the split is random by lesion), images of one
lesion are not independent, and temperature and biases come from the same val: coverage is therefore measured.
Absent on purpose: a rule fitted on what it is judged on, and randomised sets, which no reader could repeat.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import read_json
from dermdistill.errors import UserError
from dermdistill.metrics.metrics import operating_point

DECIMALS = 6
MARGIN = 1e-9  # 0.9 · 10 must not become 10 by rounding error


@dataclass(frozen=True, eq=False)
class Rules:
    """Fitted on val; stands in ``metrics/calibrate/<id>.json`` and inside the shipped file."""

    coverage: float  # aimed at by the sets
    marginal: float  # q
    by_class: np.ndarray  # (7,) q of each diagnosis
    keep: Mapping[str, float]  # wanted share of answered images → least confidence

    def to_dict(self) -> dict[str, Any]:
        by_class = dict(zip(CLASSES, self.by_class.tolist(), strict=True))
        quantiles = {"coverage": self.coverage, "marginal": self.marginal, "class_conditional": by_class}
        return {"conformal": quantiles, "keep": dict(self.keep)}

    def to_text(self) -> str:
        """For the metadata of a model file."""
        return json.dumps(self.to_dict(), sort_keys=True)


def from_dict(content: Mapping[str, Any], source: str) -> Rules:
    """The opposite of :meth:`Rules.to_dict`; UserError if ``content`` is something else."""
    try:
        quantiles = content["conformal"]
        by_class = np.array([float(quantiles["class_conditional"][name]) for name in CLASSES])
        keep = {str(share): float(value) for share, value in content["keep"].items()}
        return Rules(float(quantiles["coverage"]), float(quantiles["marginal"]), by_class, keep)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{source} holds no rules for deferral and conformal sets; run `dvc repro`") from None


def from_text(text: str, source: str) -> Rules:
    """The opposite of :meth:`Rules.to_text`."""
    try:
        return from_dict(json.loads(text), source)
    except json.JSONDecodeError:
        raise UserError(f"{source} holds unreadable rules for deferral; restore it with `git checkout`") from None


def read(path: str | Path) -> Rules:
    return from_dict(read_json(path), str(path))


def fit(labels: np.ndarray, calibrated: np.ndarray, coverage: float, keep: Sequence[float]) -> Rules:
    """Quantiles and least confidences from val: ``labels`` (N,), ``calibrated`` (N, 7)."""
    score = 1 - calibrated[np.arange(len(labels)), labels]
    by_class = [quantile(score[labels == k], coverage) for k in range(len(CLASSES))]
    confidence = np.sort(calibrated.max(axis=1))[::-1]
    answered = {f"{share:g}": max(int(np.ceil(share * len(labels) - MARGIN)), 1) for share in keep}
    least = {share: _down(confidence[count - 1]) for share, count in answered.items()}
    return Rules(coverage, quantile(score, coverage), np.array(by_class), least)


def quantile(score: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1)·coverage⌉-th smallest score, rounded up; 1 if there are too few."""
    rank = int(np.ceil((len(score) + 1) * coverage - MARGIN))
    return 1.0 if rank > len(score) else min(round(np.ceil(np.sort(score)[rank - 1] * 1e6 + 0.5) / 1e6, DECIMALS), 1.0)


def sets(calibrated: np.ndarray, quantiles: float | np.ndarray) -> np.ndarray:
    """(N, 7) bool: whether each diagnosis is in the set; ``quantiles`` is one q or (7,)."""
    return np.asarray(1 - calibrated <= quantiles)


def measure(labels: np.ndarray, calibrated: np.ndarray, threshold: float, rules: Rules) -> dict[str, Any]:
    """Section "selective" of a metrics file; ``threshold`` is that of the operating point that ships."""
    wrong = calibrated.argmax(axis=1) != labels
    confidence = calibrated.max(axis=1)
    curve = risk(confidence, wrong)
    best = risk(-wrong.astype(float), wrong)
    called = calibrated[:, MELANOMA] >= threshold
    return {
        "aurc": float(curve.mean()),
        "excess_aurc": float(curve.mean() - best.mean()),
        "keep": {
            share: {"least_confidence": least} | answered(labels, called, wrong, confidence >= least)
            for share, least in rules.keep.items()
        },
        "conformal": {"coverage_aimed_at": rules.coverage}
        | {
            kind: sets_summary(labels, calibrated, sets(calibrated, q))
            for kind, q in (("marginal", rules.marginal), ("class_conditional", rules.by_class))
        },
    }


def risk(confidence: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """(N,) the share of errors among the i + 1 surest images, expected over the order of equals."""
    values, index, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(index, weights=wrong, minlength=len(values))
    per_image = np.repeat(errors / sizes, sizes)  # equals share their errors evenly
    return np.asarray(per_image.cumsum() / np.arange(1, len(wrong) + 1))


def risk_coverage(labels: np.ndarray, calibrated: np.ndarray) -> pd.DataFrame:
    """The curve at every half per cent of answered images: ``coverage, risk``."""
    curve = risk(calibrated.max(axis=1), calibrated.argmax(axis=1) != labels)
    count = np.unique(np.ceil(np.arange(1, 201) / 200 * len(labels) - MARGIN).astype(int))
    return pd.DataFrame({"coverage": count / len(labels), "risk": curve[count - 1]})


def answered(labels: np.ndarray, called: np.ndarray, wrong: np.ndarray, kept: np.ndarray) -> dict[str, float | None]:
    """What is deferred, and how the model does on the rest; all (N,), the last three bool."""
    positive = labels == MELANOMA
    point = operating_point(positive[kept], called[kept])
    return {
        "answered": float(kept.mean()),
        "melanomas_deferred": float((~kept)[positive].mean()) if positive.any() else None,
        "accuracy": float((~wrong)[kept].mean()) if kept.any() else None,
        "sensitivity": point["sensitivity"],
        "specificity": point["specificity"],
    }


def sets_summary(labels: np.ndarray, calibrated: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    """Coverage in all and by diagnosis, size, and what is left if only sets of one diagnosis are answered."""
    hit, size, positive = inside[np.arange(len(labels)), labels], inside.sum(axis=1), labels == MELANOMA
    single = size == 1
    by_class = {name: float(hit[labels == k].mean()) if (labels == k).any() else None for k, name in enumerate(CLASSES)}
    ruled_out = ~inside[:, MELANOMA]
    return {
        "coverage": float(hit.mean()),
        "coverage_by_class": by_class,
        "mean_size": float(size.mean()),
        "sizes": [float((size == n).mean()) for n in range(len(CLASSES) + 1)],
        "answered": float(single.mean()),  # sets of one diagnosis; the others are deferred
        "melanomas_deferred": float((~single)[positive].mean()) if positive.any() else None,
        "accuracy": float(hit[single].mean()) if single.any() else None,
        "sensitivity": float(hit[single & positive].mean()) if (single & positive).any() else None,
        "melanoma_ruled_out": float(ruled_out.mean()),
        "melanomas_ruled_out": float(ruled_out[positive].mean()) if positive.any() else None,
    }


def _down(confidence: float) -> float:
    """Six decimals with a margin for float32 noise, so that the image it was read from is answered elsewhere too."""
    return max(round(float(np.floor(confidence * 1e6 - 0.5) / 1e6), DECIMALS), 0.0)

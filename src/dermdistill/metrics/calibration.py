"""Calibration of a model's probabilities, and its decision thresholds; all fitted on val.

Calibrated ``p = softmax(log(p_raw) / T + b)``. The temperature T corrects over- and underconfidence
(Guo et al., ICML 2017). It cannot correct the prior: training with class weights w_k pushes the model
towards p(k|x)·w_k, a constant offset log w_k of each logit. Hence one bias b_k per class
(bias-corrected temperature scaling: Alexandari, Kundaje, Shrikumar, ICML 2020). The negative log-likelihood
is convex in (1/T, b), so the optimum does not depend on where the search starts.

Only differences of biases matter. A Gaussian prior of standard deviation 1 (an L2 term of weight 1/N beside
the mean NLL) picks the mean-zero ones. It also keeps the bias of a class that is absent from val finite.

Deliberately absent: richer calibration maps. ``evaluation.calibrators`` measures what they would give.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import read_json
from dermdistill.errors import UserError

SMALLEST = float(np.finfo(np.float32).tiny)
SHARPEST, FLATTEST = 0.05, 20.0  # bounds of T: perfectly separable val data would drive it to 0
DECIMALS = 6
POINTS = ("sensitivity", "youden", "f1")  # the operating points that are chosen on val


@dataclass(frozen=True, eq=False)
class Calibration:
    """The fitted map and thresholds of one model: ``metrics/calibrate/<id>.json``."""

    temperature: float
    bias: np.ndarray  # (7,) in the order of CLASSES
    thresholds: Mapping[str, float]  # on calibrated P(mel); the decision is p >= threshold
    val_nll: Mapping[str, float]

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, 7) raw probabilities → (N, 7) calibrated ones."""
        return np.asarray(softmax(log(probabilities) / self.temperature + self.bias, axis=1))

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON file; :func:`read` is the inverse."""
        return {
            "temperature": self.temperature,
            "bias": dict(zip(CLASSES, self.bias.tolist(), strict=True)),
            "thresholds": dict(self.thresholds),
            "val_nll": dict(self.val_nll),
        }


def read(path: str | Path) -> Calibration:
    """Read a file of :meth:`Calibration.to_dict`; UserError if it is missing or lacks a value."""
    content = read_json(path)
    try:
        bias = np.array([float(content["bias"][name]) for name in CLASSES])
        thresholds = {name: float(content["thresholds"][name]) for name in POINTS}
        return Calibration(float(content["temperature"]), bias, thresholds, content["val_nll"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not a calibration file; run `dvc repro` to make it again") from None


def fit(labels: np.ndarray, probabilities: np.ndarray, sensitivity: float) -> Calibration:
    """Fit temperature, biases and thresholds on val.

    Temperature and biases are rounded before the thresholds are chosen, so the numbers in the file
    reproduce the decisions exactly.

    Args:
        labels: (N,) int, index into CLASSES.
        probabilities: (N, 7) raw.
        sensitivity: that the threshold "sensitivity" has to reach, 0 to 1.

    Raises:
        UserError: if val has no melanoma, or nothing else.
    """
    y_true = labels == MELANOMA
    if y_true.all() or not y_true.any():
        missing = "image without melanoma" if y_true.any() else "melanoma"
        raise UserError(f"val holds no {missing}, so no threshold can be chosen; enlarge split.val or data")
    temperature, bias = fit_scaling(labels, probabilities)
    scaled = Calibration(temperature, bias, {}, {})
    y_score = scaled.apply(probabilities)[:, MELANOMA]
    thresholds = {
        "sensitivity": sensitivity_threshold(y_true, y_score, sensitivity),
        "youden": youden_threshold(y_true, y_score),
        "f1": f1_threshold(y_true, y_score),
    }
    nll = {"raw": _nll(labels, probabilities), "calibrated": _nll(labels, scaled.apply(probabilities))}
    return Calibration(temperature, bias, thresholds, nll)


def fit_scaling(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Temperature and biases (7,) of least mean NLL: ``labels`` (N,), raw ``probabilities`` (N, 7)."""
    logits, truth = log(probabilities), np.eye(len(CLASSES))[labels]
    count = len(labels)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean NLL + |b|² / 2N and its gradient (8,) at x = (1/T, b)."""
        log_p = log_softmax(x[0] * logits + x[1:], axis=1)
        error = (np.exp(log_p) - truth) / count
        value = -(truth * log_p).sum() / count + (x[1:] ** 2).sum() / (2 * count)
        return value, np.append((error * logits).sum(), error.sum(axis=0) + x[1:] / count)

    start = np.append(1.0, np.zeros(len(CLASSES)))
    bounds = [(1 / FLATTEST, 1 / SHARPEST)] + [(None, None)] * len(CLASSES)
    options = {"maxiter": 1000, "ftol": 1e-13, "gtol": 1e-9}
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    bias = np.round(best[1:], DECIMALS) + 0.0  # which turns -0.0 into 0.0
    return round(float(1 / best[0]), DECIMALS), bias


def sensitivity_threshold(y_true: np.ndarray, y_score: np.ndarray, sensitivity: float) -> float:
    """The largest six-decimal threshold at which ``y_score >= threshold`` reaches ``sensitivity``.

    Args:
        y_true, y_score: (N,) bool and calibrated P(mel); as in the two functions below.
    """
    candidates = np.sort(_floor(y_score[y_true]))[::-1]
    needed = int(np.ceil(sensitivity * len(candidates) - 1e-9))  # 0.95 · 20 must not become 20 by rounding error
    return float(candidates[max(needed, 1) - 1])


def youden_threshold(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """The threshold of largest sensitivity + specificity (Youden's J); of several, the largest."""
    candidates, tp, fp = _counts(y_true, y_score)
    return float(candidates[np.argmax(np.round(tp / y_true.sum() - fp / (~y_true).sum(), 12))])


def f1_threshold(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """The threshold of largest F1; of several, the largest."""
    candidates, tp, fp = _counts(y_true, y_score)
    return float(candidates[np.argmax(np.round(2 * tp / (y_true.sum() + tp + fp), 12))])


def _counts(y_true: np.ndarray, y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every possible threshold in descending order, and the true and false positives at each."""
    candidates, index = np.unique(_floor(y_score), return_inverse=True)
    tp = np.bincount(index, weights=y_true, minlength=len(candidates))[::-1].cumsum()
    fp = np.bincount(index, weights=~y_true, minlength=len(candidates))[::-1].cumsum()
    return candidates[::-1], tp, fp


def _floor(y_score: np.ndarray) -> np.ndarray:
    """Round down to six decimals with a margin of at least 5e-7.

    The margin exceeds float32 noise, so the image that a threshold was read from stays on the same side of it
    in the deployed model and in any other runtime.
    """
    return np.maximum(np.round(np.floor(y_score * 1e6 - 0.5) / 1e6, DECIMALS), 0.0)


def log(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm of probabilities of any shape, finite where a float32 softmax underflowed to 0."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST)))


def _nll(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return round(float(-log(probabilities)[np.arange(len(labels)), labels].mean()), DECIMALS)

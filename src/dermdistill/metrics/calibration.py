"""From a model's raw probabilities to ones that mean what they say, and to thresholds; all fitted on val.

Calibrated ``p = softmax(log(p_raw) / T + b)``. The temperature T repairs over- or underconfidence
(Guo et al., ICML 2017). It cannot repair the prior: training with class weights w_k pushes the model
towards p(k|x)·w_k, which is a constant offset log w_k of each logit. Hence one bias b_k per class
(bias-corrected temperature scaling: Alexandari, Kundaje, Shrikumar, ICML 2020). In (1/T, b) the negative
log-likelihood is convex, so the optimum does not depend on where the search starts.

Only differences of biases matter. A Gaussian prior of standard deviation 1 (an L2 term of weight 1/N beside
the mean NLL) picks the mean-zero ones and keeps the bias of a class that is absent from val finite.

Absent on purpose: richer families of maps. calibrators.py measures what they would give.
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
    """What ``metrics/calibrate/<id>.json`` holds."""

    temperature: float
    bias: np.ndarray  # (7,) in the order of CLASSES
    thresholds: Mapping[str, float]  # on calibrated P(mel); the decision is p >= threshold
    val_nll: Mapping[str, float]

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, 7) raw probabilities → (N, 7) calibrated ones."""
        return np.asarray(softmax(log(probabilities) / self.temperature + self.bias, axis=1))

    def to_dict(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "bias": dict(zip(CLASSES, self.bias.tolist(), strict=True)),
            "thresholds": dict(self.thresholds),
            "val_nll": dict(self.val_nll),
        }


def read(path: str | Path) -> Calibration:
    """Read what :meth:`Calibration.to_dict` gave; UserError if the file is missing or lacks a value."""
    content = read_json(path)
    try:
        bias = np.array([float(content["bias"][name]) for name in CLASSES])
        thresholds = {name: float(content["thresholds"][name]) for name in POINTS}
        return Calibration(float(content["temperature"]), bias, thresholds, content["val_nll"])
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} is not a calibration file; run `dvc repro` to make it again") from None


def fit(labels: np.ndarray, probabilities: np.ndarray, sensitivity: float) -> Calibration:
    """Temperature, biases and thresholds from val: ``labels`` (N,), raw ``probabilities`` (N, 7).

    Temperature and biases are rounded before the thresholds are read off, so that the numbers in the
    file reproduce the decisions exactly.

    Raises:
        UserError: if val has no melanoma, or nothing else.
    """
    positive = labels == MELANOMA
    if positive.all() or not positive.any():
        lacking = "image without melanoma" if positive.any() else "melanoma"
        raise UserError(f"val holds no {lacking}, so no threshold can be chosen; enlarge split.val or data")
    temperature, bias = fit_scaling(labels, probabilities)
    scaled = Calibration(temperature, bias, {}, {})
    score = scaled.apply(probabilities)[:, MELANOMA]
    thresholds = {
        "sensitivity": sensitivity_threshold(positive, score, sensitivity),
        "youden": youden_threshold(positive, score),
        "f1": f1_threshold(positive, score),
    }
    nll = {"raw": _nll(labels, probabilities), "calibrated": _nll(labels, scaled.apply(probabilities))}
    return Calibration(temperature, bias, thresholds, nll)


def fit_scaling(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Temperature and the bias of each class (7,) that fit best."""
    logits, truth = log(probabilities), np.eye(len(CLASSES))[labels]
    count = len(labels)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean NLL + |b|² / 2N and its gradient at x = (1/T, b)."""
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


def sensitivity_threshold(positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """The largest six-decimal threshold at which ``score >= threshold`` finds that share of positives."""
    found = np.sort(_floor(score[positive]))[::-1]
    needed = int(np.ceil(sensitivity * len(found) - 1e-9))  # 0.95 · 20 must not become 20 by rounding error
    return float(found[max(needed, 1) - 1])


def youden_threshold(positive: np.ndarray, score: np.ndarray) -> float:
    """The threshold of largest sensitivity + specificity; of several, the largest (fewest alarms)."""
    candidates, hits, alarms = _counts(positive, score)
    return float(candidates[np.argmax(np.round(hits / positive.sum() - alarms / (~positive).sum(), 12))])


def f1_threshold(positive: np.ndarray, score: np.ndarray) -> float:
    """The threshold of largest F1; of several, the largest."""
    candidates, hits, alarms = _counts(positive, score)
    return float(candidates[np.argmax(np.round(2 * hits / (positive.sum() + hits + alarms), 12))])


def _counts(positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every possible threshold, the largest first, and how many positives and others reach it."""
    candidates, index = np.unique(_floor(score), return_inverse=True)
    hits = np.bincount(index, weights=positive, minlength=len(candidates))[::-1].cumsum()
    alarms = np.bincount(index, weights=~positive, minlength=len(candidates))[::-1].cumsum()
    return candidates[::-1], hits, alarms


def _floor(score: np.ndarray) -> np.ndarray:
    """Down to a six-decimal number: ``score >= floor(score)`` holds with a margin of 5e-7, more than float32
    noise, so the image a threshold was read from stays on its side in the shipped file and elsewhere."""
    return np.maximum(np.round(np.floor(score * 1e6 - 0.5) / 1e6, DECIMALS), 0.0)


def log(probabilities: np.ndarray) -> np.ndarray:
    """Natural logarithm, finite where a float32 softmax underflowed to 0."""
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST)))


def _nll(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return round(float(-log(probabilities)[np.arange(len(labels)), labels].mean()), DECIMALS)

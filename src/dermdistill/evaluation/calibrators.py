"""What other calibration maps would have given: chosen by cross-validation on val, then looked at on the holdout.

Six maps of log-probabilities z = log p, from stiff to flexible:

- raw: none;
- temperature: z / T (Guo et al., ICML 2017);
- temperature_bias: z / T + b, what ships (Alexandari et al., ICML 2020);
- vector: w ∘ z + b, one slope and one bias per diagnosis (Guo et al.);
- dirichlet: W z + b with the off-diagonal of W and b penalised (ODIR: Kull et al., NeurIPS 2019);
- isotonic: one monotone step function per diagnosis against the rest, then normalised (Zadrozny & Elkan, KDD 2002).

Each is fitted on the other folds and judged on the one left out, folds by lesion; the least mean NLL is "chosen". Then
each is fitted on all of val and judged once on the holdout. The shipped map is not replaced by the winner: it is the
richest that stays a scale and a bias inside the graph. This module says what that costs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.model_selection import GroupKFold

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics import metrics
from dermdistill.metrics.calibration import fit_scaling, log
from dermdistill.metrics.predictions import Predictions

Map = Callable[[np.ndarray], np.ndarray]
SHIPPED = "temperature_bias"
FLOOR = 1e-4  # isotonic steps may be 0, and one surprise would make the NLL infinite
K = len(CLASSES)


def compare(val: Predictions, holdout: Predictions, folds: int, penalty: float, bins: int, seed: int) -> dict[str, Any]:
    """{"chosen", "methods": {name: {"val": …, "holdout": …}}}; val figures are cross-validated.

    Args:
        folds: of val, by lesion.
        penalty: of dirichlet's off-diagonal and bias, beside the mean NLL.
    """
    methods = {}
    for name, fit in _methods(penalty).items():
        unseen = cross_validated(fit, val, folds, seed)
        final = fit(val.labels, val.probabilities)(holdout.probabilities)
        methods[name] = {
            "val": _figures(val.labels, unseen, bins),
            "holdout": _figures(holdout.labels, final, bins),
        }
    chosen = min(methods, key=lambda name: methods[name]["val"]["nll"])
    return {"chosen": chosen, "shipped": SHIPPED, "methods": methods}


def cross_validated(
    fit: Callable[[np.ndarray, np.ndarray], Map], known: Predictions, folds: int, seed: int
) -> np.ndarray:
    """(N, 7) probabilities of each image by the map fitted without its lesion's fold."""
    lesions = len(np.unique(known.lesion_id))
    split = GroupKFold(n_splits=min(folds, lesions), shuffle=True, random_state=seed)
    found = np.empty_like(known.probabilities)
    for rest, part in split.split(known.probabilities, groups=known.lesion_id):
        found[part] = fit(known.labels[rest], known.probabilities[rest])(known.probabilities[part])
    return found


def _methods(penalty: float) -> dict[str, Callable[[np.ndarray, np.ndarray], Map]]:
    return {
        "raw": lambda labels, p: lambda q: q,
        "temperature": temperature,
        SHIPPED: temperature_bias,
        "vector": vector,
        "dirichlet": lambda labels, p: dirichlet(labels, p, penalty),
        "isotonic": isotonic,
    }


def temperature(labels: np.ndarray, p: np.ndarray) -> Map:
    slope = _fit(labels, p, lambda x: np.eye(K) * x[0], lambda w: np.atleast_1d(np.trace(w)), np.ones(1), 0.0)
    return _affine(np.eye(K) * slope[0], np.zeros(K))


def temperature_bias(labels: np.ndarray, p: np.ndarray) -> Map:
    t, bias = fit_scaling(labels, p)
    return _affine(np.eye(K) / t, bias)


def vector(labels: np.ndarray, p: np.ndarray) -> Map:
    """The bias has the Gaussian prior of standard deviation 1 of calibration.py; so has each slope, about 1."""
    x = _fit(labels, p, lambda x: np.diag(x[:K]), np.diag, np.append(np.ones(K), np.zeros(K)), 1 / (2 * len(labels)))
    return _affine(np.diag(x[:K]), x[K:])


def dirichlet(labels: np.ndarray, p: np.ndarray, penalty: float) -> Map:
    start = np.append(np.eye(K).ravel(), np.zeros(K))
    x = _fit(labels, p, lambda x: x[: K * K].reshape(K, K), np.ravel, start, penalty)
    return _affine(x[: K * K].reshape(K, K), x[K * K :])


def isotonic(labels: np.ndarray, p: np.ndarray) -> Map:
    steps = [IsotonicRegression(out_of_bounds="clip").fit(p[:, k], labels == k) for k in range(K)]

    def apply(q: np.ndarray) -> np.ndarray:
        found = np.stack([np.maximum(step.predict(q[:, k]), FLOOR) for k, step in enumerate(steps)], axis=1)
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return apply


def _fit(
    labels: np.ndarray,
    p: np.ndarray,
    matrix: Callable[[np.ndarray], np.ndarray],
    gather: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Parameters x of least mean NLL + penalty · |x − start|², W = ``matrix(x)``; what is left of x is the bias.

    ``gather`` turns the gradient by W into that by the slopes in x. Slopes on the diagonal of dirichlet's W are
    penalised too, about 1: with some 20 images of a diagnosis nothing else keeps them finite.
    """
    logits, truth, biased = log(p), np.eye(K)[labels], len(start) > 1

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        bias = x[-K:] if biased else np.zeros(K)
        log_p = log_softmax(logits @ matrix(x).T + bias, axis=1)
        error = (np.exp(log_p) - truth) / len(labels)
        slopes = gather(error.T @ logits)
        gradient = np.append(slopes, error.sum(axis=0)) if biased else slopes
        value = -(truth * log_p).sum() / len(labels) + penalty * ((x - start) ** 2).sum()
        return value, gradient + 2 * penalty * (x - start)

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-8})
    return np.asarray(found.x)


def _affine(slopes: np.ndarray, bias: np.ndarray) -> Map:
    return lambda p: np.asarray(softmax(log(p) @ slopes.T + bias, axis=1))


def _figures(labels: np.ndarray, p: np.ndarray, bins: int) -> dict[str, Any]:
    positive, score = labels == MELANOMA, p[:, MELANOMA]
    return {
        "nll": metrics.nll(labels, p),
        "brier": metrics.brier(labels, p),
        "melanoma_brier": float(np.mean((score - positive) ** 2)),
        "melanoma_ece": metrics.calibration_error(score, positive, bins),
        "melanoma_ece_mass": metrics.calibration_error(score, positive, bins, equal_mass=True),
        "melanoma_roc_auc": metrics.roc_auc(positive, score),
    }

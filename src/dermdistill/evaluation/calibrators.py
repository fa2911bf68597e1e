"""Alternative calibration maps: compared by cross-validation on val, then evaluated on the holdout.

Six maps of log-probabilities z = log p, from stiff to flexible:

- raw: none;
- temperature: z / T (Guo et al., ICML 2017);
- temperature_bias: z / T + b, the deployed map (Alexandari et al., ICML 2020);
- vector: w ∘ z + b, one slope and one bias per diagnosis (Guo et al.);
- dirichlet: W z + b with the off-diagonal of W and b penalised (ODIR: Kull et al., NeurIPS 2019);
- isotonic: one monotone step function per diagnosis against the rest, then normalised (Zadrozny & Elkan, KDD 2002).

Cross-validation has folds by lesion. "chosen" is the map of least mean NLL on val. Each map is then fitted on all of
val and evaluated once on the holdout. The chosen map does not replace the deployed one, which is the richest that
remains a scale and a bias inside the ONNX graph. This module measures what that restriction costs.

Deliberately absent: any effect on the pipeline. Nothing reads the choice but the report.
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
"""Raw probabilities (N, 7) → calibrated ones (N, 7)."""

DEPLOYED = "temperature_bias"
FLOOR = 1e-4  # isotonic steps may be 0, and one such image would make the NLL infinite
K = len(CLASSES)


def compare(val: Predictions, holdout: Predictions, folds: int, penalty: float, bins: int, seed: int) -> dict[str, Any]:
    """``{chosen, shipped, methods: {name: {val, holdout}}}``; the metrics on val are cross-validated.

    Args:
        val, holdout: raw probabilities.
        folds: number of folds of val, by lesion.
        penalty: L2 weight of dirichlet's deviation from the identity map, beside the mean NLL.
        bins: number of bins of the calibration errors.
    """
    methods = {}
    for name, fit in _methods(penalty).items():
        out_of_fold = cross_validated(fit, val, folds, seed)
        refitted = fit(val.labels, val.probabilities)(holdout.probabilities)
        methods[name] = {
            "val": _metrics(val.labels, out_of_fold, bins),
            "holdout": _metrics(holdout.labels, refitted, bins),
        }
    chosen = min(methods, key=lambda name: methods[name]["val"]["nll"])
    return {"chosen": chosen, "shipped": DEPLOYED, "methods": methods}


def cross_validated(
    fit: Callable[[np.ndarray, np.ndarray], Map], val: Predictions, folds: int, seed: int
) -> np.ndarray:
    """(N, 7) out-of-fold probabilities: each image by the map fitted without its lesion's fold."""
    lesions = len(np.unique(val.lesion_id))
    split = GroupKFold(n_splits=min(folds, lesions), shuffle=True, random_state=seed)
    calibrated = np.empty_like(val.probabilities)
    for train, test in split.split(val.probabilities, groups=val.lesion_id):
        calibrated[test] = fit(val.labels[train], val.probabilities[train])(val.probabilities[test])
    return calibrated


def _methods(penalty: float) -> dict[str, Callable[[np.ndarray, np.ndarray], Map]]:
    return {
        "raw": lambda labels, p: lambda q: q,
        "temperature": temperature,
        DEPLOYED: temperature_bias,
        "vector": vector,
        "dirichlet": lambda labels, p: dirichlet(labels, p, penalty),
        "isotonic": isotonic,
    }


def temperature(labels: np.ndarray, p: np.ndarray) -> Map:
    """z / T; ``labels`` (N,) and raw ``p`` (N, 7), as in the four functions below."""
    slope = _fit(labels, p, lambda x: np.eye(K) * x[0], lambda w: np.atleast_1d(np.trace(w)), np.ones(1), 0.0)
    return _affine(np.eye(K) * slope[0], np.zeros(K))


def temperature_bias(labels: np.ndarray, p: np.ndarray) -> Map:
    """z / T + b, fitted as in ``metrics.calibration``."""
    t, bias = fit_scaling(labels, p)
    return _affine(np.eye(K) / t, bias)


def vector(labels: np.ndarray, p: np.ndarray) -> Map:
    """w ∘ z + b; biases have a Gaussian prior N(0, 1), as in ``metrics.calibration``, and slopes N(1, 1)."""
    x = _fit(labels, p, lambda x: np.diag(x[:K]), np.diag, np.append(np.ones(K), np.zeros(K)), 1 / (2 * len(labels)))
    return _affine(np.diag(x[:K]), x[K:])


def dirichlet(labels: np.ndarray, p: np.ndarray, penalty: float) -> Map:
    """W z + b, with ``penalty`` on the deviation of (W, b) from (1, 0)."""
    start = np.append(np.eye(K).ravel(), np.zeros(K))
    x = _fit(labels, p, lambda x: x[: K * K].reshape(K, K), np.ravel, start, penalty)
    return _affine(x[: K * K].reshape(K, K), x[K * K :])


def isotonic(labels: np.ndarray, p: np.ndarray) -> Map:
    """One isotonic regression per class, clipped below at FLOOR, then normalised."""
    steps = [IsotonicRegression(out_of_bounds="clip").fit(p[:, k], labels == k) for k in range(K)]

    def apply(q: np.ndarray) -> np.ndarray:
        clipped = np.stack([np.maximum(step.predict(q[:, k]), FLOOR) for k, step in enumerate(steps)], axis=1)
        return np.asarray(clipped / clipped.sum(axis=1, keepdims=True))

    return apply


def _fit(
    labels: np.ndarray,
    p: np.ndarray,
    matrix: Callable[[np.ndarray], np.ndarray],
    gather: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    penalty: float,
) -> np.ndarray:
    """Parameters x that minimise mean NLL + penalty · |x − start|².

    ``matrix(x)`` is W; the last K entries of x are the bias, if x has more than one entry. ``gather`` maps the gradient
    with respect to W to that of the slopes in x. The penalty includes the diagonal of dirichlet's W: with some 20
    images of a diagnosis nothing else keeps it finite.
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

    options = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-8}
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x)


def _affine(slopes: np.ndarray, bias: np.ndarray) -> Map:
    return lambda p: np.asarray(softmax(log(p) @ slopes.T + bias, axis=1))


def _metrics(labels: np.ndarray, p: np.ndarray, bins: int) -> dict[str, Any]:
    y_true, y_score = labels == MELANOMA, p[:, MELANOMA]
    return {
        "nll": metrics.nll(labels, p),
        "brier": metrics.brier(labels, p),
        "melanoma_brier": float(np.mean((y_score - y_true) ** 2)),
        "melanoma_ece": metrics.calibration_error(y_score, y_true, bins),
        "melanoma_ece_mass": metrics.calibration_error(y_score, y_true, bins, equal_mass=True),
        "melanoma_roc_auc": metrics.roc_auc(y_true, y_score),
    }

"""Metrics as functions of resample weights: what the bootstrap evaluates thousands of times.

A resample is never materialised. It is a row of integer weights, how often each image was drawn. A metric is built
once for N images, which sorts them; it then maps weights (B, N) to values (B,) by additions alone. Two thousand
resamples of 1,500 images take about a second. With every weight 1 it equals the metric in ``metrics.metrics``.

Deliberately absent: drawing the weights, and intervals (``evaluation.bootstrap``).
"""

from collections.abc import Callable

import numpy as np

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics.metrics import SENSITIVITY_FLOOR, SMALLEST, biopsy_subset, width_bins

Metric = Callable[[np.ndarray], np.ndarray]
"""Weights (B, N), how often each image is drawn → values (B,), NaN where undefined."""


def headline(
    labels: np.ndarray, calibrated: np.ndarray, threshold: float, histology: np.ndarray, bins: int
) -> dict[str, Metric]:
    """The metrics that carry an interval, by their path in the metrics file.

    Args: as in ``metrics.evaluate``; ``threshold`` is that of the operating point "sensitivity".
    """
    y_true, y_score, predicted = labels == MELANOMA, calibrated[:, MELANOMA], calibrated.argmax(axis=1)
    y_pred = y_score >= threshold
    return {
        "melanoma.roc_auc": roc_auc(y_true, y_score),
        "melanoma.pr_auc": pr_auc(y_true, y_score),
        "melanoma.partial_auc": partial_auc(y_true, y_score),
        "melanoma.brier": mean((y_score - y_true) ** 2),
        "melanoma.ece": calibration_error(y_score, y_true, bins),
        "melanoma.histology.roc_auc": roc_auc(y_true, y_score, among=biopsy_subset(labels, histology)),
        "diagnosis.nll": mean(-np.log(np.maximum(calibrated[np.arange(len(labels)), labels], SMALLEST))),
        "diagnosis.accuracy": Proportion(predicted == labels),
        "diagnosis.balanced_accuracy": balanced_accuracy(labels, predicted),
        "diagnosis.macro_f1": macro_f1(labels, predicted),
        "operating_points.sensitivity.sensitivity": Proportion(y_pred, among=y_true),
        "operating_points.sensitivity.specificity": Proportion(~y_pred, among=~y_true),
    }


def roc_auc(y_true: np.ndarray, y_score: np.ndarray, among: np.ndarray | None = None) -> Metric:
    """Area under the ROC curve, ties counted half; ``among`` (N,) bool restricts it to a subgroup."""
    kept = np.ones(len(y_score), bool) if among is None else among
    positive, negative = np.flatnonzero(y_true & kept), np.flatnonzero(~y_true & kept)
    negative = negative[np.argsort(y_score[negative], kind="stable")]
    below, up_to = (np.searchsorted(y_score[negative], y_score[positive], side) for side in ("left", "right"))

    def metric(weights: np.ndarray) -> np.ndarray:
        positives, negatives = weights[:, positive], np.zeros((len(weights), len(negative) + 1))
        weights[:, negative].cumsum(axis=1, out=negatives[:, 1:])  # of the i lowest; all sums are whole, hence exact
        won = (negatives[:, below] + negatives[:, up_to]) / 2
        return _divide((positives * won).sum(axis=1), positives.sum(axis=1) * negatives[:, -1])

    return metric


def partial_auc(y_true: np.ndarray, y_score: np.ndarray, floor: float = SENSITIVITY_FLOOR) -> Metric:
    """Area between the ROC curve and sensitivity ``floor``, as a fraction of the largest possible."""
    order, starts = _ranking(-y_score)

    def metric(weights: np.ndarray) -> np.ndarray:
        positives, negatives = (_grouped(weights * side, order, starts) for side in (y_true, ~y_true))
        total, others = positives.sum(axis=1), negatives.sum(axis=1)
        rise = _divide(positives, np.broadcast_to(total[:, None], positives.shape))
        after = np.clip(np.nan_to_num(rise).cumsum(axis=1) - floor, 0, None)
        before = np.clip(after - np.nan_to_num(rise), 0, None)
        # A segment that crosses the floor counts with the part above it only.
        part = np.divide(after - before, rise, out=np.ones_like(after), where=rise > 0)
        above = (negatives * part * (before + after) / 2).sum(axis=1)
        return _divide(above / (1 - floor), np.where(total > 0, others, 0))

    return metric


def pr_auc(y_true: np.ndarray, y_score: np.ndarray) -> Metric:
    """Average precision; undefined, as the ROC-AUC, unless both sides are drawn."""
    order, starts = _ranking(-y_score)

    def metric(weights: np.ndarray) -> np.ndarray:
        positives = _grouped(weights * y_true, order, starts)
        predicted_positive = _grouped(weights, order, starts).cumsum(axis=1)
        precision = positives.cumsum(axis=1) / np.maximum(predicted_positive, 1)  # 0 / 1 before the first is drawn
        total = positives.sum(axis=1)
        both = total * (total < predicted_positive[:, -1])
        return _divide((positives * precision).sum(axis=1), both)

    return metric


def calibration_error(confidence: np.ndarray, outcome: np.ndarray, bins: int) -> Metric:
    """ECE with bins of equal width; arguments as in ``metrics.calibration_error``."""
    gaps = np.eye(bins)[width_bins(confidence, bins)] * (confidence - outcome)[:, None]
    return lambda weights: _divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def mean(values: np.ndarray) -> Metric:
    """Mean of ``values`` (N,), one per image."""
    return lambda weights: _divide(weights @ values, weights.sum(axis=1))


class Proportion:
    """Proportion of images for which ``event`` (N,) bool is true; ``among`` (N,) bool restricts the images.

    Accuracy, sensitivity and specificity are proportions. This one is a class, not a closure, because a proportion of
    0 or 1 needs another interval, for which the bootstrap has to recognise it.
    """

    def __init__(self, event: np.ndarray, among: np.ndarray | None = None) -> None:
        self.among = np.ones(len(event), bool) if among is None else among
        self._events, self._kept = (event & self.among).astype(float), self.among.astype(float)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return _divide(weights @ self._events, weights @ self._kept)


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Mean recall over the classes drawn; both arguments (N,) int."""
    actual, _, correct = _by_class(labels, predicted)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ actual
        return _mean_over(_divide(weights @ correct, drawn), drawn > 0)

    return metric


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Mean F1 over the classes drawn; both arguments (N,) int."""
    actual, predicted_as, correct = _by_class(labels, predicted)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ actual
        return _mean_over(_divide(2 * (weights @ correct), drawn + weights @ predicted_as), drawn > 0)

    return metric


def _ranking(y_score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending order, and the positions in it where a new value starts."""
    order = np.argsort(y_score, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(y_score[order]) > 0))


def _grouped(weights: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weights summed over images of equal score: (B, N) → (B, number of different scores)."""
    return np.add.reduceat(weights[:, order], starts, axis=1)


def _by_class(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One-hot (N, 7): the labels, the predicted classes, and the labels of the correctly predicted images."""
    one_hot = np.eye(len(CLASSES))
    return one_hot[labels], one_hot[predicted], one_hot[labels] * (labels == predicted)[:, None]


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where ``whole`` is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _mean_over(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Row means of ``values`` (B, 7) over ``kept`` (B, 7) bool."""
    return _divide(np.where(kept, values, 0.0).sum(axis=1), kept.sum(axis=1))

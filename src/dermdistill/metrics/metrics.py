"""The metrics of one model, from labels and probabilities alone.

Plain arrays in, plain numbers out; scikit-learn where it has the metric. An undefined metric (an absent class,
no positive prediction) is None, never a silent 0; the counts in ``n`` tell why. Averages over classes include
only the classes present in the labels. The bootstrap follows the same rule.

Definitions that differ between papers:

- ECE: mean gap between confidence and frequency over bins, weighted by their images (Naeini et al., AAAI
  2015); ``ece`` has bins of equal width, ``ece_mass`` of equal count (Nixon et al., CVPR-W 2019). The
  confidence in melanoma is P(mel), in the diagnosis the largest probability (Guo et al., ICML 2017).
- Partial AUC: area between the ROC curve and the line sensitivity = 0.8, over its largest possible value 0.2
  (Jiang, Metz, Nishikawa, Radiology 201:745, 1996; unnormalised it is the metric of the ISIC 2024 challenge).
  A perfect model has 1, chance has 0.1.
- Brier: the 7-class loss sums over classes and ranges from 0 to 2; melanoma's is the usual binary one.
- F1 of a class that occurs but is never predicted is 0, as 2·TP / (2·TP + FP + FN); its precision is None.
- Biopsy subset: all melanomas against *benign* images confirmed by histology (nv, bkl, df, vasc). Basal
  cell carcinoma is malignant and actinic keratosis a precursor of cancer, so both are left out.

Deliberately absent: calibration (``calibration``), intervals and curves (``evaluation.bootstrap``, ``.curves``).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score, roc_curve

from dermdistill.core.classes import CLASSES, MELANOMA

BENIGN = tuple(CLASSES.index(name) for name in ("nv", "bkl", "df", "vasc"))
# Also reported before calibration. Training weighs classes, so the raw argmax favours rare ones; calibration
# restores the prior of the data and with it, as a rule, accuracy up and balanced accuracy down.
UNCALIBRATED = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece")
SENSITIVITY_FLOOR = 0.8
SMALLEST = float(np.finfo(np.float32).tiny)  # keeps the log of a float32 probability that underflowed finite


def evaluate(
    labels: np.ndarray,
    lesions: np.ndarray,
    raw: np.ndarray,
    calibrated: np.ndarray,
    thresholds: Mapping[str, float],
    histology: np.ndarray,
    bins: int,
) -> dict[str, Any]:
    """The nested metrics of one model on one set of images, without intervals; not yet rounded.

    Args:
        labels: (N,) int, index into CLASSES.
        lesions: (N,) lesion ids.
        raw, calibrated: (N, 7) probabilities.
        thresholds: name of the operating point → threshold of calibrated P(mel).
        histology: (N,) bool, whether the diagnosis was confirmed by histology.
        bins: number of bins of the calibration errors.
    """
    y_true = labels == MELANOMA
    y_score, predicted = calibrated[:, MELANOMA], calibrated.argmax(axis=1)
    decisions: dict[str, tuple[float | None, np.ndarray]] = {
        name: (threshold, y_score >= threshold) for name, threshold in thresholds.items()
    }
    decisions["argmax"] = (None, predicted == MELANOMA)
    return {
        "n": {"images": len(labels), "lesions": len(np.unique(lesions)), "melanoma": int(y_true.sum())},
        "melanoma": melanoma(y_true, y_score, bins) | {"histology": _biopsy_metrics(labels, y_score, histology)},
        "diagnosis": diagnosis(labels, calibrated, bins),
        "raw": _uncalibrated(labels, raw, bins),
        "operating_points": {
            name: {"threshold": threshold} | operating_point(y_true, y_pred)
            for name, (threshold, y_pred) in decisions.items()
        },
    }


def _uncalibrated(labels: np.ndarray, raw: np.ndarray, bins: int) -> dict[str, Any]:
    """The section "raw": what calibration changes, before it."""
    y_true, y_score = labels == MELANOMA, raw[:, MELANOMA]
    melanoma_metrics = {
        "melanoma_roc_auc": roc_auc(y_true, y_score),
        "melanoma_ece": calibration_error(y_score, y_true, bins),
    }
    every = diagnosis(labels, raw, bins)
    return melanoma_metrics | {f"diagnosis_{name}": value for name, value in every.items() if name in UNCALIBRATED}


def melanoma(y_true: np.ndarray, y_score: np.ndarray, bins: int) -> dict[str, Any]:
    """Metrics of melanoma against the rest: ``y_true`` (N,) bool, ``y_score`` (N,) calibrated P(mel)."""
    return {
        "roc_auc": roc_auc(y_true, y_score),
        "pr_auc": pr_auc(y_true, y_score),
        "partial_auc": partial_auc(y_true, y_score),
        "brier": float(np.mean((y_score - y_true) ** 2)),
        "ece": calibration_error(y_score, y_true, bins),
        "ece_mass": calibration_error(y_score, y_true, bins, equal_mass=True),
    }


def diagnosis(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, Any]:
    """The 7-class metrics of ``labels`` (N,) and ``probabilities`` (N, 7).

    The diagnosis is the most probable class; on a tie, the earlier one in CLASSES.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    correct = predicted == labels
    classes = per_class(labels, predicted)
    present = {name: row for name, row in classes.items() if row["n"]}
    return {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(np.mean([row["recall"] for row in present.values()])),
        "macro_f1": float(np.mean([row["f1"] for row in present.values()])),
        "weighted_f1": sum(row["n"] * row["f1"] for row in present.values()) / len(labels),
        "nll": nll(labels, probabilities),
        "brier": brier(labels, probabilities),
        "ece": calibration_error(confidence, correct, bins),
        "ece_mass": calibration_error(confidence, correct, bins, equal_mass=True),
        "per_class": classes,
        "confusion": _confusion(labels, predicted).tolist(),
    }


def per_class(labels: np.ndarray, predicted: np.ndarray) -> dict[str, dict[str, Any]]:
    """{dx: {"n", "precision", "recall", "f1"}}; both arguments (N,) int.

    Recall and F1 are None for a class that is absent from ``labels``; precision, for one that is never predicted.
    """
    table = _confusion(labels, predicted)
    tp, actual, predicted_as = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    return {
        name: {
            "n": int(actual[k]),
            "precision": _ratio(tp[k], predicted_as[k]),
            "recall": _ratio(tp[k], actual[k]),
            "f1": _ratio(2 * tp[k], actual[k] + predicted_as[k]) if actual[k] else None,
        }
        for k, name in enumerate(CLASSES)
    }


def operating_point(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float | None]:
    """The metrics of a binary decision; both arguments (N,) bool. None where a denominator is 0."""
    tp, fp = int((y_true & y_pred).sum()), int((~y_true & y_pred).sum())
    fn, tn = int((y_true & ~y_pred).sum()), int((~y_true & ~y_pred).sum())
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "accuracy": _ratio(tp + tn, len(y_true)),
    }


def roc_auc(y_true: np.ndarray, y_score: np.ndarray) -> float | None:
    """Area under the ROC curve; None unless both sides are present."""
    return None if one_sided(y_true) else float(roc_auc_score(y_true, y_score))


def pr_auc(y_true: np.ndarray, y_score: np.ndarray) -> float | None:
    """Average precision; None unless both sides are present, as for the other two areas."""
    return None if one_sided(y_true) else float(average_precision_score(y_true, y_score))


def partial_auc(y_true: np.ndarray, y_score: np.ndarray, floor: float = SENSITIVITY_FLOOR) -> float | None:
    """Area between the ROC curve and sensitivity ``floor``, as a fraction of the largest possible."""
    if one_sided(y_true):
        return None
    fpr, tpr, _ = roc_curve(y_true, y_score, drop_intermediate=False)
    above = int(np.searchsorted(tpr, floor))  # first point at or above the floor; tpr[0] is 0
    fraction = (floor - tpr[above - 1]) / (tpr[above] - tpr[above - 1])
    crossing = fpr[above - 1] + fraction * (fpr[above] - fpr[above - 1])
    x, height = np.append(crossing, fpr[above:]), np.append(floor, tpr[above:]) - floor
    return float(np.trapezoid(height, x) / (1 - floor))


def calibration_error(confidence: np.ndarray, outcome: np.ndarray, bins: int, equal_mass: bool = False) -> float:
    """Expected calibration error: ``confidence`` (N,) in [0, 1] against how often ``outcome`` (N,) bool is true."""
    index = mass_bins(confidence, bins) if equal_mass else width_bins(confidence, bins)
    return float(np.abs(np.bincount(index, weights=confidence - outcome)).sum() / len(outcome))


def width_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Bin number of each value among ``bins`` equal parts of [0, 1]; 1 belongs to the last."""
    return np.minimum((confidence * bins).astype(int), bins - 1)


def mass_bins(confidence: np.ndarray, bins: int) -> np.ndarray:
    """Bin number by rank: N / bins values in each, but equal values share the bin of the first."""
    rank = np.searchsorted(np.sort(confidence), confidence)
    return np.asarray(rank * bins // len(confidence))


def nll(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative log-likelihood of the truth, in nats."""
    truth = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(truth, SMALLEST)).mean())


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance to the one-hot truth, summed over classes (0 to 2)."""
    return float(((probabilities - np.eye(len(CLASSES))[labels]) ** 2).sum(axis=1).mean())


def biopsy_subset(labels: np.ndarray, histology: np.ndarray) -> np.ndarray:
    """(N,) bool: melanomas, and benign images whose diagnosis histology confirmed (``histology`` (N,) bool)."""
    return np.asarray((labels == MELANOMA) | (np.isin(labels, BENIGN) & histology))


def rounded(value: Any, decimals: int = 6) -> Any:
    """The same nested dicts and lists for JSON: floats rounded, NaN → None, numpy scalars → Python's."""
    if isinstance(value, Mapping):
        return {key: rounded(item, decimals) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [rounded(item, decimals) for item in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), decimals) + 0.0
    return value.item() if isinstance(value, np.generic) else value


def _biopsy_metrics(labels: np.ndarray, y_score: np.ndarray, histology: np.ndarray) -> dict[str, Any]:
    kept = biopsy_subset(labels, histology)
    y_true = labels[kept] == MELANOMA
    return {"roc_auc": roc_auc(y_true, y_score[kept]), "n_benign": int((~y_true).sum())}


def _confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.asarray(confusion_matrix(labels, predicted, labels=range(len(CLASSES))))


def one_sided(y_true: np.ndarray) -> bool:
    """Whether ``y_true`` (N,) bool lacks positives or negatives, so that no ranking metric is defined."""
    return bool(y_true.all() or not y_true.any())


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None

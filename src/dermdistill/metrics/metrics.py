"""Every figure of a model's metrics file, from labels and probabilities alone.

Plain arrays in, plain numbers out; scikit-learn where it has the metric. What cannot be computed (a class
that is absent, nobody called positive) is None, never a silent 0 — n tells why. Averages over classes run
over those present in the truth, the same rule that the bootstrap follows.

Definitions that differ between papers:

- ECE: mean gap between confidence and frequency over bins, weighted by their images (Naeini et al., AAAI
  2015); ``ece`` has bins of equal width, ``ece_mass`` of equal count (Nixon et al., CVPR-W 2019). The
  confidence in melanoma is P(mel), in the diagnosis the largest probability (Guo et al., ICML 2017).
- Partial AUC: area between the ROC curve and the line sensitivity = 0.8, over its largest possible value 0.2
  (Jiang, Metz, Nishikawa, Radiology 201:745, 1996; unnormalised it is the score of the ISIC 2024 challenge).
  A perfect model has 1, chance has 0.1.
- Brier: the 7-class score sums over classes and ranges to 2; melanoma's is the usual binary one.
- F1 of a class that occurs but is never predicted is 0, as 2·TP / (2·TP + FP + FN); its precision is None.
- Histology slice: all melanomas against *benign* images confirmed by histology (nv, bkl, df, vasc). Basal
  cell carcinoma and actinic keratosis are malignant or its precursor and are left out.

Calibration, intervals, curves and files are absent: see calibration.py, and bootstrap.py and curves.py in evaluation.
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
    """The metrics of one model on one set of images, without the intervals.

    Args:
        labels: (N,) int, index into CLASSES.
        lesions: (N,) lesion ids.
        raw, calibrated: (N, 7) probabilities.
        thresholds: of the operating points, on calibrated P(mel).
        histology: (N,) bool, whether the diagnosis was confirmed by histology.
        bins: of both calibration errors.
    """
    positive = labels == MELANOMA
    score, predicted = calibrated[:, MELANOMA], calibrated.argmax(axis=1)
    decisions = {name: (threshold, score >= threshold) for name, threshold in thresholds.items()}
    return {
        "n": {"images": len(labels), "lesions": len(np.unique(lesions)), "melanoma": int(positive.sum())},
        "melanoma": melanoma(positive, score, bins) | {"histology": _histology(labels, score, histology)},
        "diagnosis": diagnosis(labels, calibrated, bins),
        "raw": {
            "melanoma_roc_auc": roc_auc(positive, raw[:, MELANOMA]),
            "melanoma_ece": calibration_error(raw[:, MELANOMA], positive, bins),
        }
        | {f"diagnosis_{name}": value for name, value in diagnosis(labels, raw, bins).items() if name in UNCALIBRATED},
        "operating_points": {
            name: {"threshold": threshold} | operating_point(positive, decision)
            for name, (threshold, decision) in (decisions | {"argmax": (None, predicted == MELANOMA)}).items()
        },
    }


def melanoma(positive: np.ndarray, score: np.ndarray, bins: int) -> dict[str, Any]:
    """Melanoma against the rest: ``positive`` (N,) bool, ``score`` (N,) calibrated P(mel)."""
    return {
        "roc_auc": roc_auc(positive, score),
        "pr_auc": pr_auc(positive, score),
        "partial_auc": partial_auc(positive, score),
        "brier": float(np.mean((score - positive) ** 2)),
        "ece": calibration_error(score, positive, bins),
        "ece_mass": calibration_error(score, positive, bins, equal_mass=True),
    }


def diagnosis(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> dict[str, Any]:
    """The 7-class metrics; the diagnosis is the most probable class, the earlier one in CLASSES on a tie."""
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
    """{dx: {"n", "precision", "recall", "f1"}}; recall and f1 are None for a class absent from ``labels``."""
    table = _confusion(labels, predicted)
    hits, truth, called = table.diagonal(), table.sum(axis=1), table.sum(axis=0)
    return {
        name: {
            "n": int(truth[k]),
            "precision": _ratio(hits[k], called[k]),
            "recall": _ratio(hits[k], truth[k]),
            "f1": _ratio(2 * hits[k], truth[k] + called[k]) if truth[k] else None,
        }
        for k, name in enumerate(CLASSES)
    }


def operating_point(positive: np.ndarray, decision: np.ndarray) -> dict[str, float | None]:
    """What a yes/no decision amounts to; both (N,) bool."""
    tp, fp = int((positive & decision).sum()), int((~positive & decision).sum())
    fn, tn = int((positive & ~decision).sum()), int((~positive & ~decision).sum())
    return {
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
        "ppv": _ratio(tp, tp + fp),
        "npv": _ratio(tn, tn + fn),
        "f1": _ratio(2 * tp, 2 * tp + fp + fn) if tp + fn else None,
        "accuracy": _ratio(tp + tn, len(positive)),
    }


def roc_auc(positive: np.ndarray, score: np.ndarray) -> float | None:
    return None if one_sided(positive) else float(roc_auc_score(positive, score))


def pr_auc(positive: np.ndarray, score: np.ndarray) -> float | None:
    """Average precision; None, as for the other two areas, unless both sides are present."""
    return None if one_sided(positive) else float(average_precision_score(positive, score))


def partial_auc(positive: np.ndarray, score: np.ndarray, floor: float = SENSITIVITY_FLOOR) -> float | None:
    """Area between the ROC curve and sensitivity ``floor``, as a share of the largest possible."""
    if one_sided(positive):
        return None
    fpr, tpr, _ = roc_curve(positive, score, drop_intermediate=False)
    above = int(np.searchsorted(tpr, floor))  # first point at or above the floor; tpr[0] is 0
    share = (floor - tpr[above - 1]) / (tpr[above] - tpr[above - 1])
    crossing = fpr[above - 1] + share * (fpr[above] - fpr[above - 1])
    x, height = np.append(crossing, fpr[above:]), np.append(floor, tpr[above:]) - floor
    return float(np.trapezoid(height, x) / (1 - floor))


def calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int, equal_mass: bool = False) -> float:
    """Expected calibration error: ``confidence`` (N,) in [0, 1], ``hit`` (N,) bool."""
    index = mass_bins(confidence, bins) if equal_mass else width_bins(confidence, bins)
    return float(np.abs(np.bincount(index, weights=confidence - hit)).sum() / len(hit))


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
    """(N,) bool: the melanomas and the benign images whose diagnosis histology confirmed."""
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


def _histology(labels: np.ndarray, score: np.ndarray, histology: np.ndarray) -> dict[str, Any]:
    kept = biopsy_subset(labels, histology)
    positive = labels[kept] == MELANOMA
    return {"roc_auc": roc_auc(positive, score[kept]), "n_benign": int((~positive).sum())}


def _confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.asarray(confusion_matrix(labels, predicted, labels=range(len(CLASSES))))


def one_sided(positive: np.ndarray) -> bool:
    """Whether one of the two sides is missing, so that nothing can be ranked."""
    return bool(positive.all() or not positive.any())


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None

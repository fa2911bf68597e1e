"""Where two models agree, where only one is right, and where both fail.

There are two views of the same images: the decision on melanoma at each model's own threshold, and the 7-class
diagnosis (argmax). Each gives counts, McNemar's exact test (Psychometrika 12:153, 1947) and lists of image ids for
picture panels. The test asks whether the images that only one model gets right are split evenly between the two. It
assumes independent images. With several images of one lesion its p is too small; quote the paired lesion bootstrap
(``evaluation.comparison``) instead.

"A" is the reference (the teacher), "B" the model compared with it; differences are B minus A.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from dermdistill.core.classes import CLASSES
from dermdistill.metrics.metrics import per_class


def melanoma_agreement(y_true: np.ndarray, y_pred_a: np.ndarray, y_pred_b: np.ndarray) -> dict[str, Any]:
    """Counts for binary decisions on melanoma; all three (N,) bool."""
    return _agreement(y_pred_a == y_true, y_pred_b == y_true, y_pred_a == y_pred_b) | {
        "shared_false_negatives": int((y_true & ~y_pred_a & ~y_pred_b).sum()),
        "shared_false_positives": int((~y_true & y_pred_a & y_pred_b).sum()),
    }


def diagnosis_agreement(labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> dict[str, Any]:
    """Counts for diagnoses, all (N,) int. Two models may disagree and both be wrong."""
    return _agreement(predicted_a == labels, predicted_b == labels, predicted_a == predicted_b)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test; 1 if no image is right for one model alone."""
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def high_confidence_errors(
    image_id: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, minimum: float
) -> list[str]:
    """Ids of wrong diagnoses with a probability of at least ``minimum``, the most confident first.

    Args: ``image_id`` (N,), ``labels`` (N,), ``probabilities`` (N, 7).
    """
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != labels) & (confidence >= minimum)
    return ranked(image_id, wrong, -confidence)


def per_class_change(labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> pd.DataFrame:
    """One row per diagnosis; all arguments (N,) int.

    Values are NaN for an absent class; the relative change is NaN if f1_a is 0.

    Columns: dx, n, f1_a, f1_b, delta_f1, recall_a, recall_b, delta_recall, relative_delta_f1 (to f1_a).
    """
    a, b = per_class(labels, predicted_a), per_class(labels, predicted_b)
    table = pd.DataFrame({"dx": list(a), "n": [row["n"] for row in a.values()]})
    for name in ("f1", "recall"):
        table[f"{name}_a"] = np.array([row[name] for row in a.values()], dtype=float)  # None becomes NaN
        table[f"{name}_b"] = np.array([row[name] for row in b.values()], dtype=float)
        table[f"delta_{name}"] = table[f"{name}_b"] - table[f"{name}_a"]
    return table.assign(relative_delta_f1=table["delta_f1"] / table["f1_a"].where(table["f1_a"] > 0))


def confusion(labels: np.ndarray, predicted: np.ndarray) -> pd.DataFrame:
    """One row per pair of diagnoses: actual, predicted, count, share; both arguments (N,) int.

    ``share`` is the proportion of the images of the actual diagnosis; NaN for an absent class.
    """
    counts = np.asarray(confusion_matrix(labels, predicted, labels=range(len(CLASSES))))
    table = pd.DataFrame([(a, b) for a in CLASSES for b in CLASSES], columns=["actual", "predicted"])
    table["count"] = counts.ravel()
    return table.assign(share=table["count"] / table.groupby("actual")["count"].transform("sum").replace(0, np.nan))


def confusion_change(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """(7, 7) shares of ``b`` minus those of ``a``, two tables of :func:`confusion`."""
    return (b["share"] - a["share"]).to_numpy().reshape(len(CLASSES), len(CLASSES))


def cases(
    image_id: np.ndarray,
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    high_confidence: float,
) -> dict[str, list[str]]:
    """All image ids of each kind, the clearest cases first; a panel shows the head of a list.

    - easy: both are right; highest mean probability of the label first;
    - challenging: at least one is right; lowest such mean first;
    - both_wrong: lowest such mean first;
    - only_a, only_b: one is right; largest lead in the probability of the label first;
    - high_confidence: at least one is wrong with probability ``high_confidence`` or more; most confident first.

    Args: ``image_id`` (N,), ``labels`` (N,), both probabilities (N, 7).
    """
    rows = np.arange(len(labels))
    p_label_a, p_label_b = probabilities_a[rows, labels], probabilities_b[rows, labels]
    right_a, right_b = probabilities_a.argmax(axis=1) == labels, probabilities_b.argmax(axis=1) == labels
    mean = (p_label_a + p_label_b) / 2
    wrong_confidence = np.maximum(
        np.where(right_a, 0, probabilities_a.max(axis=1)), np.where(right_b, 0, probabilities_b.max(axis=1))
    )
    return {
        "easy": ranked(image_id, right_a & right_b, -mean),
        "challenging": ranked(image_id, right_a | right_b, mean),
        "both_wrong": ranked(image_id, ~right_a & ~right_b, mean),
        "only_a": ranked(image_id, right_a & ~right_b, p_label_b - p_label_a),
        "only_b": ranked(image_id, right_b & ~right_a, p_label_a - p_label_b),
        "high_confidence": ranked(
            image_id, (wrong_confidence > 0) & (wrong_confidence >= high_confidence), -wrong_confidence
        ),
    }


def _agreement(right_a: np.ndarray, right_b: np.ndarray, same: np.ndarray) -> dict[str, Any]:
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "total": len(same),
        "agree": int(same.sum()),
        "disagree": int((~same).sum()),
        "a_correct": int(right_a.sum()),
        "b_correct": int(right_b.sum()),
        "both_correct": int((right_a & right_b).sum()),
        "both_wrong": int((~right_a & ~right_b).sum()),
        "only_a": only_a,
        "only_b": only_b,
        "mcnemar_p": mcnemar(only_a, only_b),
    }


def ranked(image_id: np.ndarray, kept: np.ndarray, rank: np.ndarray) -> list[str]:
    """Ids of the images ``kept`` (N,) bool by ascending ``rank`` (N,); equal ranks by id, so the order repeats."""
    order = np.lexsort((image_id, rank))
    return [str(name) for name in image_id[order][kept[order]]]

"""Where two models agree, where only one is right, and where both fail.

Two views of the same images: melanoma against the rest at each model's own threshold, which is what a
screening decision is, and the 7-class diagnosis (argmax). Counts, McNemar's exact test (Psychometrika
12:153, 1947: of the images that only one model gets right, is the split compatible with a fair coin?), and
lists of image ids for picture panels. The test takes images as independent; with several images of one lesion
its p is somewhat too small, and the paired lesion bootstrap in uncertainty.py is the one to quote.

"A" is the reference (the teacher), "B" what is compared with it; deltas are B minus A.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from dermdistill.core.classes import CLASSES
from dermdistill.metrics.metrics import per_class


def melanoma_agreement(positive: np.ndarray, called_a: np.ndarray, called_b: np.ndarray) -> dict[str, Any]:
    """Counts for yes/no decisions; all three (N,) bool."""
    return _agreement(called_a == positive, called_b == positive, called_a == called_b) | {
        "shared_false_negatives": int((positive & ~called_a & ~called_b).sum()),
        "shared_false_positives": int((~positive & called_a & called_b).sum()),
    }


def diagnosis_agreement(labels: np.ndarray, called_a: np.ndarray, called_b: np.ndarray) -> dict[str, Any]:
    """Counts for diagnoses, all (N,) int. Two models may disagree and both be wrong."""
    return _agreement(called_a == labels, called_b == labels, called_a == called_b)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p; 1 if the models never differ in being right."""
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def high_confidence_errors(
    image_id: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, minimum: float
) -> list[str]:
    """Ids of wrong diagnoses with a probability of at least ``minimum``, the surest first."""
    confidence = probabilities.max(axis=1)
    wrong = (probabilities.argmax(axis=1) != labels) & (confidence >= minimum)
    return ranked(image_id, wrong, -confidence)


def per_class_change(labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray) -> pd.DataFrame:
    """One row per diagnosis; NaN where a class is absent, or where nothing is relative to an F1 of 0.

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
    """One row per pair of diagnoses: actual, predicted, count, share (of the actual ones; NaN for an absent class)."""
    counts = np.asarray(confusion_matrix(labels, predicted, labels=range(len(CLASSES))))
    table = pd.DataFrame([(a, b) for a in CLASSES for b in CLASSES], columns=["actual", "predicted"])
    table["count"] = counts.ravel()
    return table.assign(share=table["count"] / table.groupby("actual")["count"].transform("sum").replace(0, np.nan))


def confusion_change(a: pd.DataFrame, b: pd.DataFrame) -> np.ndarray:
    """Shares of ``b`` minus those of ``a``, (7, 7), from two tables of :func:`confusion`."""
    return (b["share"] - a["share"]).to_numpy().reshape(len(CLASSES), len(CLASSES))


def cases(
    image_id: np.ndarray,
    labels: np.ndarray,
    probabilities_a: np.ndarray,
    probabilities_b: np.ndarray,
    high_confidence: float,
) -> dict[str, list[str]]:
    """All image ids of each kind, the most telling first; a panel shows the head of a list.

    - easy: both right, by mean probability of the truth, highest first;
    - challenging: at least one right, lowest such mean first;
    - both_wrong: lowest such mean first;
    - only_a, only_b: one is right, by how far it is ahead in the probability of the truth;
    - high_confidence: at least one is wrong with probability ``high_confidence`` or more, the surest first.
    """
    rows = np.arange(len(labels))
    truth_a, truth_b = probabilities_a[rows, labels], probabilities_b[rows, labels]
    right_a, right_b = probabilities_a.argmax(axis=1) == labels, probabilities_b.argmax(axis=1) == labels
    mean = (truth_a + truth_b) / 2
    wrongness = np.maximum(
        np.where(right_a, 0, probabilities_a.max(axis=1)), np.where(right_b, 0, probabilities_b.max(axis=1))
    )
    return {
        "easy": ranked(image_id, right_a & right_b, -mean),
        "challenging": ranked(image_id, right_a | right_b, mean),
        "both_wrong": ranked(image_id, ~right_a & ~right_b, mean),
        "only_a": ranked(image_id, right_a & ~right_b, truth_b - truth_a),
        "only_b": ranked(image_id, right_b & ~right_a, truth_a - truth_b),
        "high_confidence": ranked(image_id, (wrongness > 0) & (wrongness >= high_confidence), -wrongness),
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
    """Ids of the kept images by ascending ``rank``; equal ranks by id, so that the order never wavers."""
    order = np.lexsort((image_id, rank))
    return [str(name) for name in image_id[order][kept[order]]]

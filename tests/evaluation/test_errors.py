"""Agreement of two models, their confusion and their cases, counted by hand."""

import numpy as np
import pytest

from dermdistill.core.classes import CLASSES
from dermdistill.evaluation import errors

NV, MEL, BKL = range(3)


def truth_at(labels: list[int], values: list[float], instead: int = 6) -> np.ndarray:
    """Probabilities with the given value at the truth and the rest at class ``instead``."""
    p = np.zeros((len(labels), 7))
    p[np.arange(len(labels)), labels] = values
    p[:, instead] += 1 - p.sum(axis=1)
    return p


def test_melanoma_agreement_by_hand() -> None:
    y_true = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    a = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0], bool)
    b = np.array([1, 0, 0, 0, 0, 1, 0, 1, 0], bool)
    result = errors.melanoma_agreement(y_true, a, b)
    assert result.pop("mcnemar_p") == pytest.approx(1.0)  # 2 against 1
    assert result == {
        "total": 9,
        "agree": 6,
        "disagree": 3,
        "a_correct": 5,
        "b_correct": 4,
        "both_correct": 3,
        "both_wrong": 3,
        "only_a": 2,
        "only_b": 1,
        "shared_false_negatives": 2,
        "shared_false_positives": 1,
    }


def test_diagnoses_may_disagree_and_both_be_wrong() -> None:
    result = errors.diagnosis_agreement(np.array([NV, NV, MEL]), np.array([NV, MEL, NV]), np.array([NV, BKL, MEL]))
    assert (result["agree"], result["disagree"], result["both_wrong"], result["only_b"]) == (1, 2, 1, 1)
    assert result["both_correct"] + result["both_wrong"] + result["only_a"] + result["only_b"] == result["total"]


def test_mcnemar_by_hand() -> None:
    assert errors.mcnemar(0, 0) == 1.0
    assert errors.mcnemar(5, 0) == errors.mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert errors.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert errors.mcnemar(4, 4) == 1.0


def test_high_confidence_errors() -> None:
    ids, labels = np.array(["a", "b", "c", "d"]), np.array([NV, NV, MEL, MEL])
    p = truth_at([NV, NV, MEL, MEL], [0.95, 0.02, 0.1, 0.2])
    assert errors.high_confidence_errors(ids, labels, p, 0.9) == ["b", "c"]
    assert errors.high_confidence_errors(ids, labels, p, 0.99) == []


def test_per_class_change_by_hand() -> None:
    labels = np.array([NV, NV, MEL, MEL, BKL])
    table = errors.per_class_change(labels, np.array([NV, NV, MEL, NV, NV]), np.array([NV, MEL, MEL, MEL, BKL]))
    rows = table.set_index("dx")
    assert tuple(table["dx"]) == CLASSES
    assert rows.loc["nv", ["f1_a", "f1_b"]].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert rows.loc["mel", "delta_f1"] == pytest.approx(0.8 - 2 / 3)
    assert rows.loc["mel", "relative_delta_f1"] == pytest.approx(0.2)
    assert rows.loc["mel", "delta_recall"] == pytest.approx(0.5)
    assert (rows.loc["bkl", "f1_a"], rows.loc["bkl", "delta_f1"]) == (0.0, 1.0)
    assert rows["relative_delta_f1"].isna()["bkl"]  # nothing is relative to 0
    assert rows.loc["df", "n"] == 0
    assert table.iloc[-1:].drop(columns=["dx", "n"]).isna().all(axis=None)


def test_cases_by_hand() -> None:
    ids = np.array(["easy2", "easy1", "hard", "only_a2", "only_a1", "only_b", "wrong1", "wrong2"])
    labels = [NV] * 8
    a = truth_at(labels, [0.8, 0.9, 0.55, 0.6, 0.9, 0.45, 0.05, 0.3])
    b = truth_at(labels, [0.8, 0.9, 0.55, 0.4, 0.1, 0.9, 0.02, 0.4])
    result = errors.cases(ids, np.array(labels), a, b, high_confidence=0.9)
    assert result == {
        "easy": ["easy1", "easy2", "hard"],
        "challenging": ["only_a1", "only_a2", "hard", "only_b", "easy2", "easy1"],
        "both_wrong": ["wrong1", "wrong2"],
        "only_a": ["only_a1", "only_a2"],
        "only_b": ["only_b"],
        "high_confidence": ["wrong1", "only_a1"],
    }


def test_cases_of_two_perfect_models() -> None:
    p = np.eye(7)[[NV, MEL]]
    result = errors.cases(np.array(["b", "a"]), np.array([NV, MEL]), p, p, high_confidence=0.0)
    assert result.pop("easy") == result.pop("challenging") == ["a", "b"]  # equal ranks: by id
    assert not any(result.values())


def test_confusion_counts_and_shares_by_hand() -> None:
    labels, a, b = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    before, after = errors.confusion(labels, a), errors.confusion(labels, b)
    row = before[(before["actual"] == "nv") & (before["predicted"] == "mel")].iloc[0]
    assert row["count"] == 1 and row["share"] == pytest.approx(1 / 3)
    assert before["count"].sum() == 4 and before["share"].isna().sum() == 5 * 7  # five diagnoses do not occur
    change = errors.confusion_change(before, after)
    assert change[0, 0] == pytest.approx(-1 / 3) and change[0, 1] == pytest.approx(1 / 3) and change[1, 1] == 0
    assert np.isnan(change[2]).all()

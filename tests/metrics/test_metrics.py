"""Each metric against a case small enough to work out by hand, and against scikit-learn where it has one."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.evaluation import curves
from dermdistill.metrics import metrics

NV, MEL, BKL, BCC, AKIEC, VASC, DF = range(7)
NO, YES = False, True


def some(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice(7, count, p=[0.5, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    logits = random.normal(size=(count, 7)) + 1.5 * np.eye(7)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def one_hot(*labels: int) -> np.ndarray:
    return np.eye(7)[list(labels)]


def evaluate(labels: np.ndarray, probabilities: np.ndarray, **changes: object) -> dict:
    count = len(labels)
    arguments = {
        "labels": labels,
        "lesions": np.arange(count).astype(str),
        "raw": probabilities,
        "calibrated": probabilities,
        "thresholds": {"sensitivity": 0.1, "youden": 0.3},
        "histology": np.ones(count, bool),
        "bins": 15,
    }
    return metrics.evaluate(**(arguments | changes))  # type: ignore[arg-type]


def test_areas_by_hand() -> None:
    # 3 melanomas, 2 others; of the 6 pairs 4 are in order and one is tied
    positive, score = np.array([YES, YES, YES, NO, NO]), np.array([0.9, 0.6, 0.3, 0.6, 0.1])
    assert metrics.roc_auc(positive, score) == pytest.approx(4.5 / 6)
    # recall ⅓ at precision 1, then ⅔ at 2/3 (tie with a negative), then 1 at 3/4
    assert metrics.pr_auc(positive, score) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_partial_auc_by_hand() -> None:
    # 5 melanomas: above sensitivity 0.8 lies the last one only, which 1 of 4 others outranks.
    positive = np.array([YES] * 5 + [NO] * 4)
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.5, 0.1, 0.1, 0.1])
    assert metrics.partial_auc(positive, score) == pytest.approx(0.75)
    score[:3] = 0.15  # three of five come late, so sensitivity 0.4 to 0.8 is worse: it does not count
    score[4] = 0.95
    assert metrics.partial_auc(positive, score) == pytest.approx(0.75)


def test_partial_auc_of_perfection_chance_and_its_opposite() -> None:
    positive = np.array([YES, NO] * 10)
    assert metrics.partial_auc(positive, positive * 1.0) == pytest.approx(1.0)
    assert metrics.partial_auc(positive, np.full(20, 0.5)) == pytest.approx(0.1)  # ½ · 0.2² / 0.2
    assert metrics.partial_auc(positive, 1.0 - positive) == pytest.approx(0.0)


def test_partial_auc_with_floor_zero_is_the_whole_area() -> None:
    labels, probabilities = some()
    positive, score = labels == MELANOMA, probabilities[:, MELANOMA].round(2)  # with ties
    assert metrics.partial_auc(positive, score, floor=1e-12) == pytest.approx(metrics.roc_auc(positive, score))


def test_partial_auc_matches_mcclish_on_the_mirrored_curve() -> None:
    labels, probabilities = some()
    positive, score = labels == MELANOMA, probabilities[:, MELANOMA]
    # Mirrored, the region is fpr < 0.2, which scikit-learn rescales so that chance is ½; undo that.
    standard = reference.roc_auc_score(~positive, 1 - score, max_fpr=0.2)
    area = 0.02 + (2 * standard - 1) * (0.2 - 0.02)
    assert metrics.partial_auc(positive, score) == pytest.approx(area / 0.2)


def test_calibration_error_by_hand() -> None:
    confidence, hit = np.array([0.1, 0.2, 0.9, 1.0]), np.array([NO, YES, YES, YES])
    # halves: |0.15 - 0.5| / 2 + |0.95 - 1| / 2
    assert metrics.calibration_error(confidence, hit, bins=2) == pytest.approx(0.35 / 2 + 0.05 / 2)
    assert metrics.calibration_error(confidence, hit, bins=1) == pytest.approx(0.55 - 0.75 + 0.4)
    # three of four are low: equal width pools them, equal mass cuts after the second
    confidence, hit = np.array([0.1, 0.2, 0.3, 0.9]), np.array([NO, NO, YES, YES])
    assert metrics.calibration_error(confidence, hit, 2) == pytest.approx((abs(0.6 - 1) + 0.1) / 4)
    assert metrics.calibration_error(confidence, hit, 2, equal_mass=True) == pytest.approx((0.3 + 0.8) / 4)


def test_bins() -> None:
    assert metrics.width_bins(np.array([0.0, 0.49, 0.5, 1.0]), 2).tolist() == [0, 0, 1, 1]
    assert metrics.mass_bins(np.array([0.4, 0.1, 0.3, 0.2]), 2).tolist() == [1, 0, 1, 0]
    assert metrics.mass_bins(np.array([0.5, 0.5, 0.5, 0.9]), 2).tolist() == [0, 0, 0, 1]  # ties stay together
    assert metrics.mass_bins(np.array([0.3, 0.2]), 15).tolist() == [7, 0]


def test_operating_point_by_hand() -> None:
    positive = np.array([YES, YES, YES, NO, NO, NO, NO])
    decision = np.array([YES, YES, NO, YES, NO, NO, NO])
    assert metrics.operating_point(positive, decision) == {
        "sensitivity": pytest.approx(2 / 3),
        "specificity": pytest.approx(3 / 4),
        "ppv": pytest.approx(2 / 3),
        "npv": pytest.approx(3 / 4),
        "f1": pytest.approx(2 / 3),
        "accuracy": pytest.approx(5 / 7),
    }


def test_what_an_operating_point_cannot_say_is_none() -> None:
    positive, nobody = np.array([YES, NO]), np.array([NO, NO])
    called_nobody = metrics.operating_point(positive, nobody)
    assert (called_nobody["ppv"], called_nobody["f1"], called_nobody["sensitivity"]) == (None, 0.0, 0.0)
    assert metrics.operating_point(positive, ~nobody)["npv"] is None
    none_ill = metrics.operating_point(nobody, positive)
    assert (none_ill["sensitivity"], none_ill["f1"], none_ill["specificity"]) == (None, None, 0.5)


def test_diagnosis_by_hand() -> None:
    labels = np.array([NV, NV, NV, MEL, MEL, BKL])
    result = metrics.diagnosis(labels, one_hot(NV, NV, MEL, MEL, NV, BCC), bins=15)
    assert result["accuracy"] == pytest.approx(3 / 6)
    assert result["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert result["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)  # absent classes do not count
    assert result["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 0) / 6)
    assert result["brier"] == pytest.approx(1.0)  # three of six at the largest distance, 2
    assert result["ece"] == result["ece_mass"] == pytest.approx(0.5)
    assert result["per_class"]["nv"] == {
        "n": 3, "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)
    }  # fmt: skip
    assert result["per_class"]["bkl"] == {"n": 1, "precision": None, "recall": 0.0, "f1": 0.0}
    assert result["per_class"]["bcc"] == {"n": 0, "precision": 0.0, "recall": None, "f1": None}
    assert result["per_class"]["df"] == {"n": 0, "precision": None, "recall": None, "f1": None}
    assert result["confusion"][NV] == [2, 1, 0, 0, 0, 0, 0]
    assert result["confusion"][BKL] == [0, 0, 0, 1, 0, 0, 0]


def test_nll_and_brier_by_hand() -> None:
    probabilities = np.array([[0.5, 0.25, 0.25, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0]])
    assert metrics.nll(np.array([NV, MEL]), probabilities) == pytest.approx(np.log(2) / 2)
    assert metrics.brier(np.array([NV, MEL]), probabilities) == pytest.approx((0.25 + 0.0625 + 0.0625) / 2)
    assert 80 < metrics.nll(np.array([BKL]), one_hot(MEL)) < 90  # certain and wrong: large, but finite


def test_the_whole_agrees_with_scikit_learn() -> None:
    labels, probabilities = some()
    predicted, positive = probabilities.argmax(axis=1), labels == MELANOMA
    result = evaluate(labels, probabilities)
    known = result["diagnosis"]
    assert known["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert known["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert known["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert known["weighted_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="weighted"))
    assert known["nll"] == pytest.approx(reference.log_loss(labels, probabilities))
    assert result["melanoma"]["brier"] == pytest.approx(
        reference.brier_score_loss(positive, probabilities[:, MELANOMA])
    )
    point = result["operating_points"]["argmax"]
    assert point["threshold"] is None
    assert point["f1"] == pytest.approx(reference.f1_score(positive, predicted == MELANOMA))
    assert point["ppv"] == pytest.approx(known["per_class"]["mel"]["precision"])


def test_thresholds_include_their_own_value() -> None:
    probabilities = np.array([[0.7, 0.3, 0, 0, 0, 0, 0], [0.71, 0.29, 0, 0, 0, 0, 0]])
    point = evaluate(np.array([MEL, NV]), probabilities)["operating_points"]["youden"]
    assert (point["threshold"], point["sensitivity"], point["specificity"]) == (0.3, 1.0, 1.0)


def test_histology_slice_keeps_confirmed_benign_images_only() -> None:
    labels = np.array([MEL, NV, NV, BCC, AKIEC, BKL, VASC, DF])
    confirmed = np.array([YES, YES, NO, YES, YES, YES, YES, YES])
    assert metrics.biopsy_subset(labels, confirmed).tolist() == [YES, YES, NO, NO, NO, YES, YES, YES]
    probabilities = one_hot(*labels) * 0.5 + 0.5 / 7
    # the unconfirmed nevus and the carcinoma outrank the melanoma; only the confirmed benign ones count
    probabilities[[2, 3]] = one_hot(MEL, MEL)
    result = evaluate(labels, probabilities, histology=confirmed)["melanoma"]
    assert result["histology"] == {"roc_auc": 1.0, "n_benign": 4}
    assert result["roc_auc"] == pytest.approx(5 / 7)


def test_raw_and_calibrated_are_not_mixed_up() -> None:
    labels, probabilities = some()
    uniform = np.full((len(labels), 7), 1 / 7)
    result = evaluate(labels, uniform, raw=probabilities)
    assert result["raw"]["melanoma_roc_auc"] > 0.7
    assert result["melanoma"]["roc_auc"] == 0.5
    assert result["diagnosis"]["nll"] == pytest.approx(np.log(7))
    assert result["raw"]["diagnosis_nll"] < 1.8


@pytest.mark.parametrize("labels", [[NV], [MEL], [NV, NV, BKL], [MEL, MEL]])
def test_one_sided_sets_have_nulls_and_still_a_file(labels: list[int]) -> None:
    truth = np.array(labels)
    result = metrics.rounded(evaluate(truth, np.full((len(truth), 7), 1 / 7)))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    known = result["melanoma"]
    assert known["roc_auc"] is known["pr_auc"] is known["partial_auc"] is known["histology"]["roc_auc"] is None
    assert result["n"] == {"images": len(labels), "lesions": len(labels), "melanoma": labels.count(MEL)}
    flat = np.full((len(truth), 7), 1 / 7)
    tables = curves.tables(truth, flat, flat, 15)
    assert len(tables["roc"]) == len(tables["pr"]) == 0


def test_curve_tables() -> None:
    labels, probabilities = some()
    positive, score = labels == MELANOMA, probabilities[:, MELANOMA]
    tables = curves.tables(labels, probabilities[::-1], probabilities, 15)
    roc, pr, reliability, threshold = (tables[name] for name in ("roc", "pr", "reliability", "threshold"))
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(metrics.roc_auc(positive, score))
    assert np.isfinite(roc.to_numpy()).all()
    assert (pr["recall"].iloc[0], pr["recall"].iloc[-1]) == (1.0, 0.0)
    gaps = (reliability["confidence"] - reliability["frequency"]).abs() * reliability["count"]
    assert gaps.sum() / len(labels) == pytest.approx(metrics.calibration_error(score, positive, 15))
    assert reliability["count"].sum() == len(labels)
    assert not tables["reliability_raw"].equals(reliability)  # that of the other probabilities
    assert (threshold["sensitivity"].iloc[0], threshold["specificity"].iloc[0]) == (1.0, 0.0)
    row = threshold[threshold["threshold"] == 0.3].iloc[0]
    assert row["sensitivity"] == pytest.approx((score[positive] >= 0.3).mean())


def test_confusion_rows_are_names() -> None:
    rows = curves.confusion_rows(np.array([NV, DF]), np.array([MEL, DF]))
    assert rows.to_csv(index=False) == "actual,predicted\nnv,mel\ndf,df\n"


def test_rounded() -> None:
    value = {"a": np.float64(1 / 3), "b": [np.int64(2), float("nan"), None], "c": -1e-9, "d": "x", "e": 3}
    assert json.dumps(metrics.rounded(value)) == ('{"a": 0.333333, "b": [2, null, null], "c": 0.0, "d": "x", "e": 3}')


def test_row_order_does_not_matter() -> None:
    labels, probabilities = some()
    order = np.random.default_rng(1).permutation(len(labels))
    first = metrics.rounded(evaluate(labels, probabilities.round(3)))
    assert first == metrics.rounded(evaluate(labels[order], probabilities.round(3)[order]))
    assert tuple(first["diagnosis"]["per_class"]) == CLASSES


def test_nan_is_refused_and_never_counted_as_something() -> None:
    positive, score = np.array([YES, NO, NO]), np.array([0.9, np.nan, 0.1])
    for metric in (metrics.roc_auc, metrics.pr_auc, metrics.partial_auc):
        with pytest.raises(ValueError, match="NaN"):
            metric(positive, score)


def test_constant_scores_and_one_image_are_defined() -> None:
    positive, constant = np.array([YES, NO, NO, NO]), np.full(4, 0.25)
    assert metrics.roc_auc(positive, constant) == 0.5
    assert metrics.pr_auc(positive, constant) == 0.25  # the prevalence
    assert metrics.calibration_error(constant, positive, 15) == 0.0
    assert metrics.calibration_error(constant, positive, 15, equal_mass=True) == 0.0
    alone = metrics.rounded(evaluate(np.array([MEL]), one_hot(MEL)))
    assert alone["diagnosis"]["accuracy"] == 1.0 and alone["operating_points"]["youden"]["specificity"] is None

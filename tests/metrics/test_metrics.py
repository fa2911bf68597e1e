"""Each metric against a case small enough to work out by hand, and against scikit-learn where it has one."""

import json

import numpy as np
import pytest
from helpers import simulated
from sklearn import metrics as reference

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics import metrics

NV, MEL, BKL, BCC, AKIEC, VASC, DF = range(7)
NO, YES = False, True


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
    y_true, y_score = np.array([YES, YES, YES, NO, NO]), np.array([0.9, 0.6, 0.3, 0.6, 0.1])
    assert metrics.roc_auc(y_true, y_score) == pytest.approx(4.5 / 6)
    # recall ⅓ at precision 1, then ⅔ at 2/3 (tie with a negative), then 1 at 3/4
    assert metrics.pr_auc(y_true, y_score) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)


def test_partial_auc_by_hand() -> None:
    # 5 melanomas: above sensitivity 0.8 lies the last one only, which 1 of 4 others outranks.
    y_true = np.array([YES] * 5 + [NO] * 4)
    y_score = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.5, 0.1, 0.1, 0.1])
    assert metrics.partial_auc(y_true, y_score) == pytest.approx(0.75)
    y_score[:3] = 0.15  # three of five come late, so sensitivity 0.4 to 0.8 is worse: it does not count
    y_score[4] = 0.95
    assert metrics.partial_auc(y_true, y_score) == pytest.approx(0.75)


def test_partial_auc_of_perfection_chance_and_its_opposite() -> None:
    y_true = np.array([YES, NO] * 10)
    assert metrics.partial_auc(y_true, y_true * 1.0) == pytest.approx(1.0)
    assert metrics.partial_auc(y_true, np.full(20, 0.5)) == pytest.approx(0.1)  # ½ · 0.2² / 0.2
    assert metrics.partial_auc(y_true, 1.0 - y_true) == pytest.approx(0.0)


def test_partial_auc_with_floor_zero_is_the_whole_area() -> None:
    labels, probabilities = simulated()
    y_true, y_score = labels == MELANOMA, probabilities[:, MELANOMA].round(2)  # with ties
    assert metrics.partial_auc(y_true, y_score, floor=1e-12) == pytest.approx(metrics.roc_auc(y_true, y_score))


def test_partial_auc_matches_mcclish_on_the_mirrored_curve() -> None:
    labels, probabilities = simulated()
    y_true, y_score = labels == MELANOMA, probabilities[:, MELANOMA]
    # Mirrored, the region is fpr < 0.2, which scikit-learn rescales so that chance is ½; undo that.
    standard = reference.roc_auc_score(~y_true, 1 - y_score, max_fpr=0.2)
    area = 0.02 + (2 * standard - 1) * (0.2 - 0.02)
    assert metrics.partial_auc(y_true, y_score) == pytest.approx(area / 0.2)


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
    y_true = np.array([YES, YES, YES, NO, NO, NO, NO])
    y_pred = np.array([YES, YES, NO, YES, NO, NO, NO])
    assert metrics.operating_point(y_true, y_pred) == {
        "sensitivity": pytest.approx(2 / 3),
        "specificity": pytest.approx(3 / 4),
        "ppv": pytest.approx(2 / 3),
        "npv": pytest.approx(3 / 4),
        "f1": pytest.approx(2 / 3),
        "accuracy": pytest.approx(5 / 7),
    }


def test_what_an_operating_point_cannot_say_is_none() -> None:
    y_true, nobody = np.array([YES, NO]), np.array([NO, NO])
    all_negative = metrics.operating_point(y_true, nobody)
    assert (all_negative["ppv"], all_negative["f1"], all_negative["sensitivity"]) == (None, 0.0, 0.0)
    assert metrics.operating_point(y_true, ~nobody)["npv"] is None
    none_ill = metrics.operating_point(nobody, y_true)
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
    labels, probabilities = simulated()
    predicted, y_true = probabilities.argmax(axis=1), labels == MELANOMA
    result = evaluate(labels, probabilities)
    found = result["diagnosis"]
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(reference.f1_score(labels, predicted, average="weighted"))
    assert found["nll"] == pytest.approx(reference.log_loss(labels, probabilities))
    assert result["melanoma"]["brier"] == pytest.approx(reference.brier_score_loss(y_true, probabilities[:, MELANOMA]))
    point = result["operating_points"]["argmax"]
    assert point["threshold"] is None
    assert point["f1"] == pytest.approx(reference.f1_score(y_true, predicted == MELANOMA))
    assert point["ppv"] == pytest.approx(found["per_class"]["mel"]["precision"])


def test_thresholds_include_their_own_value() -> None:
    probabilities = np.array([[0.7, 0.3, 0, 0, 0, 0, 0], [0.71, 0.29, 0, 0, 0, 0, 0]])
    point = evaluate(np.array([MEL, NV]), probabilities)["operating_points"]["youden"]
    assert (point["threshold"], point["sensitivity"], point["specificity"]) == (0.3, 1.0, 1.0)


def test_biopsy_subset_keeps_confirmed_benign_images_only() -> None:
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
    labels, probabilities = simulated()
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
    found = result["melanoma"]
    assert found["roc_auc"] is found["pr_auc"] is found["partial_auc"] is found["histology"]["roc_auc"] is None
    assert result["n"] == {"images": len(labels), "lesions": len(labels), "melanoma": labels.count(MEL)}


def test_rounded() -> None:
    value = {"a": np.float64(1 / 3), "b": [np.int64(2), float("nan"), None], "c": -1e-9, "d": "x", "e": 3}
    assert json.dumps(metrics.rounded(value)) == ('{"a": 0.333333, "b": [2, null, null], "c": 0.0, "d": "x", "e": 3}')


def test_row_order_does_not_matter() -> None:
    labels, probabilities = simulated()
    order = np.random.default_rng(1).permutation(len(labels))
    first = metrics.rounded(evaluate(labels, probabilities.round(3)))
    assert first == metrics.rounded(evaluate(labels[order], probabilities.round(3)[order]))
    assert tuple(first["diagnosis"]["per_class"]) == CLASSES


def test_nan_is_refused_and_never_counted_as_something() -> None:
    y_true, y_score = np.array([YES, NO, NO]), np.array([0.9, np.nan, 0.1])
    for metric in (metrics.roc_auc, metrics.pr_auc, metrics.partial_auc):
        with pytest.raises(ValueError, match="NaN"):
            metric(y_true, y_score)


def test_constant_scores_and_one_image_are_defined() -> None:
    y_true, constant = np.array([YES, NO, NO, NO]), np.full(4, 0.25)
    assert metrics.roc_auc(y_true, constant) == 0.5
    assert metrics.pr_auc(y_true, constant) == 0.25  # the prevalence
    assert metrics.calibration_error(constant, y_true, 15) == 0.0
    assert metrics.calibration_error(constant, y_true, 15, equal_mass=True) == 0.0
    alone = metrics.rounded(evaluate(np.array([MEL]), one_hot(MEL)))
    assert alone["diagnosis"]["accuracy"] == 1.0 and alone["operating_points"]["youden"]["specificity"] is None

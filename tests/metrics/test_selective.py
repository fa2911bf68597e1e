"""Deferral and conformal sets against cases worked out by hand, and against crepes."""

import json

import numpy as np
import pytest
from crepes import ConformalClassifier
from helpers import simulated
from scipy.special import softmax

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.metrics import metrics, selective

NV, MEL, BKL = 0, 1, 2


def test_quantile_by_hand() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # (9 + 1) · 0.9 = 9: the ninth; (9 + 1) · 0.5 = 5: the fifth
    assert selective.quantile(scores, 0.9) == pytest.approx(0.9, abs=2e-6)
    assert selective.quantile(scores, 0.5) == pytest.approx(0.5, abs=2e-6)
    assert selective.quantile(scores, 0.91) == 1.0  # would need a tenth
    assert selective.quantile(np.array([]), 0.9) == 1.0
    assert selective.quantile(scores, 0.5) >= 0.5  # rounded towards more coverage


def test_sets_equal_those_of_crepes() -> None:
    (labels, p), (_, unseen) = simulated(1500), simulated(1500, seed=1)
    scores = 1 - p[np.arange(len(labels)), labels]
    rules = selective.fit(labels, p, 0.9, [0.8])
    marginal = ConformalClassifier().fit(scores).predict_set(1 - unseen, confidence=0.9, smoothing=False)
    np.testing.assert_array_equal(selective.sets(unseen, rules.marginal), np.asarray(marginal).astype(bool))
    for k in range(7):
        one = ConformalClassifier().fit(scores[labels == k])
        column = np.asarray(one.predict_set(1 - unseen[:, [k]], confidence=0.9, smoothing=False)).astype(bool)[:, 0]
        np.testing.assert_array_equal(selective.sets(unseen, rules.by_class)[:, k], column)


def test_coverage_is_kept_on_new_images_and_by_class() -> None:
    (labels, p), (truth, unseen) = simulated(4000), simulated(4000, seed=1)
    found = selective.measure(truth, unseen, 0.2, selective.fit(labels, p, 0.9, [0.8]))["conformal"]
    assert found["marginal"]["coverage"] == pytest.approx(0.9, abs=0.02)
    assert all(
        value == pytest.approx(0.9, abs=0.07) for value in found["class_conditional"]["coverage_by_class"].values()
    )
    assert sum(found["marginal"]["sizes"]) == pytest.approx(1)


def test_a_diagnosis_that_val_hardly_shows_stands_in_every_set() -> None:
    labels = np.array([NV] * 30 + [MEL] * 30 + [BKL] * 3)
    rules = selective.fit(labels, np.full((63, 7), 1 / 7), 0.9, [0.5])
    assert rules.by_class[BKL] == 1.0 and (rules.by_class[3:] == 1.0).all() and rules.by_class[MEL] < 1
    assert selective.sets(np.eye(7)[[NV]], rules.by_class)[0].tolist() == [True, False] + [True] * 5


def test_risk_coverage_by_hand() -> None:
    wrong = np.array([False, True, False, False])
    # from the surest: right, wrong, right, right → 0, 1/2, 1/3, 1/4
    assert selective.risk(np.array([0.9, 0.8, 0.7, 0.6]), wrong) == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    # two equals share their one error: 0, (½)/2, 1/3, 1/4
    assert selective.risk(np.array([0.9, 0.8, 0.8, 0.6]), wrong) == pytest.approx([0, 1 / 4, 1 / 3, 1 / 4])
    assert selective.risk(np.full(4, 0.5), wrong) == pytest.approx(np.full(4, 1 / 4))  # uninformative: flat


def test_area_of_one_who_knows_its_errors_has_no_excess() -> None:
    labels = np.array([NV] * 10)
    p = softmax(np.eye(7)[[NV] * 8 + [MEL] * 2] * np.array([3.0] * 8 + [1.0] * 2)[:, None], axis=1)
    rules = selective.fit(labels, p, 0.9, [0.8])
    found = selective.measure(labels, p, 0.5, rules)
    assert found["excess_aurc"] == pytest.approx(0) and found["aurc"] == pytest.approx((1 / 9 + 2 / 10) / 10)
    assert found["keep"]["0.8"]["answered"] == 0.8 and found["keep"]["0.8"]["accuracy"] == 1.0


def test_what_is_deferred_by_hand() -> None:
    labels = np.array([MEL, MEL, NV, NV])
    kept, y_pred = np.array([True, False, True, False]), np.array([True, False, False, True])
    found = selective.answered(labels, y_pred, np.array([False, True, False, True]), kept)
    assert found == {
        "answered": 0.5, "melanomas_deferred": 0.5, "accuracy": 1.0, "sensitivity": 1.0, "specificity": 1.0
    }  # fmt: skip
    nobody = selective.answered(labels, y_pred, y_pred, np.zeros(4, bool))
    assert nobody["accuracy"] is None and nobody["sensitivity"] is None and nobody["answered"] == 0


@pytest.mark.parametrize("labels", [[NV], [MEL], [MEL, MEL, NV]])
def test_degenerate_sets_have_defined_values(labels: list[int]) -> None:
    truth, constant = np.array(labels), np.full((len(labels), 7), 1 / 7)
    rules = selective.fit(truth, constant, 0.9, [0.5])
    content = metrics.rounded(selective.measure(truth, constant, 0.1, rules))
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert content["keep"]["0.5"]["answered"] == 1.0  # all alike: none can be preferred
    if MEL not in labels:
        assert content["conformal"]["marginal"]["melanomas_deferred"] is None
        assert content["conformal"]["marginal"]["coverage_by_class"]["mel"] is None


def test_rules_survive_the_file_and_foreign_content_is_refused() -> None:
    labels, p = simulated(200)
    rules = selective.fit(labels, p, 0.9, [0.9, 0.5])
    again = selective.from_text(rules.to_text(), "x.json")
    assert again.to_dict() == rules.to_dict() and tuple(again.to_dict()["conformal"]["class_conditional"]) == CLASSES
    with pytest.raises(UserError, match=r"x\.json holds no rules"):
        selective.from_dict({"conformal": {}}, "x.json")
    with pytest.raises(UserError, match="unreadable rules"):
        selective.from_text("{", "x.json")


def test_row_order_does_not_matter() -> None:
    labels, p = simulated(400)
    rules, order = selective.fit(labels, p, 0.9, [0.9]), np.random.default_rng(3).permutation(400)
    first, permuted = (selective.measure(labels[rows], p[rows], 0.2, rules) for rows in (np.arange(400), order))
    assert metrics.rounded(permuted) == metrics.rounded(first)

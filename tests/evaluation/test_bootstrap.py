"""The bootstrap: lesions stay whole, seeds decide everything, intervals are as wide as they should be."""

import time
import warnings

import numpy as np
import pytest
from helpers import simulated_lesions
from scipy.stats import binomtest
from scipy.stats import t as student

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Proportion, pr_auc, roc_auc
from dermdistill.evaluation.weighted_metrics import headline as headline_metrics
from dermdistill.metrics import metrics

BINS = 15
THRESHOLD = 0.2


def headline(labels: np.ndarray, probabilities: np.ndarray, histology: np.ndarray) -> dict:
    return headline_metrics(labels, probabilities, THRESHOLD, histology, BINS)


def test_images_of_a_lesion_are_drawn_together() -> None:
    lesions = np.array(["b", "a", "b", "c", "a", "b"])
    weights = np.concatenate(list(bootstrap.resamples(lesions, 600, seed=0)))
    assert weights.shape == (600, 6)  # more than one chunk
    assert (weights[:, [0]] == weights[:, [2, 5]]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, 0] + weights[:, 1] + weights[:, 3] == 3).all()  # as many lesions as there are
    assert len({tuple(row) for row in weights}) == 10  # all ways to draw 3 of 3


def test_lesions_make_the_interval_wider_than_images_would() -> None:
    labels, probabilities, _, _ = simulated_lesions(200)
    four_each = np.repeat(np.arange(200), 4)
    metric = {"auc": roc_auc(labels[four_each] == MELANOMA, probabilities[four_each, MELANOMA])}
    low, high = bootstrap.intervals(metric, four_each.astype(str), 1000, 0)["auc"] or (0, 0)
    naive = bootstrap.intervals(metric, np.arange(800).astype(str), 1000, 0)["auc"] or (0, 0)
    assert (high - low) / (naive[1] - naive[0]) == pytest.approx(2, rel=0.15)  # √4


def test_the_interval_of_a_proportion_is_the_binomial_one() -> None:
    event = np.arange(400) < 320
    bounds = bootstrap.intervals({"x": Proportion(event)}, np.arange(400).astype(str), 4000, 0)["x"]
    assert bounds == pytest.approx([0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02], abs=0.004)


def test_seed_decides_and_row_order_does_not() -> None:
    labels, probabilities, histology, lesions = simulated_lesions()
    order = np.random.default_rng(5).permutation(len(labels))
    first = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 0)
    again = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 0)
    mixed_metrics = headline(labels[order], probabilities[order], histology[order])
    mixed = bootstrap.intervals(mixed_metrics, lesions[order], 300, 0)
    other = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 1)
    assert first == again
    assert metrics.rounded(first) == metrics.rounded(mixed)
    assert first["melanoma.roc_auc"] != other["melanoma.roc_auc"]


def test_undefined_resamples_are_dropped_and_an_undefined_metric_has_no_interval() -> None:
    y_true, y_score = np.array([True, False, False]), np.array([0.9, 0.2, 0.1])
    lesions = np.array(["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is divided by zero on the way
        bounds = bootstrap.intervals(
            {
                "auc": roc_auc(y_true, y_score),
                "ap": pr_auc(y_true, y_score),
                "none": roc_auc(np.zeros(3, bool), y_score),
                "nobody": Proportion(y_true, among=np.zeros(3, bool)),
            },
            lesions,
            200,
            0,
        )
    assert bounds == {"auc": [1.0, 1.0], "ap": [1.0, 1.0], "none": None, "nobody": None}


def test_one_image_and_constant_scores() -> None:
    one = bootstrap.intervals(
        headline(np.array([MELANOMA]), np.eye(7)[[MELANOMA]], np.array([True])), np.array(["a"]), 10, 0
    )
    assert one["melanoma.roc_auc"] is None
    assert one["diagnosis.accuracy"] == pytest.approx([0.025, 1.0])
    y_true = np.arange(20) < 5
    constant = roc_auc(y_true, np.full(20, 0.3))
    assert bootstrap.intervals({"x": constant}, np.arange(20).astype(str), 50, 0)["x"] == [0.5, 0.5]


def test_effective_lesions() -> None:
    samples = np.random.default_rng(0).normal(size=(400, 60))  # of a mean of 60 normal values: 59 degrees of freedom
    freedom = [bootstrap.effective_lesions((row.sum() - row) / 59) for row in samples]
    assert 50 < np.median(freedom) < 70
    few = np.zeros(1000)
    few[:10] = np.random.default_rng(1).normal(size=10)  # of which ten matter
    assert 2 < bootstrap.effective_lesions(few) < 15
    assert bootstrap.effective_lesions(np.full(9, 0.3)) == np.inf
    assert bootstrap.effective_lesions(np.array([0.3, 0.2, 0.4, np.nan])) == 1.0  # all hangs on the last


def test_a_proportion_of_0_or_1_has_the_exact_bound_over_lesions() -> None:
    lesions = np.repeat([f"l{n:02d}" for n in range(25)], 3)
    among = np.arange(75) < 63  # 21 lesions
    event = np.ones(75, bool)
    proportions = {"all": Proportion(event, among), "none": Proportion(~event, among)}
    bounds = bootstrap.intervals(proportions, lesions, 50, 0)
    low, high = binomtest(21, 21).proportion_ci(0.95, "exact")
    assert bounds["all"] == pytest.approx([low, high]) and low == pytest.approx(0.839, abs=1e-3)
    assert bounds["none"] == pytest.approx([0.0, 1 - low])
    event[0] = False
    nearly_all = bootstrap.intervals({"x": Proportion(event, among)}, lesions, 500, 0)["x"]
    assert nearly_all is not None and nearly_all[1] == 1.0


def test_lesions_are_left_out_one_by_one() -> None:
    lesions = np.array([f"l{n:03d}" for n in range(300)] + ["l001"])
    rows = np.concatenate(list(bootstrap.without_each(lesions)))  # more than one chunk
    assert rows.shape == (300, 301) and (rows.sum(axis=1) == 300).sum() == 299
    assert np.flatnonzero(rows[1] == 0).tolist() == [1, 300]


def test_the_fewer_lesions_matter_the_wider_the_interval() -> None:
    resampled = np.random.default_rng(0).normal(size=20000)
    many, few = (bootstrap.BootstrapResult(0.0, resampled, np.random.default_rng(2).normal(size=n)) for n in (3000, 10))
    wide, narrow = (np.ptp(one.interval() or [0.0]) for one in (few, many))
    assert narrow == pytest.approx(2 * 1.96, rel=0.02)
    tail = student.isf(0.025, bootstrap.effective_lesions(few.left_out))
    assert wide == pytest.approx(2 * tail, rel=0.05) and wide > 2 * 2.1


def test_paired_difference() -> None:
    labels, probabilities, _, lesions = simulated_lesions(600)
    y_true, y_score = labels == MELANOMA, probabilities[:, MELANOMA]
    noise = np.random.default_rng(9).normal(size=len(y_score))
    full, near, poor = (roc_auc(y_true, s) for s in (y_score, y_score + 0.001 * noise, y_score + noise))
    assert bootstrap.paired_difference(full, full, lesions, 200, 0) == (0.0, 0.0, 0.0)
    delta, low, high = bootstrap.paired_difference(full, poor, lesions, 500, 0) or (0.0, 0.0, 0.0)
    assert low < delta < high < 0  # b is worse, clearly
    assert delta == pytest.approx(bootstrap.value(poor, lesions) - bootstrap.value(full, lesions))
    tie = bootstrap.paired_difference(full, near, lesions, 500, 0) or (0.0, 0.0, 0.0)
    alone = bootstrap.intervals({"x": full}, lesions, 500, 0)["x"] or [0.0, 0.0]
    assert tie[2] - tie[1] < (alone[1] - alone[0]) / 3  # what both share cancels
    assert bootstrap.paired_difference(roc_auc(y_true & False, y_score), full, lesions, 9, 0) is None


def test_two_thousand_resamples_of_a_holdout_take_seconds() -> None:
    labels, probabilities, histology, lesions = simulated_lesions(1500)
    start = time.process_time()
    bootstrap.intervals(headline(labels, probabilities, histology), lesions, 2000, 0)
    assert time.process_time() - start < 20  # about 1 s; the bound only tells seconds from minutes

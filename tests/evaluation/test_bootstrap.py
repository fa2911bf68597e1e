"""The bootstrap: weighted metrics are the real ones, lesions stay whole, seeds decide everything."""

import time
import warnings

import numpy as np
import pytest
from scipy.stats import binomtest
from scipy.stats import t as student
from sklearn import metrics as reference

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap
from dermdistill.metrics import metrics

BINS = 15
THRESHOLD = 0.2


def some(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """labels, probabilities (rounded: with ties), histology, lesions of one to several images."""
    random = np.random.default_rng(seed)
    lesions = np.array([f"l{number:04d}" for number in random.integers(0, count * 3 // 4, count)])
    of_lesion = {name: random.choice(7, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]) for name in np.unique(lesions)}
    labels = np.array([of_lesion[name] for name in lesions])
    logits = random.normal(size=(count, 7)) + 1.5 * np.eye(7)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(2)
    return labels, probabilities, random.random(count) < 0.5, lesions


def headline(labels: np.ndarray, probabilities: np.ndarray, histology: np.ndarray) -> dict:
    return bootstrap.headline(labels, probabilities, THRESHOLD, histology, BINS)


def of_file(labels: np.ndarray, probabilities: np.ndarray, histology: np.ndarray) -> dict[str, float]:
    """The same figures the slow way: as the metrics file has them."""
    thresholds = {"sensitivity": THRESHOLD}
    ids = np.arange(len(labels))
    nested = metrics.evaluate(labels, ids, probabilities, probabilities, thresholds, histology, BINS)

    def follow(path: str) -> float:
        found = nested
        for part in path.split("."):
            found = found[part]
        return np.nan if found is None else found  # type: ignore[return-value]

    return {path: follow(path) for path in headline(labels, probabilities, histology)}


def test_unit_weights_give_the_metrics_file() -> None:
    labels, probabilities, histology, lesions = some()
    expected = of_file(labels, probabilities, histology)
    for name, metric in headline(labels, probabilities, histology).items():
        assert bootstrap.value(metric, lesions) == pytest.approx(expected[name]), name


def test_weights_equal_literally_repeated_rows() -> None:
    labels, probabilities, histology, lesions = some(60)  # few enough for classes to go missing
    weights = next(bootstrap.resamples(lesions, 20, seed=3))
    assert ((weights @ np.eye(7)[labels]) == 0).any(axis=1).sum() > 5
    for name, metric in headline(labels, probabilities, histology).items():
        for row, fast in zip(weights.astype(int), metric(weights), strict=True):
            again = np.repeat(np.arange(len(labels)), row)
            slow = of_file(labels[again], probabilities[again], histology[again])[name]
            assert fast == pytest.approx(slow, nan_ok=True), name


def test_weights_equal_scikit_learns_sample_weights() -> None:
    labels, probabilities, _, lesions = some()
    positive, score, predicted = labels == MELANOMA, probabilities[:, MELANOMA], probabilities.argmax(axis=1)
    for row in next(bootstrap.resamples(lesions, 10, seed=1)):
        expected = {
            bootstrap.roc_auc(positive, score): reference.roc_auc_score(positive, score, sample_weight=row),
            bootstrap.pr_auc(positive, score): reference.average_precision_score(positive, score, sample_weight=row),
            bootstrap.Proportion(predicted == labels): reference.accuracy_score(labels, predicted, sample_weight=row),
            bootstrap.Proportion(predicted == MELANOMA, among=positive): reference.recall_score(
                positive, predicted == MELANOMA, sample_weight=row
            ),
        }
        for metric, truth in expected.items():
            assert metric(row[None])[0] == pytest.approx(truth)


def test_class_averages_equal_scikit_learns_when_every_class_is_drawn() -> None:
    labels, probabilities, _, lesions = some(2000)
    predicted = probabilities.argmax(axis=1)
    for row in next(bootstrap.resamples(lesions, 5, seed=1)):
        assert bootstrap.balanced_accuracy(labels, predicted)(row[None])[0] == pytest.approx(
            reference.balanced_accuracy_score(labels, predicted, sample_weight=row)
        )
        assert bootstrap.macro_f1(labels, predicted)(row[None])[0] == pytest.approx(
            reference.f1_score(labels, predicted, average="macro", sample_weight=row)
        )


def test_images_of_a_lesion_are_drawn_together() -> None:
    lesions = np.array(["b", "a", "b", "c", "a", "b"])
    drawn = np.concatenate(list(bootstrap.resamples(lesions, 600, seed=0)))
    assert drawn.shape == (600, 6)  # more than one chunk
    assert (drawn[:, [0]] == drawn[:, [2, 5]]).all() and (drawn[:, 1] == drawn[:, 4]).all()
    assert (drawn[:, 0] + drawn[:, 1] + drawn[:, 3] == 3).all()  # as many lesions as there are
    assert len({tuple(row) for row in drawn}) == 10  # all ways to draw 3 of 3


def test_lesions_make_the_interval_wider_than_images_would() -> None:
    labels, probabilities, _, _ = some(200)
    four_each = np.repeat(np.arange(200), 4)
    metric = {"auc": bootstrap.roc_auc(labels[four_each] == MELANOMA, probabilities[four_each, MELANOMA])}
    low, high = bootstrap.intervals(metric, four_each.astype(str), 1000, 0)["auc"] or (0, 0)
    naive = bootstrap.intervals(metric, np.arange(800).astype(str), 1000, 0)["auc"] or (0, 0)
    assert (high - low) / (naive[1] - naive[0]) == pytest.approx(2, rel=0.15)  # √4


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    hit = np.arange(400) < 320
    low, high = bootstrap.intervals({"x": bootstrap.Proportion(hit)}, np.arange(400).astype(str), 4000, 0)["x"] or (
        0,
        0,
    )
    assert (low, high) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.004)


def test_seed_decides_and_row_order_does_not() -> None:
    labels, probabilities, histology, lesions = some()
    order = np.random.default_rng(5).permutation(len(labels))
    first = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 0)
    again = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 0)
    mixed_metrics = headline(labels[order], probabilities[order], histology[order])
    mixed = bootstrap.intervals(mixed_metrics, lesions[order], 300, 0)
    other = bootstrap.intervals(headline(labels, probabilities, histology), lesions, 300, 1)
    assert first == again
    assert metrics.rounded(first) == metrics.rounded(mixed)
    assert first["melanoma.roc_auc"] != other["melanoma.roc_auc"]


def test_undefined_resamples_are_dropped_and_an_undefined_figure_has_no_interval() -> None:
    positive, score = np.array([True, False, False]), np.array([0.9, 0.2, 0.1])
    lesions = np.array(["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is divided by zero on the way
        bounds = bootstrap.intervals(
            {
                "auc": bootstrap.roc_auc(positive, score),
                "ap": bootstrap.pr_auc(positive, score),
                "none": bootstrap.roc_auc(np.zeros(3, bool), score),
                "nobody": bootstrap.Proportion(positive, among=np.zeros(3, bool)),
            },
            lesions,
            200,
            0,
        )
    assert bounds == {"auc": [1.0, 1.0], "ap": [1.0, 1.0], "none": None, "nobody": None}


def test_areas_need_both_sides_in_the_resample() -> None:
    positive, score = np.array([True, True, False]), np.array([0.9, 0.2, 0.1])
    weights = np.array([[1.0, 2, 0], [0, 0, 3], [1, 1, 1]])
    for metric in (bootstrap.roc_auc(positive, score), bootstrap.pr_auc(positive, score)):
        assert np.isnan(metric(weights)).tolist() == [True, True, False]


def test_one_image_and_constant_scores() -> None:
    one = bootstrap.intervals(
        headline(np.array([MELANOMA]), np.eye(7)[[MELANOMA]], np.array([True])), np.array(["a"]), 10, 0
    )
    assert one["melanoma.roc_auc"] is None
    assert one["diagnosis.accuracy"] == pytest.approx([0.025, 1.0])
    positive = np.arange(20) < 5
    constant = bootstrap.roc_auc(positive, np.full(20, 0.3))
    assert bootstrap.intervals({"x": constant}, np.arange(20).astype(str), 50, 0)["x"] == [0.5, 0.5]


def test_effective_lesions() -> None:
    drawn = np.random.default_rng(0).normal(size=(400, 60))  # of a mean of 60 normal values: 59 degrees of freedom
    freedom = [bootstrap.effective_lesions((row.sum() - row) / 59) for row in drawn]
    assert 50 < np.median(freedom) < 70
    few = np.zeros(1000)
    few[:10] = np.random.default_rng(1).normal(size=10)  # of which ten matter
    assert 2 < bootstrap.effective_lesions(few) < 15
    assert bootstrap.effective_lesions(np.full(9, 0.3)) == np.inf
    assert bootstrap.effective_lesions(np.array([0.3, 0.2, 0.4, np.nan])) == 1.0  # all hangs on the last


def test_a_share_of_all_or_none_has_the_exact_bound_over_lesions() -> None:
    lesions = np.repeat([f"l{n:02d}" for n in range(25)], 3)
    among = np.arange(75) < 63  # 21 lesions
    hit = np.ones(75, bool)
    known = {"all": bootstrap.Proportion(hit, among), "none": bootstrap.Proportion(~hit, among)}
    bounds = bootstrap.intervals(known, lesions, 50, 0)
    low, high = binomtest(21, 21).proportion_ci(0.95, "exact")
    assert bounds["all"] == pytest.approx([low, high]) and low == pytest.approx(0.839, abs=1e-3)
    assert bounds["none"] == pytest.approx([0.0, 1 - low])
    hit[0] = False
    assert (bootstrap.intervals({"x": bootstrap.Proportion(hit, among)}, lesions, 500, 0)["x"] or [0, 0])[1] == 1.0


def test_lesions_are_left_out_one_by_one() -> None:
    lesions = np.array([f"l{n:03d}" for n in range(300)] + ["l001"])
    rows = np.concatenate(list(bootstrap.without_each(lesions)))  # more than one chunk
    assert rows.shape == (300, 301) and (rows.sum(axis=1) == 300).sum() == 299
    assert np.flatnonzero(rows[1] == 0).tolist() == [1, 300]


def test_the_fewer_lesions_decide_the_wider_the_interval() -> None:
    resampled = np.random.default_rng(0).normal(size=20000)
    many, few = (bootstrap.BootstrapResult(0.0, resampled, np.random.default_rng(2).normal(size=n)) for n in (3000, 10))
    wide, narrow = (np.ptp(one.interval() or [0.0]) for one in (few, many))
    assert narrow == pytest.approx(2 * 1.96, rel=0.02)
    tail = student.isf(0.025, bootstrap.effective_lesions(few.left_out))
    assert wide == pytest.approx(2 * tail, rel=0.05) and wide > 2 * 2.1


def test_paired_difference() -> None:
    labels, probabilities, _, lesions = some(600)
    positive, score = labels == MELANOMA, probabilities[:, MELANOMA]
    noise = np.random.default_rng(9).normal(size=len(score))
    full, near, poor = (bootstrap.roc_auc(positive, s) for s in (score, score + 0.001 * noise, score + noise))
    assert bootstrap.paired_difference(full, full, lesions, 200, 0) == (0.0, 0.0, 0.0)
    delta, low, high = bootstrap.paired_difference(full, poor, lesions, 500, 0) or (0.0, 0.0, 0.0)
    assert low < delta < high < 0  # b is worse, clearly
    assert delta == pytest.approx(bootstrap.value(poor, lesions) - bootstrap.value(full, lesions))
    tie = bootstrap.paired_difference(full, near, lesions, 500, 0) or (0.0, 0.0, 0.0)
    alone = bootstrap.intervals({"x": full}, lesions, 500, 0)["x"] or [0.0, 0.0]
    assert tie[2] - tie[1] < (alone[1] - alone[0]) / 3  # what both share cancels
    assert bootstrap.paired_difference(bootstrap.roc_auc(positive & False, score), full, lesions, 9, 0) is None


def test_two_thousand_resamples_of_a_holdout_take_seconds() -> None:
    labels, probabilities, histology, lesions = some(1500)
    start = time.process_time()
    bootstrap.intervals(headline(labels, probabilities, histology), lesions, 2000, 0)
    assert time.process_time() - start < 20  # about 1 s; the bound only tells seconds from minutes

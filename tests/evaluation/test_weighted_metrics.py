"""Metrics of weights: with weights they equal the metric of literally repeated rows, and scikit-learn's."""

import numpy as np
import pytest
from helpers import simulated_lesions
from sklearn import metrics as reference

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap, weighted_metrics
from dermdistill.evaluation.weighted_metrics import Proportion, balanced_accuracy, macro_f1, pr_auc, roc_auc
from dermdistill.metrics import metrics

BINS = 15
THRESHOLD = 0.2


def headline(labels: np.ndarray, probabilities: np.ndarray, histology: np.ndarray) -> dict:
    return weighted_metrics.headline(labels, probabilities, THRESHOLD, histology, BINS)


def of_file(labels: np.ndarray, probabilities: np.ndarray, histology: np.ndarray) -> dict[str, float]:
    """The same metrics the slow way: as the metrics file has them."""
    thresholds = {"sensitivity": THRESHOLD}
    ids = np.arange(len(labels))
    nested = metrics.evaluate(labels, ids, probabilities, probabilities, thresholds, histology, BINS)

    def follow(path: str) -> float:
        value = nested
        for part in path.split("."):
            value = value[part]
        return np.nan if value is None else value  # type: ignore[return-value]

    return {path: follow(path) for path in headline(labels, probabilities, histology)}


def test_unit_weights_give_the_metrics_file() -> None:
    labels, probabilities, histology, lesions = simulated_lesions()
    expected = of_file(labels, probabilities, histology)
    for name, metric in headline(labels, probabilities, histology).items():
        assert bootstrap.value(metric, lesions) == pytest.approx(expected[name]), name


def test_weights_equal_literally_repeated_rows() -> None:
    labels, probabilities, histology, lesions = simulated_lesions(60)  # few enough for classes to go missing
    weights = next(bootstrap.resamples(lesions, 20, seed=3))
    assert ((weights @ np.eye(7)[labels]) == 0).any(axis=1).sum() > 5
    for name, metric in headline(labels, probabilities, histology).items():
        for row, fast in zip(weights.astype(int), metric(weights), strict=True):
            again = np.repeat(np.arange(len(labels)), row)
            slow = of_file(labels[again], probabilities[again], histology[again])[name]
            assert fast == pytest.approx(slow, nan_ok=True), name


def test_weights_equal_scikit_learns_sample_weights() -> None:
    labels, probabilities, _, lesions = simulated_lesions()
    y_true, y_score, predicted = labels == MELANOMA, probabilities[:, MELANOMA], probabilities.argmax(axis=1)
    for row in next(bootstrap.resamples(lesions, 10, seed=1)):
        expected = {
            roc_auc(y_true, y_score): reference.roc_auc_score(y_true, y_score, sample_weight=row),
            pr_auc(y_true, y_score): reference.average_precision_score(y_true, y_score, sample_weight=row),
            Proportion(predicted == labels): reference.accuracy_score(labels, predicted, sample_weight=row),
            Proportion(predicted == MELANOMA, among=y_true): reference.recall_score(
                y_true, predicted == MELANOMA, sample_weight=row
            ),
        }
        for metric, truth in expected.items():
            assert metric(row[None])[0] == pytest.approx(truth)


def test_class_averages_equal_scikit_learns_when_every_class_is_drawn() -> None:
    labels, probabilities, _, lesions = simulated_lesions(2000)
    predicted = probabilities.argmax(axis=1)
    for row in next(bootstrap.resamples(lesions, 5, seed=1)):
        assert balanced_accuracy(labels, predicted)(row[None])[0] == pytest.approx(
            reference.balanced_accuracy_score(labels, predicted, sample_weight=row)
        )
        assert macro_f1(labels, predicted)(row[None])[0] == pytest.approx(
            reference.f1_score(labels, predicted, average="macro", sample_weight=row)
        )


def test_areas_need_both_sides_in_the_resample() -> None:
    y_true, y_score = np.array([True, True, False]), np.array([0.9, 0.2, 0.1])
    weights = np.array([[1.0, 2, 0], [0, 0, 3], [1, 1, 1]])
    for metric in (roc_auc(y_true, y_score), pr_auc(y_true, y_score)):
        assert np.isnan(metric(weights)).tolist() == [True, True, False]

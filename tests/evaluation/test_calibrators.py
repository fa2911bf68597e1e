"""Each calibration map finds what it can express, and nothing is judged on what it was fitted on."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.isotonic import IsotonicRegression

from dermdistill.evaluation import calibrators
from dermdistill.metrics import calibration, metrics, predictions

NAMES = ["raw", "temperature", "temperature_bias", "vector", "dirichlet", "isotonic"]


def honest(count: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that are returned."""
    random = np.random.default_rng(seed)
    p = softmax(random.normal(size=(count, 7)) * 1.5 + np.log([0.5, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05]), axis=1)
    return (p.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1), p


def known(labels: np.ndarray, p: np.ndarray) -> predictions.Predictions:
    ids = np.array([f"i{n:05d}" for n in range(len(labels))])
    return predictions.Predictions(ids, np.array([f"l{n // 2:05d}" for n in range(len(labels))]), labels, p)


def test_temperature_is_undone() -> None:
    labels, p = honest()
    sharp = softmax(2.5 * np.log(p), axis=1)
    for fit in (calibrators.temperature, calibrators.temperature_bias, calibrators.vector):
        assert metrics.nll(labels, fit(labels, sharp)(sharp)) < metrics.nll(labels, p) + 0.01


def test_the_shipped_map_is_the_one_of_calibration() -> None:
    labels, p = honest(600)
    fitted = calibration.fit(labels, p, 0.95)
    np.testing.assert_allclose(calibrators.temperature_bias(labels, p)(p), fitted.apply(p), atol=1e-9)


def test_a_slope_per_diagnosis_is_found_by_the_maps_that_have_one() -> None:
    _, p = honest(3000)
    true = softmax(np.log(p) * np.array([2.0, 0.5, 1, 1, 1, 1, 1]), axis=1)
    labels = (true.cumsum(axis=1) > np.random.default_rng(9).random((3000, 1))).argmax(axis=1)
    found = {name: metrics.nll(labels, fit(labels, p)(p)) for name, fit in calibrators._methods(0.001).items()}
    for name in ("vector", "dirichlet"):
        assert found[name] < metrics.nll(labels, true) + 0.01
        assert found[name] < found["temperature_bias"] - 0.01


@pytest.mark.parametrize("name", ["temperature", "vector", "dirichlet"])
def test_the_optimum_is_one(name: str) -> None:
    """The gradient is right: no small step along a slope lowers the NLL (the penalties are off or negligible)."""
    labels, p = honest(500)
    fit = calibrators._methods(1e-9)[name]
    best = metrics.nll(labels, fit(labels, p)(p))
    for step in (0.98, 1.02):
        assert metrics.nll(labels, softmax(np.log(fit(labels, p)(p)) * step, axis=1)) > best


def test_isotonic_is_scikit_learns_normalised() -> None:
    labels, p = honest(300)
    columns = [IsotonicRegression(out_of_bounds="clip").fit(p[:, k], labels == k).predict(p[:, k]) for k in range(7)]
    expected = np.maximum(np.stack(columns, axis=1), calibrators.FLOOR)
    np.testing.assert_allclose(calibrators.isotonic(labels, p)(p), expected / expected.sum(axis=1, keepdims=True))


def test_an_image_is_judged_by_a_map_that_never_saw_its_lesion() -> None:
    labels, p = honest(60)
    known_ = known(labels, p)
    seen: list[set[str]] = []

    def spy(some: np.ndarray, q: np.ndarray) -> calibrators.Map:
        rows = {tuple(row) for row in q.tolist()}
        seen.append(
            {str(lesion) for lesion, row in zip(known_.lesion_id, p.tolist(), strict=True) if tuple(row) in rows}
        )

        def apply(unseen: np.ndarray) -> np.ndarray:
            part = {tuple(row) for row in unseen.tolist()}
            mine = {str(k) for k, row in zip(known_.lesion_id, p.tolist(), strict=True) if tuple(row) in part}
            assert not mine & seen[-1]
            return unseen

        return apply

    np.testing.assert_array_equal(calibrators.cross_validated(spy, known_, 5, 0), p)
    assert len(seen) == 5


def test_chosen_is_the_least_on_val_and_overfitting_shows() -> None:
    val, holdout = known(*honest(150)), known(*honest(1500, seed=1))
    found = calibrators.compare(val, holdout, 5, 0.03, 15, 0)
    assert list(found["methods"]) == NAMES and found["shipped"] in NAMES
    on_val = {name: one["val"]["nll"] for name, one in found["methods"].items()}
    assert found["chosen"] == min(on_val, key=lambda name: on_val[name])
    raw = found["methods"]["raw"]
    assert raw["holdout"]["nll"] == pytest.approx(metrics.nll(holdout.labels, holdout.probabilities))
    flexible = found["methods"]["isotonic"]
    assert flexible["val"]["nll"] > raw["val"]["nll"]  # nothing to gain, and 150 images to get it wrong with


def test_one_diagnosis_alone_and_certain_probabilities_stay_finite() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2] * 5)
    for fit in calibrators._methods(0.03).values():
        assert np.isfinite(fit(labels, np.eye(7)[labels])(np.eye(7))).all()

"""Calibration finds what was done to the probabilities, and its thresholds keep their promise."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import write_json
from dermdistill.errors import UserError
from dermdistill.metrics import calibration, metrics

PRIOR = np.array([0.67, 0.11, 0.11, 0.05, 0.03, 0.015, 0.015])


def honest(count: int = 6000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the very probabilities that are returned: perfectly calibrated."""
    random = np.random.default_rng(seed)
    p = softmax(random.normal(size=(count, 7)) * 1.5 + np.log(PRIOR), axis=1)
    return (p.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1), p


def test_a_calibrated_model_is_left_alone() -> None:
    labels, p = honest()
    fitted = calibration.fit(labels, p, 0.95)
    assert fitted.temperature == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(fitted.bias, 0, atol=0.3)


def test_overconfidence_is_undone_by_the_temperature() -> None:
    labels, p = honest()
    sharp = softmax(2.5 * np.log(p), axis=1)
    fitted = calibration.fit(labels, sharp, 0.95)
    assert fitted.temperature == pytest.approx(2.5, rel=0.06)
    assert fitted.val_nll["calibrated"] < fitted.val_nll["raw"] - 0.1
    assert metrics.calibration_error(fitted.apply(sharp)[:, MELANOMA], labels == MELANOMA, 15) < 0.02


def test_the_shifted_prior_of_class_weights_is_undone_by_the_biases() -> None:
    labels, p = honest()
    weights = PRIOR**-0.5
    shifted = p * weights / (p * weights).sum(axis=1, keepdims=True)
    fitted = calibration.fit(labels, shifted, 0.95)
    expected = -np.log(weights) + np.log(weights).mean()
    np.testing.assert_allclose(fitted.bias, expected, atol=0.3)  # vasc and df have some 90 images
    assert fitted.bias.sum() == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(fitted.apply(shifted).mean(axis=0), np.bincount(labels) / len(labels), atol=2e-3)
    only_temperature = calibration.Calibration(fitted.temperature, np.zeros(7), {}, {}).apply(shifted)
    assert metrics.nll(labels, only_temperature) > metrics.nll(labels, fitted.apply(shifted)) + 0.02


def test_the_optimum_is_one() -> None:
    """The gradient of the stated objective vanishes, by finite differences, where the fit stopped."""
    labels, p = honest(400)
    fitted = calibration.fit(labels, p, 0.95)

    def objective(temperature: float, bias: np.ndarray) -> float:
        scaled = calibration.Calibration(temperature, bias, {}, {}).apply(p)
        return metrics.nll(labels, scaled) + (bias**2).sum() / (2 * len(labels))

    best = objective(fitted.temperature, fitted.bias)
    for step in 1e-3 * np.vstack([np.eye(8), -np.eye(8)]):
        assert objective(fitted.temperature + step[0], fitted.bias + step[1:]) > best - 1e-9


def test_apply_by_hand() -> None:
    fitted = calibration.Calibration(2.0, np.log([1, 3, 1, 1, 1, 1, 1]), {}, {})
    p = np.array([[0.64, 0.36, 0, 0, 0, 0, 0]])  # roots 0.8 and 0.6, the second times 3
    np.testing.assert_allclose(fitted.apply(p)[0, :2], [0.8 / 2.6, 1.8 / 2.6])
    same = calibration.Calibration(1.0, np.zeros(7), {}, {})
    np.testing.assert_allclose(same.apply(p), p, atol=1e-12)


def test_sensitivity_threshold_by_hand() -> None:
    y_true = np.array([True] * 5 + [False] * 2)
    y_score = np.array([0.9, 0.7, 0.5, 0.3, 0.1, 0.6, 0.2])
    for wanted, boundary in [(0.8, 0.3), (0.61, 0.3), (0.6, 0.5), (0.2, 0.9), (1.0, 0.1), (0.01, 0.9)]:
        threshold = calibration.sensitivity_threshold(y_true, y_score, wanted)
        assert 0 < boundary - threshold < 2.1e-6
    tied = calibration.sensitivity_threshold(np.array([True] * 3), np.full(3, 0.4), 0.5)
    assert tied == pytest.approx(0.4, abs=2e-6)


def test_sensitivity_is_reached_and_no_larger_threshold_reaches_it() -> None:
    labels, p = honest(1500, seed=2)
    fitted = calibration.fit(labels, p, 0.95)
    melanoma = fitted.apply(p)[labels == MELANOMA, MELANOMA]
    threshold = fitted.thresholds["sensitivity"]
    assert (melanoma >= threshold).mean() >= 0.95
    assert (melanoma >= threshold + 2.1e-6).mean() < 0.95


def test_youden_threshold_by_hand() -> None:
    y_true = np.array([True, True, True, False, False, False])
    y_score = np.array([0.9, 0.8, 0.3, 0.5, 0.2, 0.1])
    # at 0.8: 2/3 + 1; at 0.3: 1 + 2/3: equal, and the larger threshold alarms less
    assert calibration.youden_threshold(y_true, y_score) == pytest.approx(0.8, abs=2e-6)
    y_score[3] = 0.25
    assert calibration.youden_threshold(y_true, y_score) == pytest.approx(0.3, abs=2e-6)


def test_f1_threshold_by_hand() -> None:
    y_true = np.array([True, True, True, False, False, False])
    y_score = np.array([0.9, 0.8, 0.3, 0.5, 0.2, 0.1])
    # at 0.8: 2·2/(3+2) = 0.8; at 0.3: 2·3/(3+4) = 0.857
    assert calibration.f1_threshold(y_true, y_score) == pytest.approx(0.3, abs=2e-6)
    y_score[2] = 0.15  # now 2·3/(3+5) = 0.75 there
    assert calibration.f1_threshold(y_true, y_score) == pytest.approx(0.8, abs=2e-6)


def test_a_class_absent_from_val_and_certain_probabilities_stay_finite() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2] * 5)
    fitted = calibration.fit(labels, np.eye(7)[labels], 0.95)  # separable, with zeros
    assert np.isfinite(fitted.bias).all()
    assert calibration.SHARPEST - 1e-6 <= fitted.temperature <= calibration.FLATTEST
    wrong = calibration.fit(labels, np.eye(7)[labels[::-1]], 0.95)
    assert np.isfinite(wrong.apply(np.eye(7)[labels])).all()


def test_constant_predictions_become_the_prior_of_val() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    fitted = calibration.fit(labels, np.full((1000, 7), 1 / 7), 0.95)
    calibrated = fitted.apply(np.full((1, 7), 1 / 7))[0]
    np.testing.assert_allclose(calibrated[:3], [0.6, 0.3, 0.1], atol=0.01)
    assert calibrated[3:].max() < 0.005


@pytest.mark.parametrize(("labels", "lacking"), [([0, 2, 3], "no melanoma"), ([1, 1], "no image without melanoma")])
def test_val_without_both_sides_is_refused(labels: list[int], lacking: str) -> None:
    with pytest.raises(UserError, match=lacking):
        calibration.fit(np.array(labels), np.full((len(labels), 7), 1 / 7), 0.95)


def test_deterministic_and_independent_of_row_order() -> None:
    labels, p = honest(800)
    order = np.random.default_rng(3).permutation(800)
    first, again = calibration.fit(labels, p, 0.95), calibration.fit(labels, p, 0.95)
    mixed = calibration.fit(labels[order], p[order], 0.95)
    assert first.to_dict() == again.to_dict()
    np.testing.assert_allclose(mixed.bias, first.bias, atol=1e-4)
    assert mixed.thresholds == pytest.approx(dict(first.thresholds), abs=1e-4)


def test_the_file_reproduces_every_decision(tmp_path: Path) -> None:
    labels, p = honest(800)
    fitted = calibration.fit(labels, p, 0.95)
    write_json(tmp_path / "c.json", fitted.to_dict())
    restored = calibration.read(tmp_path / "c.json")
    assert restored.to_dict() == fitted.to_dict()
    assert tuple(restored.to_dict()["bias"]) == CLASSES
    np.testing.assert_array_equal(restored.apply(p), fitted.apply(p))


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "c.json", {"temperature": 1.0, "bias": {"nv": 0}})
    with pytest.raises(UserError, match="not a calibration file"):
        calibration.read(tmp_path / "c.json")
    with pytest.raises(UserError, match="does not exist"):
        calibration.read(tmp_path / "none.json")

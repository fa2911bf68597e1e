"""Predictions for corrupted images: which images, what the file holds, and what a model's metrics lose."""

import time
from pathlib import Path

import numpy as np
import pytest

from dermdistill.core.classes import MELANOMA
from dermdistill.errors import UserError
from dermdistill.evaluation import corrupted, robustness
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from dermdistill.metrics.calibration import Calibration


def identity(threshold: float = 0.3) -> Calibration:
    return Calibration(1.0, np.zeros(7), {"sensitivity": threshold}, {})


def by_brightness(images: np.ndarray) -> np.ndarray:
    """A model that predicts melanoma for dark images."""
    dark = 1 - images.mean(axis=(1, 2, 3)) / 255
    p = np.full((len(images), 7), 0.0)
    p[:, MELANOMA], p[:, 0] = dark, 1 - dark
    return p


def grey(labels: np.ndarray) -> np.ndarray:
    random = np.random.default_rng(0)
    level = np.where(labels == MELANOMA, 60, 180) + random.integers(-20, 20, len(labels))
    return np.broadcast_to(level[:, None, None, None], (len(labels), 24, 32, 3)).astype(np.uint8)


LABELS = np.array([MELANOMA] * 6 + [0] * 14)
IDS = np.array([f"i{n}" for n in range(20)])


def study(model: corrupted.Predict) -> dict:
    return robustness.measure(corrupted.predict(model, grey(LABELS), IDS, 0), LABELS, IDS, identity(), 40, 0)


def test_a_constant_model_loses_nothing_and_moves_nothing() -> None:
    result = study(lambda images: np.full((len(images), 7), 1 / 7))
    assert result["least_moved"] == 0 and result["clean"]["roc_auc"] == 0.5
    assert result["mean_drop"]["roc_auc"] == {"drop": 0.0, "interval": [0.0, 0.0]}


def test_the_drop_is_clean_minus_the_mean_over_conditions() -> None:
    result = study(by_brightness)
    assert result["clean"]["roc_auc"] == 1.0 and set(result["conditions"]) == set(CORRUPTIONS)
    values = [row["roc_auc"] for severities in result["conditions"].values() for row in severities.values()]
    assert len(values) == len(CORRUPTIONS) * len(SEVERITIES)
    assert result["mean_drop"]["roc_auc"]["drop"] == pytest.approx(1 - np.mean(values))
    bright = [row["roc_auc"] for row in result["conditions"]["bright"].values()]
    assert result["drop_by_corruption"]["bright"]["roc_auc"] == pytest.approx(1 - np.mean(bright))
    moved = {name: result["conditions"][name]["5"]["moved"] for name in ("bright", "blur")}
    assert moved["bright"] > 0.9 and moved["blur"] == 0  # the images are uniformly grey


def test_a_dark_room_changes_decisions_of_a_model_that_looks_at_brightness() -> None:
    result = study(by_brightness)["conditions"]["dark"]["5"]
    assert result["sensitivity"] == 1.0 and result["specificity"] == 0.0


def test_images_are_chosen_by_diagnosis_and_repeat() -> None:
    labels = np.repeat(np.arange(7), [700, 100, 100, 50, 30, 15, 5])
    chosen = corrupted.choose(labels, 100, 0)
    assert np.bincount(labels[chosen]).tolist() == [70, 10, 10, 5, 3, 2, 1]
    np.testing.assert_array_equal(chosen, corrupted.choose(labels, 100, 0))
    assert (np.diff(chosen) > 0).all() and (chosen != corrupted.choose(labels, 100, 1)).any()
    assert len(corrupted.choose(labels, 5000, 0)) == 1000
    assert set(labels[corrupted.choose(labels, 3, 0)]) == set(range(7))  # none is left out


def test_the_file_gives_back_what_was_predicted_and_the_same_bytes_twice(tmp_path: Path) -> None:
    result = corrupted.predict(by_brightness, grey(LABELS), IDS, 0)
    corrupted.write(tmp_path / "a.npz", result)
    time.sleep(2.1)  # a zip's clock ticks every other second
    corrupted.write(tmp_path / "b.npz", result)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = corrupted.read(tmp_path / "a.npz")
    assert again.image_id.tolist() == IDS.tolist() and np.array_equal(again.conditions, result.conditions)
    assert np.abs(again.clean - by_brightness(grey(LABELS))).max() < 5e-4


def test_a_file_of_other_corruptions_or_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match="does not exist"):
        corrupted.read(path)
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a file of predictions"):
            corrupted.read(path)
    result = corrupted.predict(by_brightness, grey(LABELS), IDS, 0)
    corrupted.write(path, corrupted.Corrupted(IDS, result.clean, result.conditions[:-1]))
    with pytest.raises(UserError, match="other corruptions"):
        corrupted.read(path)


def test_the_mean_of_several_files_is_that_of_their_probabilities_for_the_same_images(tmp_path: Path) -> None:
    one = corrupted.predict(by_brightness, grey(LABELS), IDS, 0)
    other = corrupted.predict(lambda images: np.full((len(images), 7), 1 / 7), grey(LABELS), IDS, 0)
    for name, result in (("a", one), ("b", other)):
        corrupted.write(tmp_path / f"{name}.npz", result)
    corrupted.write_mean(tmp_path / "mean.npz", [tmp_path / "a.npz", tmp_path / "b.npz"])
    mean = corrupted.read(tmp_path / "mean.npz")
    assert np.abs(mean.conditions - (one.conditions.astype(float) + other.conditions) / 2).max() < 5e-4
    corrupted.write(tmp_path / "b.npz", corrupted.Corrupted(IDS[::-1], other.clean, other.conditions))
    with pytest.raises(UserError, match="different images"):
        corrupted.write_mean(tmp_path / "mean.npz", [tmp_path / "a.npz", tmp_path / "b.npz"])

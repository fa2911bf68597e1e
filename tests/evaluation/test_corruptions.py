"""Corruptions bite at once, grow, repeat exactly, and are counted for what they do to a model."""

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY

from dermdistill.core.classes import MELANOMA
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.evaluation import corrupted, robustness
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermdistill.metrics.calibration import Calibration
from dermdistill.phantom import phantom

MOVES = 0.05  # share of predictions that even the mildest must move


def pictures(height: int, width: int, count: int = 24) -> np.ndarray:
    """Phantom photographs (count, height, width, 3) uint8."""
    kinds = itertools.islice(itertools.cycle(("nv", "mel", "bkl", "bcc")), count)
    return np.stack([phantom.draw(np.random.default_rng(n), dx, height, width) for n, dx in enumerate(kinds)])


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The model in git, so that the test is of what ships and needs no training."""
    return Detector(REPOSITORY / "models/deploy/student.int8.onnx", threads=1)


@pytest.fixture(scope="module")
def images(detector: Detector) -> np.ndarray:
    return pictures(detector.height, detector.width)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_mildest_severity_moves_predictions(name: str, detector: Detector, images: np.ndarray) -> None:
    changed = np.stack([corrupt(image, name, 1, str(i), 0) for i, image in enumerate(images)])
    assert robustness.moved(detector.predict(images), detector.predict(changed)) > MOVES


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities_grow_keep_the_shape_and_repeat(name: str) -> None:
    image = pictures(60, 80, 1)[0]
    before, found = image.copy(), [corrupt(image, name, severity, "a", 0) for severity in SEVERITIES]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in found)
    change = [np.abs(one.astype(float) - image).mean() for one in found]
    assert change[0] > 0.2  # of 255
    if name != "rotation":  # a turned picture is not further from the original for being turned more
        assert change == sorted(change)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(corrupt(image, name, 3, "a", 0), found[2])


@pytest.mark.parametrize("name", ["noise", "hair", "rotation"])
def test_chance_depends_on_image_and_seed_alone(name: str) -> None:
    image = pictures(60, 80, 1)[0]
    first = corrupt(image, name, 4, "a", 0)
    for others in ([(key, 0) for key in "bcdefgh"], [("a", seed) for seed in range(1, 8)]):  # rotation: one of two ways
        assert any((corrupt(image, name, 4, *other) != first).any() for other in others)
    np.testing.assert_array_equal(corrupt(image, name, 4, "a", 0), first, "whatever was corrupted in between")


def test_the_mirrored_border_shows_no_black() -> None:
    white = np.full((30, 40, 3), 200, np.uint8)
    assert all((corrupt(white, "rotation", severity, "a", 0) == 200).all() for severity in SEVERITIES)


# The study of a model ------------------------------------------------------------------------------------------


def unchanged(threshold: float = 0.3) -> Calibration:
    return Calibration(1.0, np.zeros(7), {"sensitivity": threshold}, {})


def by_brightness(images: np.ndarray) -> np.ndarray:
    """A model that calls dark images melanoma."""
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
    return robustness.measure(corrupted.predict(model, grey(LABELS), IDS, 0), LABELS, IDS, unchanged(), 40, 0)


def test_a_constant_model_loses_nothing_and_moves_nothing() -> None:
    found = study(lambda images: np.full((len(images), 7), 1 / 7))
    assert found["least_moved"] == 0 and found["clean"]["roc_auc"] == 0.5
    assert found["mean_drop"]["roc_auc"] == {"drop": 0.0, "interval": [0.0, 0.0]}


def test_the_drop_is_clean_minus_the_mean_over_cells() -> None:
    found = study(by_brightness)
    assert found["clean"]["roc_auc"] == 1.0 and set(found["cells"]) == set(CORRUPTIONS)
    cells = [cell["roc_auc"] for row in found["cells"].values() for cell in row.values()]
    assert len(cells) == len(CORRUPTIONS) * len(SEVERITIES)
    assert found["mean_drop"]["roc_auc"]["drop"] == pytest.approx(1 - np.mean(cells))
    mine = [cell["roc_auc"] for cell in found["cells"]["bright"].values()]
    assert found["drop_by_corruption"]["bright"]["roc_auc"] == pytest.approx(1 - np.mean(mine))
    assert found["cells"]["bright"]["5"]["moved"] > 0.9 and found["cells"]["blur"]["5"]["moved"] == 0  # flat images


def test_a_dark_room_changes_decisions_of_a_model_that_looks_at_brightness() -> None:
    found = study(by_brightness)["cells"]["dark"]["5"]
    assert found["sensitivity"] == 1.0 and found["specificity"] == 0.0


def test_images_are_chosen_by_diagnosis_and_repeat() -> None:
    labels = np.repeat(np.arange(7), [700, 100, 100, 50, 30, 15, 5])
    chosen = corrupted.choose(labels, 100, 0)
    assert np.bincount(labels[chosen]).tolist() == [70, 10, 10, 5, 3, 2, 1]
    np.testing.assert_array_equal(chosen, corrupted.choose(labels, 100, 0))
    assert (np.diff(chosen) > 0).all() and (chosen != corrupted.choose(labels, 100, 1)).any()
    assert len(corrupted.choose(labels, 5000, 0)) == 1000
    assert set(labels[corrupted.choose(labels, 3, 0)]) == set(range(7))  # none is left out


def test_the_file_gives_back_what_was_predicted_and_the_same_bytes_twice(tmp_path: Path) -> None:
    found = corrupted.predict(by_brightness, grey(LABELS), IDS, 0)
    corrupted.write(tmp_path / "a.npz", found)
    time.sleep(2.1)  # a zip's clock ticks every other second
    corrupted.write(tmp_path / "b.npz", found)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = corrupted.read(tmp_path / "a.npz")
    assert again.image_id.tolist() == IDS.tolist() and np.array_equal(again.cells, found.cells)
    assert np.abs(again.clean - by_brightness(grey(LABELS))).max() < 5e-4


def test_a_file_of_other_corruptions_or_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(UserError, match="does not exist"):
        corrupted.read(path)
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not a file of predictions"):
            corrupted.read(path)
    found = corrupted.predict(by_brightness, grey(LABELS), IDS, 0)
    corrupted.write(path, corrupted.Corrupted(IDS, found.clean, found.cells[:-1]))
    with pytest.raises(UserError, match="other corruptions"):
        corrupted.read(path)

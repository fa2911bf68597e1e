"""Corruptions change predictions at the mildest severity, grow with it and repeat exactly."""

import itertools

import numpy as np
import pytest
from helpers import REPOSITORY

from dermdistill.deployment.runtime import Detector
from dermdistill.evaluation import robustness
from dermdistill.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from dermdistill.phantom import phantom

MOVES = 0.05  # share of predictions that even the mildest must move


def pictures(height: int, width: int, count: int = 24) -> np.ndarray:
    """Phantom photographs (count, height, width, 3) uint8."""
    kinds = itertools.islice(itertools.cycle(("nv", "mel", "bkl", "bcc")), count)
    return np.stack([phantom.draw(np.random.default_rng(n), dx, height, width) for n, dx in enumerate(kinds)])


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The model in git, so that the test is of the deployed model and needs no training."""
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
    before, result = image.copy(), [corrupt(image, name, severity, "a", 0) for severity in SEVERITIES]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in result)
    change = [np.abs(one.astype(float) - image).mean() for one in result]
    assert change[0] > 0.2  # of 255
    if name != "rotation":  # a turned picture is not further from the original for being turned more
        assert change == sorted(change)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(corrupt(image, name, 3, "a", 0), result[2])


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

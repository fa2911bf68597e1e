"""Hand-crafted features measure what their names say, and every classical model learns from them."""

from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, RunStage, change_params
from PIL import Image, ImageDraw

from dermdistill import params, presets
from dermdistill.baselines import classical, features
from dermdistill.metrics import predictions


def disc(colour: tuple[int, int, int] = (90, 50, 40), box: tuple[int, int, int, int] = (30, 20, 70, 60)) -> np.ndarray:
    image = Image.new("RGB", (100, 80), (220, 170, 150))
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    return np.asarray(image)


def test_the_segmentation_finds_the_dark_disc() -> None:
    image = disc()
    mask = features.lesion(image.mean(axis=2) / 255)
    truth = (image == (90, 50, 40)).all(axis=2)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9


def test_of_two_dark_pieces_the_central_one_is_taken() -> None:
    image = Image.fromarray(disc())
    ImageDraw.Draw(image).rectangle((0, 0, 8, 8), fill=(10, 10, 10))
    assert not features.lesion(np.asarray(image).mean(axis=2) / 255)[:8, :8].any()


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("quick", [True, False])
def test_an_empty_picture_has_finite_features(value: int, quick: bool) -> None:
    values = features.extract(np.full((60, 80, 3), value, np.uint8), quick)
    assert np.isfinite(list(values.values())).all()


def test_features_mean_what_they_are_called() -> None:
    round_, half = features.extract(disc(), False), disc().copy()
    half[:, 50:] = (220, 170, 150)  # the right half of the disc is gone
    cut = features.extract(half, False)
    assert cut["shape_area"] < round_["shape_area"] and cut["shape_eccentricity"] > round_["shape_eccentricity"] + 0.3
    assert round_["asymmetry_shape_0"] < 0.1 and round_["shape_compactness"] > cut["shape_compactness"]
    red = features.extract(disc((200, 30, 30)), False)
    assert red["rgb0_mean"] > round_["rgb0_mean"] and red["lab1_mean"] > round_["lab1_mean"]
    noise = np.clip(disc() + np.random.default_rng(0).normal(0, 20, (80, 100, 3)), 0, 255).astype(np.uint8)
    assert features.extract(noise, False)["glcm_contrast_1"] > 2 * round_["glcm_contrast_1"]
    shares = [value for name, value in round_.items() if name.startswith("lbp8_")]
    assert sum(shares) == pytest.approx(1) and len(shares) == 10


def test_quick_is_a_part_of_full_and_tables_keep_the_order() -> None:
    images = np.stack([disc(), disc((200, 30, 30))])
    (full, names), (quick, some) = (features.table(images, one) for one in (False, True))
    assert set(some) < set(names) and full.shape == (2, len(names)) and quick.dtype == np.float32
    assert full[1].tolist() == pytest.approx(list(features.extract(images[1], False).values()), rel=1e-5)


def toy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, 4], 240, p=[0.6, 0.2, 0.1, 0.1])
    return random.normal(size=(240, 6)) + 2.5 * np.eye(7)[labels][:, :6], labels


@pytest.mark.parametrize("name", ["logistic", "forest", "boosting", "svm"])
def test_every_baseline_learns_repeats_and_gives_an_unseen_diagnosis_nothing(name: str) -> None:
    settings = params.load(REPOSITORY / "params.yaml").baselines
    fewer = {"models": {"forest": {"trees": 30}, "boosting": {"rounds": 10}}}
    settings = params.Baselines.model_validate(presets.merged(settings.model_dump(), fewer))
    (x, labels), (unseen, truth) = toy(0), toy(1)
    p = classical.fit(name, x, labels, settings)(unseen)
    assert p.shape == (240, 7) and p.sum(axis=1) == pytest.approx(np.ones(240))
    assert (p.argmax(axis=1) == truth).mean() > 0.75
    assert (p[:, [3, 5, 6]] == 0).all()
    np.testing.assert_array_equal(p, classical.fit(name, x, labels, settings)(unseen))


def test_stages_write_predictions_of_val_and_holdout(project: Path, run_stage: RunStage) -> None:
    change_params(project, {"baselines.train_images": 40})
    assert run_stage("baseline", "forest", cwd=project).stderr.startswith("error: data/features")
    assert run_stage("baseline_features", cwd=project).returncode == 0
    done = run_stage("baseline", "forest", cwd=project)
    assert done.returncode == 0, done.stderr
    for part in ("val", "holdout"):
        forest = predictions.read(project / f"data/predictions/baseline_forest/{part}.csv")
        assert len(forest) > 3 and forest.probabilities.max() < 1

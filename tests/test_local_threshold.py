"""A threshold of one's own reaches its aim where it was fitted, and says honestly what it reaches elsewhere."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, environment, simulated_lesions

from dermdistill import local_threshold
from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.metrics import predictions
from dermdistill.metrics.predictions import Predictions


def drawn(count: int = 400, seed: int = 0) -> Predictions:
    labels, p, _, lesions = simulated_lesions(count, seed)
    p = np.clip(p, 1e-3, None)
    names = np.array([f"i{i:04d}" for i in range(count)])
    return predictions.build(names, lesions, np.array(CLASSES)[labels], p / p.sum(1, keepdims=True), source="here")


def test_the_threshold_is_the_highest_that_reaches_its_aim() -> None:
    shown = drawn()
    for aim in (0.8, 0.95):
        threshold = local_threshold.fit(shown, aim)["threshold"]
        scores = shown.p_melanoma[shown.melanoma]
        assert (scores >= threshold).mean() >= aim > (scores >= threshold + 2e-6).mean()


def test_no_image_is_judged_with_a_threshold_that_its_lesion_helped_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, fitted_on = drawn(), []
    original = local_threshold.sensitivity_threshold

    def spy(y_true: np.ndarray, y_score: np.ndarray, sensitivity: float) -> float:
        fitted_on.append(len(y_true))
        return original(y_true, y_score, sensitivity)

    monkeypatch.setattr(local_threshold, "sensitivity_threshold", spy)
    local_threshold.fit(shown, 0.95)
    assert len(fitted_on) == 6 and fitted_on[-1] == len(shown) and max(fitted_on[:5]) < 0.85 * len(shown)
    fold = local_threshold.by_lesion(shown)
    assert all(len(set(fold[shown.lesion_id == lesion])) == 1 for lesion in set(shown.lesion_id))
    assert sorted(len(shown) - (fold == k).sum() for k in range(5)) == sorted(fitted_on[:5])


def test_what_it_promises_is_what_it_reaches_on_new_images() -> None:
    """Over many clinics: apparent sensitivity is above the aim, the cross-validated one as that on new images."""
    promised, reached, inside = [], [], 0
    new = drawn(6000, seed=999)
    for seed in range(30):
        fitted = local_threshold.fit(drawn(300, seed), 0.9)
        value, (low, high) = fitted["cross_validated"]["sensitivity"].values()
        real = float((new.p_melanoma[new.melanoma] >= fitted["threshold"]).mean())
        promised.append(value)
        reached.append(real)
        inside += low <= real <= high
    assert np.mean(promised) == pytest.approx(np.mean(reached), abs=0.02)
    assert inside >= 25


@pytest.mark.parametrize(("count", "keep"), [(90, 40), (300, 19)])
def test_too_few_images_are_refused(count: int, keep: int) -> None:
    shown = drawn(1500)
    rows = np.concatenate([np.flatnonzero(shown.melanoma)[:keep], np.flatnonzero(~shown.melanoma)[: count - keep]])
    dx = np.array(CLASSES)[shown.labels]
    few = predictions.build(
        shown.image_id[rows], shown.lesion_id[rows], dx[rows], shown.probabilities[rows], source="here"
    )
    with pytest.raises(UserError, match=rf"{count} images with {keep} of melanoma are too few .* label at least 100"):
        local_threshold.fit(few, 0.95)


def test_predict_takes_a_threshold(tmp_path: Path) -> None:
    def answer(*arguments: str) -> dict[str, object]:
        command = [
            sys.executable,
            "-m",
            "dermdistill.cli",
            "predict",
            "models/deploy/example.jpg",
            "--json",
            *arguments,
        ]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    p = answer()["melanoma"]
    assert isinstance(p, float)
    for threshold, decision in ((p * 0.99, "refer"), (min(p * 1.01, 0.999), "no alarm")):
        row = answer("--threshold", str(threshold))
        assert (row["decision"], row["operating_point"]) == (decision, "your own")


@pytest.mark.parametrize("wrong", ["0", "1", "nan", "inf", "-0.1", "many"])
def test_a_threshold_that_is_no_probability_is_refused(wrong: str) -> None:
    for command in (["predict", "x.jpg", f"--threshold={wrong}"], ["evaluate", f"--fit-threshold={wrong}"]):
        done = subprocess.run(
            [sys.executable, "-m", "dermdistill.cli", *command], capture_output=True, text=True, env=environment()
        )
        assert done.returncode == 2 and f"needs a number between 0 and 1, not {wrong}" in done.stderr

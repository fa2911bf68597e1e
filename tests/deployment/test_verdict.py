"""What an answer is called, and why: worked out by hand on seven probabilities."""

import numpy as np
import pytest
from helpers import REPOSITORY

from dermdistill.core.files import read_json
from dermdistill.deployment import verdict
from dermdistill.metrics import selective

RULES = selective.Rules(0.9, 0.8, np.full(7, 0.9), {"0.9": 0.5})  # in the set from 0.1 on; answered from 0.5 on


def spread(mel: float, nv: float) -> np.ndarray:
    """Seven probabilities: these two, the rest shared by the other five."""
    rest = (1 - mel - nv) / 5
    return np.array([nv, mel, *[rest] * 5])


@pytest.mark.parametrize(
    ("p", "threshold", "why"),
    [
        (spread(0.8, 0.15), 0.5, []),
        (spread(0.02, 0.9), 0.05, []),
        (spread(0.3, 0.65), 0.2, []),  # two diagnoses in the set, and it agrees with the decision
        (spread(0.3, 0.4), 0.2, ["no diagnosis is likely: 40% at most, where 90% of validation reached 50%"]),
        (spread(0.07, 0.9), 0.05, ["the conformal set has no melanoma (melanocytic nevus)"]),
        (spread(0.2, 0.75), 0.3, ["the conformal set has melanoma, though its probability is below the threshold"]),
    ],
)
def test_doubt_is_deferral_or_a_set_that_contradicts_the_decision(
    p: np.ndarray, threshold: float, why: list[str]
) -> None:
    assert verdict.outcome_of(p, threshold, RULES) == ("doubt" if why else "answer", why)
    assert verdict.outcome_of(p, threshold, None) == ("answer", [])


def test_an_empty_set_is_a_doubt_and_so_is_each_reason() -> None:
    strict = selective.Rules(0.9, 0.8, np.full(7, 0.1), {"0.9": 0.5})
    outcome, reasons = verdict.outcome_of(spread(0.1, 0.4), 0.05, strict)
    assert (
        outcome == "doubt" and len(reasons) == 2 and reasons[1] == "no diagnosis is likely enough for the conformal set"
    )
    assert verdict.conformal_set(spread(0.1, 0.4), strict) == []
    assert verdict.conformal_set(spread(0.3, 0.65), RULES) == ["nv", "mel"]


def test_lesions_are_combined_by_the_rule_that_was_chosen() -> None:
    p = np.array([spread(0.1, 0.8), spread(0.5, 0.2)])
    assert read_json(REPOSITORY / "benchmarks/results/lesions.json")["chosen"] == "mean"
    np.testing.assert_allclose(verdict.combined(p), p.mean(axis=0))
    np.testing.assert_array_equal(verdict.combined(p[:1]), p[0])


def test_quality_of_flat_striped_and_coloured_pictures() -> None:
    grey = np.full((20, 30, 3), 51, np.uint8)
    assert verdict.quality(grey) == {"brightness": 0.2, "contrast": 0.0, "saturation": 0.0, "sharpness": 0.0}
    stripes = np.zeros((20, 30, 3), np.uint8)
    stripes[:, ::2] = 255
    found = verdict.quality(stripes)
    assert found["brightness"] == found["contrast"] == 0.5 and found["sharpness"] == 4.0
    red = np.zeros((20, 30, 3), np.uint8)
    red[..., 0] = 255
    assert verdict.quality(red)["saturation"] == 1.0 and verdict.quality(red)["brightness"] == 0.299

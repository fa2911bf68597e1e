"""How often do 95 % intervals hold the truth? On simulated clustered sets, where the truth is known."""

import numpy as np
import pytest
from scipy.stats import norm

from dermdistill.evaluation import uncertainty

SETS, RESAMPLES, NAIVE = 500, 300, 150  # the last: sets on which resampling images is tried too
LESIONS, SHIFT, SHARED = 400, 1.5, 0.6  # lesions a set, distance of the classes, share of variance within a lesion


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """positive, score, lesions: one to four images of a lesion, whose scores share what makes the lesion look ill."""
    random = np.random.default_rng(seed)
    lesions = np.repeat(np.arange(LESIONS), random.integers(1, 5, LESIONS))
    positive = (random.random(LESIONS) < 0.3)[lesions]
    own, common = random.normal(size=len(lesions)), random.normal(size=LESIONS)[lesions]
    return positive, SHIFT * positive + np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * own, lesions


@pytest.mark.slow
def test_intervals_of_clustered_sets_hold_the_truth_about_as_often_as_they_say() -> None:
    auc, sensitivity = norm.cdf(SHIFT / np.sqrt(2)), norm.sf(1.0 - SHIFT)
    held = {"auc": 0, "sensitivity": 0, "auc by image": 0}
    for seed in range(SETS):
        positive, score, lesions = simulated(seed)
        metrics = {
            "auc": uncertainty.roc_auc(positive, score),
            "sensitivity": uncertainty.share(score >= 1.0, positive),
        }
        found = uncertainty.intervals(metrics, lesions, RESAMPLES, seed)
        if seed < NAIVE:
            found |= uncertainty.intervals({"auc by image": metrics["auc"]}, np.arange(len(lesions)), RESAMPLES, seed)
        for name, bounds in found.items():
            assert bounds is not None
            held[name] += bounds[0] <= (sensitivity if name == "sensitivity" else auc) <= bounds[1]
    shares = {name: count / (NAIVE if name == "auc by image" else SETS) for name, count in held.items()}
    # Measured: 0.916 and 0.926. Percentile intervals are a little short at this size; the README says so.
    assert 0.90 <= shares["auc"] <= 0.97 and 0.90 <= shares["sensitivity"] <= 0.97, shares
    assert shares["auc by image"] < 0.92, shares  # what resampling images would have claimed

"""DeLong against its definition, and differences of families against what they were built to be."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from dermdistill.evaluation import bootstrap, comparison
from dermdistill.evaluation.bootstrap import BootstrapResult

LESIONS = np.array([f"l{n}" for n in np.arange(600) // 2])


def scores(seed: int = 0, count: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = np.repeat(random.random(count // 2) < 0.3, 2)
    shared = random.normal(size=count) + positive
    return positive, shared + 0.3 * random.normal(size=count), shared + 0.6 * random.normal(size=count)


def by_definition(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference and its standard error from every pair of a positive and a negative."""
    placements = []
    for score in (a, b):
        wins = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
        placements.append((wins.mean(), wins.mean(axis=1), wins.mean(axis=0)))
    variance = 0.0
    for axis, count in ((1, positive.sum()), (2, (~positive).sum())):
        variance += np.var(placements[0][axis] - placements[1][axis], ddof=1) / count
    return placements[0][0] - placements[1][0], float(np.sqrt(variance))


@pytest.mark.parametrize("decimals", [1, 8])  # 1: full of ties
def test_delong_equals_its_definition_and_the_u_statistic(decimals: int) -> None:
    positive, a, b = scores(1)
    a, b = a.round(decimals), b.round(decimals)
    found, (gap, se) = comparison.delong(positive, a, b), by_definition(positive, a, b)
    assert found is not None
    assert (found["difference"], found["se"]) == pytest.approx((gap, se))
    u = mannwhitneyu(a[positive], a[~positive]).statistic
    assert found["a"] == pytest.approx(u / (positive.sum() * (~positive).sum()))


def test_delong_by_hand() -> None:
    positive = np.array([True, True, False, False])
    a, b = np.array([4.0, 3, 2, 1]), np.array([4.0, 1, 2, 3])
    # a: all four pairs right; b: placements of the positives 1 and 0, of the negatives ½ and ½
    found = comparison.delong(positive, a, b)
    assert found is not None and (found["a"], found["b"]) == (1.0, 0.5)
    assert found["se"] == pytest.approx(np.sqrt(0.5 / 2))  # variance of (0, 1) is ½, over two positives


def test_delong_of_equals_and_of_too_little() -> None:
    positive, a, _ = scores()
    same = comparison.delong(positive, a, 3 * a + 1)  # ranks alike
    assert same is not None and (same["difference"], same["p"]) == (0.0, 1.0)
    constant = comparison.delong(positive, np.zeros(600), np.ones(600))
    assert constant is not None and (constant["a"], constant["p"]) == (0.5, 1.0)
    assert comparison.delong(np.array([True, False, False]), np.arange(3.0), np.arange(3.0)) is None
    assert comparison.delong(np.zeros(5, bool), np.arange(5.0), np.arange(5.0)) is None


def test_delong_is_honest_without_clusters_and_not_with_them() -> None:
    """False alarms at 5 % where two equal models are compared: about 5 % by image, far more with copies of images."""
    alone, copied = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        positive, noise = random.random(120) < 0.4, random.normal(size=(2, 120))
        a, b = noise + positive
        alone.append(comparison.delong(positive, a, b))
        copied.append(comparison.delong(*(np.repeat(one, 4) for one in (positive, a, b))))
    share = [np.mean([one["p"] < 0.05 for one in many if one]) for many in (alone, copied)]
    assert 0.02 < share[0] < 0.09 and share[1] > 0.2


def draw(positive: np.ndarray, score: np.ndarray) -> comparison.ModelResults:
    return bootstrap.bootstrap({"auc": bootstrap.roc_auc(positive, score)}, LESIONS, 400, 0)


def test_one_seed_is_the_paired_lesion_bootstrap() -> None:
    positive, a, _ = scores()
    b = np.random.default_rng(5).normal(size=600)  # knows nothing
    found = comparison.difference([draw(positive, a)], [draw(positive, b)], "auc", 0)
    auc_a, auc_b = (bootstrap.roc_auc(positive, one) for one in (a, b))
    wanted = bootstrap.paired_difference(auc_b, auc_a, LESIONS, 400, 0)
    assert (found["difference"], found["low"], found["high"]) == pytest.approx(wanted)
    assert found["verdict"] == "better" and found["share_above"] > 0.97
    mirrored = comparison.difference([draw(positive, b)], [draw(positive, a)], "auc", 0)
    assert mirrored["verdict"] == "worse" and mirrored["difference"] == -found["difference"]
    tie = comparison.difference([draw(positive, a)], [draw(positive, a)], "auc", 0)
    assert (tie["verdict"], tie["low"], tie["share_above"]) == ("tie", 0.0, 0.5)


def known(value: float, error: np.ndarray) -> comparison.ModelResults:
    """A model whose AUC is ``value``, and off by ``error`` (B,) on the resamples; no lesion stands out."""
    return {"auc": BootstrapResult(value, value + error, np.full(5, value))}


def test_seeds_widen_the_interval_and_their_mean_is_the_figure() -> None:
    values, same = (0.80, 0.86, 0.92), np.random.default_rng(0).normal(scale=0.01, size=4000)
    members = [known(value, same) for value in values]
    found, alone = comparison.family(members, "auc", 0), comparison.family(members[1:2], "auc", 0)
    assert found["mean"] == pytest.approx(0.86) and found["sd"] == pytest.approx(0.06) and found["seeds"] == 3
    # variance over draws of three seeds: (0.06² · 2/3) / 3, beside 0.01² of the lesions
    sd = np.sqrt(0.06**2 * 2 / 9 + 0.01**2)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * sd, rel=0.1)
    gap = comparison.difference(members[1:2], [known(0.86, np.zeros(4000))], "auc", 0)
    found_in = norm.sf((gap["high"] - gap["low"]) / 2, gap["detectable"], 0.01)  # of estimates around such a difference
    assert gap["verdict"] == "tie" and found_in == pytest.approx(0.8, abs=0.02)
    assert alone["sd"] is None and alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * 0.01, rel=0.1)


def test_seeds_are_paired_where_both_have_them() -> None:
    lesions = np.random.default_rng(0).normal(scale=0.01, size=2000)
    a = [known(v + 0.01, lesions) for v in (0.80, 0.86, 0.92)]
    b = [known(v, lesions) for v in (0.80, 0.86, 0.92)]
    found = comparison.difference(a, b, "auc", 0)  # seed by seed 0.01 better, whatever seeds are drawn
    assert (found["low"], found["high"]) == pytest.approx((0.01, 0.01)) and found["verdict"] == "better"
    teacher = comparison.difference(a, b[1:2], "auc", 0)
    assert teacher["verdict"] == "tie" and teacher["high"] - teacher["low"] > 0.05


def test_what_is_undefined_is_said_to_be() -> None:
    nobody = bootstrap.bootstrap({"auc": bootstrap.roc_auc(np.zeros(600, bool), np.arange(600.0))}, LESIONS, 20, 0)
    found = comparison.difference([nobody], [nobody], "auc", 0)
    assert found["verdict"] == "undefined" and found["difference"] is None

"""DeLong against its definition, and differences of families against what they were built to be."""

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap, comparison
from dermdistill.evaluation.bootstrap import BootstrapResult
from dermdistill.evaluation.weighted_metrics import roc_auc

LESIONS = np.array([f"l{n}" for n in np.arange(600) // 2])


def scores(seed: int = 0, count: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y_true = np.repeat(random.random(count // 2) < 0.3, 2)
    shared = random.normal(size=count) + y_true
    return y_true, shared + 0.3 * random.normal(size=count), shared + 0.6 * random.normal(size=count)


def by_definition(y_true: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference and its standard error from every pair of a positive and a negative."""
    placements = []
    for y_score in (a, b):
        wins = (y_score[y_true][:, None] > y_score[~y_true]) + 0.5 * (y_score[y_true][:, None] == y_score[~y_true])
        placements.append((wins.mean(), wins.mean(axis=1), wins.mean(axis=0)))
    variance = 0.0
    for axis, count in ((1, y_true.sum()), (2, (~y_true).sum())):
        variance += np.var(placements[0][axis] - placements[1][axis], ddof=1) / count
    return placements[0][0] - placements[1][0], float(np.sqrt(variance))


@pytest.mark.parametrize("decimals", [1, 8])  # 1: full of ties
def test_delong_equals_its_definition_and_the_u_statistic(decimals: int) -> None:
    y_true, a, b = scores(1)
    a, b = a.round(decimals), b.round(decimals)
    result, (gap, se) = comparison.delong(y_true, a, b), by_definition(y_true, a, b)
    assert result is not None
    assert (result["difference"], result["se"]) == pytest.approx((gap, se))
    u = mannwhitneyu(a[y_true], a[~y_true]).statistic
    assert result["a"] == pytest.approx(u / (y_true.sum() * (~y_true).sum()))


def test_delong_by_hand() -> None:
    y_true = np.array([True, True, False, False])
    a, b = np.array([4.0, 3, 2, 1]), np.array([4.0, 1, 2, 3])
    # a: all four pairs right; b: placements of the positives 1 and 0, of the negatives ½ and ½
    result = comparison.delong(y_true, a, b)
    assert result is not None and (result["a"], result["b"]) == (1.0, 0.5)
    assert result["se"] == pytest.approx(np.sqrt(0.5 / 2))  # variance of (0, 1) is ½, over two positives


def test_delong_of_equals_and_of_too_little() -> None:
    y_true, a, _ = scores()
    same = comparison.delong(y_true, a, 3 * a + 1)  # ranks alike
    assert same is not None and (same["difference"], same["p"]) == (0.0, 1.0)
    constant = comparison.delong(y_true, np.zeros(600), np.ones(600))
    assert constant is not None and (constant["a"], constant["p"]) == (0.5, 1.0)
    assert comparison.delong(np.array([True, False, False]), np.arange(3.0), np.arange(3.0)) is None
    assert comparison.delong(np.zeros(5, bool), np.arange(5.0), np.arange(5.0)) is None


def test_delong_is_honest_without_clusters_and_not_with_them() -> None:
    """False alarms at 5 % where two equal models are compared: about 5 % by image, far more with copies of images."""
    alone, copied = [], []
    for seed in range(300):
        random = np.random.default_rng(seed)
        y_true, noise = random.random(120) < 0.4, random.normal(size=(2, 120))
        a, b = noise + y_true
        alone.append(comparison.delong(y_true, a, b))
        copied.append(comparison.delong(*(np.repeat(one, 4) for one in (y_true, a, b))))
    share = [np.mean([one["p"] < 0.05 for one in many if one]) for many in (alone, copied)]
    assert 0.02 < share[0] < 0.09 and share[1] > 0.2


def resampled(y_true: np.ndarray, y_score: np.ndarray) -> comparison.ModelResults:
    return bootstrap.bootstrap({"auc": roc_auc(y_true, y_score)}, LESIONS, 400, 0)


def test_one_seed_is_the_paired_lesion_bootstrap() -> None:
    y_true, a, _ = scores()
    b = np.random.default_rng(5).normal(size=600)  # uninformative
    result = comparison.difference([resampled(y_true, a)], [resampled(y_true, b)], "auc", 0)
    auc_a, auc_b = (roc_auc(y_true, one) for one in (a, b))
    wanted = bootstrap.paired_difference(auc_b, auc_a, LESIONS, 400, 0)
    assert (result["difference"], result["low"], result["high"]) == pytest.approx(wanted)
    assert result["verdict"] == "better" and result["share_above"] > 0.97
    mirrored = comparison.difference([resampled(y_true, b)], [resampled(y_true, a)], "auc", 0)
    assert mirrored["verdict"] == "worse" and mirrored["difference"] == -result["difference"]
    tie = comparison.difference([resampled(y_true, a)], [resampled(y_true, a)], "auc", 0)
    assert (tie["verdict"], tie["low"], tie["share_above"]) == ("tie", 0.0, 0.5)


def made(value: float, error: np.ndarray) -> comparison.ModelResults:
    """A model whose AUC is ``value``, and off by ``error`` (B,) on the resamples; no lesion stands out."""
    return {"auc": BootstrapResult(value, value + error, np.full(5, value))}


def test_seeds_widen_the_interval_and_their_mean_is_the_value() -> None:
    values, same = (0.80, 0.86, 0.92), np.random.default_rng(0).normal(scale=0.01, size=4000)
    members = [made(value, same) for value in values]
    result, alone = comparison.family(members, "auc", 0), comparison.family(members[1:2], "auc", 0)
    assert result["mean"] == pytest.approx(0.86) and result["sd"] == pytest.approx(0.06) and result["seeds"] == 3
    # variance over draws of three seeds: (0.06² · 2/3) / 3, beside 0.01² of the lesions
    sd = np.sqrt(0.06**2 * 2 / 9 + 0.01**2)
    assert result["high"] - result["low"] == pytest.approx(2 * 1.96 * sd, rel=0.1)
    gap = comparison.difference(members[1:2], [made(0.86, np.zeros(4000))], "auc", 0)
    power = norm.sf((gap["high"] - gap["low"]) / 2, gap["detectable"], 0.01)  # share of estimates around it
    assert gap["verdict"] == "tie" and power == pytest.approx(0.8, abs=0.02)
    assert alone["sd"] is None and alone["high"] - alone["low"] == pytest.approx(2 * 1.96 * 0.01, rel=0.1)


def test_seeds_are_paired_where_both_have_them() -> None:
    lesions = np.random.default_rng(0).normal(scale=0.01, size=2000)
    a = [made(v + 0.01, lesions) for v in (0.80, 0.86, 0.92)]
    b = [made(v, lesions) for v in (0.80, 0.86, 0.92)]
    result = comparison.difference(a, b, "auc", 0)  # seed by seed 0.01 better, whatever seeds are drawn
    assert (result["low"], result["high"]) == pytest.approx((0.01, 0.01)) and result["verdict"] == "better"
    teacher = comparison.difference(a, b[1:2], "auc", 0)
    assert teacher["verdict"] == "tie" and teacher["high"] - teacher["low"] > 0.05


def test_what_is_undefined_is_said_to_be() -> None:
    undefined = {"auc": roc_auc(np.zeros(600, bool), np.arange(600.0))}
    model = bootstrap.bootstrap(undefined, LESIONS, 20, 0)
    result = comparison.difference([model], [model], "auc", 0)
    assert result["verdict"] == "undefined" and result["difference"] is None


def test_the_change_of_auc_is_paired_by_lesion() -> None:
    random = np.random.default_rng(0)
    labels, lesions = np.where(np.arange(200) % 4 == 0, MELANOMA, 0), np.arange(200) // 2

    def probabilities(y_score: np.ndarray) -> np.ndarray:
        p = np.zeros((200, 7))
        p[:, MELANOMA], p[:, 0] = y_score, 1 - y_score
        return p

    same = probabilities(np.clip((labels == MELANOMA) * 0.3 + random.random(200) * 0.7, 0, 1))
    worse = probabilities(random.random(200))
    unchanged = comparison.auc_change(labels, lesions, same, same, 50, 0)
    assert unchanged == {"auc_change": 0, "auc_low": 0, "auc_high": 0}
    changed = comparison.auc_change(labels, lesions, same, worse, 50, 0)
    low, change, high = (changed[key] for key in ("auc_low", "auc_change", "auc_high"))
    assert low is not None and change is not None and high is not None and low < change < high < 0


def test_an_undefined_auc_has_no_change() -> None:
    p = np.full((4, 7), 1 / 7)
    result = comparison.auc_change(np.zeros(4, int), np.arange(4), p, p, 10, 0)
    assert result == dict.fromkeys(("auc_change", "auc_low", "auc_high"))

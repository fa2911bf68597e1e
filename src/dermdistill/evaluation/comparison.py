"""Is A better than B: by how much, and how sure; for single models and for families of seeds.

Every model meets the same resamples of lesions, so each is drawn once and any pair is a subtraction. A *family* is
one network trained with several seeds. Its figure is the mean over seeds, and its resamples draw lesions and,
independently, seeds with replacement (the crossed bootstrap: Owen, Ann. Appl. Stat. 1:386, 2007): the interval holds
for another set of lesions *and* another training (initial weights, order of images; the teachers stay the same, and
so do the stored views they answered to). Two families trained with the same seeds share the draws of seeds,
since seed by seed they share initial weights and order of images. With one seed it is the plain lesion bootstrap and
says nothing about another training; with three it still understates it, so the standard deviation belongs beside it.

DeLong's test (DeLong, DeLong, Clarke-Pearson, Biometrics 44:837, 1988) stands beside it because readers expect it. It
takes images as independent and a model as given: with several images of one lesion its p is too small.

Absent on purpose: a correction for the number of pairs. The pairs are few, named beforehand and all shown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.bootstrap import BootstrapResult

POWER = float(norm.ppf(0.975) + norm.ppf(0.8))  # standard errors between zero and a difference found 4 times in 5
ModelResults = Mapping[str, BootstrapResult]
"""One model: each metric on the data and on resamples that it shares with the other models."""


def family(members: Sequence[ModelResults], metric: str, seed: int) -> dict[str, Any]:
    """``{seeds, mean, sd, low, high}`` of one metric; sd is None with one seed, the bounds where undefined."""
    values = np.array([one[metric].value for one in members])
    low, high = _over_seeds(members, metric, seed).interval() or (None, None)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"seeds": len(values), "mean": float(values.mean()), "sd": sd, "low": low, "high": high}


def difference(a: Sequence[ModelResults], b: Sequence[ModelResults], metric: str, seed: int) -> dict[str, Any]:
    """A minus B: ``{a, b, difference, low, high, share_above, detectable, verdict}``.

    ``share_above`` is the share of resamples in which A is the better one, equal ones counted half. ``detectable`` is
    the true difference that an interval like this would tell from zero in about 80 % of data sets, by normal quantiles:
    in fewer where few lesions decide. What a tie rules out is said by its interval.
    The verdict is "better" or "worse" only if the interval leaves out zero, else "tie"; "undefined" where a figure is.
    """
    same = len(a) == len(b)  # then the same draws of seeds for both
    one, other = _over_seeds(a, metric, seed), _over_seeds(b, metric, seed if same else seed + 1)
    gap = one.minus(other)
    bounds = gap.interval()
    if bounds is None:
        empty = dict.fromkeys(("a", "b", "difference", "low", "high", "share_above", "detectable"))
        return empty | {"verdict": "undefined"}
    gaps = gap.resampled[~np.isnan(gap.resampled)]
    above = float((gaps > 0).mean() + (gaps == 0).mean() / 2)
    verdict = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "tie"
    return {
        "a": one.value,
        "b": other.value,
        "difference": gap.value,
        "low": bounds[0],
        "high": bounds[1],
        "share_above": above,
        "detectable": POWER * float(gaps.std()),
        "verdict": verdict,
    }


def _over_seeds(members: Sequence[ModelResults], metric: str, seed: int) -> BootstrapResult:
    """The mean over seeds; on each resample of lesions, over seeds drawn with replacement."""
    drawn = [one[metric] for one in members]
    values = np.stack([one.resampled for one in drawn], axis=1)
    random = np.random.default_rng([seed, values.shape[1]])
    chosen = random.integers(0, values.shape[1], size=values.shape)
    resampled = np.take_along_axis(values, chosen, axis=1).mean(axis=1)
    mean = float(np.mean([one.value for one in drawn]))
    return BootstrapResult(mean, resampled, np.mean([one.left_out for one in drawn], axis=0))


def delong(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, float] | None:
    """``{a, b, difference, se, p}`` for two scores (N,) of the same images; None unless both sides have two images.

    By mid-ranks (Sun & Xu, IEEE Signal Process. Lett. 21:1389, 2014). Two scores that rank alike have se 0 and p 1.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        return None
    areas, of_positives, of_negatives = zip(*(_placements(positive, score) for score in (a, b)), strict=True)
    variance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    gap = areas[0] - areas[1]
    se = float(np.sqrt(max(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1], 0.0)))
    p = float(2 * norm.sf(abs(gap) / se)) if se > 1e-12 else (1.0 if abs(gap) < 1e-12 else 0.0)
    return {"a": areas[0], "b": areas[1], "difference": gap, "se": se, "p": p}


def auc_change(
    labels: np.ndarray, lesions: np.ndarray, reference: np.ndarray, other: np.ndarray, resamples: int, seed: int
) -> dict[str, float | None]:
    """Melanoma AUC of ``other`` (N, 7) minus that of ``reference``, with its paired 95 % interval by lesion."""
    y_true = labels == MELANOMA
    first, second = (bootstrap.roc_auc(y_true, p[:, MELANOMA]) for p in (reference, other))
    result = bootstrap.paired_difference(first, second, lesions, resamples, seed)
    return dict(zip(("auc_change", "auc_low", "auc_high"), result or (None, None, None), strict=True))


def _placements(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """AUC, and the share of the other side that each positive outranks and each negative is outranked by."""
    x, y = score[positive], score[~positive]
    both = rankdata(np.append(x, y))
    above = (both[: len(x)] - rankdata(x)) / len(y)
    below = 1 - (both[len(x) :] - rankdata(y)) / len(x)
    return float(above.mean()), above, below

"""Differences between models, with intervals: for single models and for families of seeds.

All models share the same resamples of lesions. Each is therefore resampled once, and any pair is a subtraction.

A *family* is one network trained with several seeds. Its value is the mean over seeds. Its resamples draw lesions and,
independently, seeds with replacement (crossed bootstrap: Owen, Ann. Appl. Stat. 1:386, 2007). The interval then covers
another set of lesions *and* another training run (initial weights, order of images; teachers and stored teacher
targets stay the same). Two families trained with the same seeds share the draws of seeds, because runs of the same seed
share initial weights and order of images. With one seed this is the plain lesion bootstrap, which does not cover
another training run. With three seeds it understates that variance, so the standard deviation is reported as well.

DeLong's test (DeLong, DeLong, Clarke-Pearson, Biometrics 44:837, 1988) is reported because readers expect it. It
assumes independent images and a fixed model. With several images of one lesion its p is too small.

Deliberately absent: a correction for the number of pairs. They are few, fixed beforehand and all reported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from dermdistill.core.classes import MELANOMA
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.bootstrap import BootstrapResult
from dermdistill.evaluation.weighted_metrics import roc_auc

POWER = float(norm.ppf(0.975) + norm.ppf(0.8))  # 80 % power at the 5 % level, in standard errors
ModelResults = Mapping[str, BootstrapResult]
"""One model: metric → its result, on resamples that all models share."""


def family(members: Sequence[ModelResults], metric: str, seed: int) -> dict[str, Any]:
    """``{seeds, mean, sd, low, high}`` of one metric over ``members``, one model per seed.

    ``sd`` is None with one seed; the bounds are None where the metric is undefined.
    """
    values = np.array([model[metric].value for model in members])
    low, high = _over_seeds(members, metric, seed).interval() or (None, None)
    sd = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"seeds": len(values), "mean": float(values.mean()), "sd": sd, "low": low, "high": high}


def difference(a: Sequence[ModelResults], b: Sequence[ModelResults], metric: str, seed: int) -> dict[str, Any]:
    """A minus B, two families: ``{a, b, difference, low, high, share_above, detectable, verdict}``.

    ``share_above`` is the proportion of resamples in which A is better, equal ones counted half. ``detectable`` is the
    difference that this comparison has 80 % power to detect, by normal quantiles; the power is lower where few lesions
    determine the metric. The verdict is "better" or "worse" if the interval excludes zero, else "tie". It is
    "undefined", and every value None, if a metric is undefined.
    """
    shared_draws = len(a) == len(b)  # of seeds
    first, second = _over_seeds(a, metric, seed), _over_seeds(b, metric, seed if shared_draws else seed + 1)
    gap = first.minus(second)
    bounds = gap.interval()
    if bounds is None:
        empty = dict.fromkeys(("a", "b", "difference", "low", "high", "share_above", "detectable"))
        return empty | {"verdict": "undefined"}
    gaps = gap.resampled[~np.isnan(gap.resampled)]
    above = float((gaps > 0).mean() + (gaps == 0).mean() / 2)
    verdict = "better" if bounds[0] > 0 else "worse" if bounds[1] < 0 else "tie"
    return {
        "a": first.value,
        "b": second.value,
        "difference": gap.value,
        "low": bounds[0],
        "high": bounds[1],
        "share_above": above,
        "detectable": POWER * float(gaps.std()),
        "verdict": verdict,
    }


def _over_seeds(members: Sequence[ModelResults], metric: str, seed: int) -> BootstrapResult:
    """The mean over seeds; on each resample of lesions, over seeds drawn with replacement."""
    results = [model[metric] for model in members]
    values = np.stack([result.resampled for result in results], axis=1)
    random = np.random.default_rng([seed, values.shape[1]])
    chosen = random.integers(0, values.shape[1], size=values.shape)
    resampled = np.take_along_axis(values, chosen, axis=1).mean(axis=1)
    mean = float(np.mean([result.value for result in results]))
    return BootstrapResult(mean, resampled, np.mean([result.left_out for result in results], axis=0))


def delong(y_true: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, float] | None:
    """AUCs of two scores ``a`` and ``b`` (N,): ``{a, b, difference, se, p}``; None unless both sides have two images.

    By mid-ranks (Sun & Xu, IEEE Signal Process. Lett. 21:1389, 2014). Equal rankings have se 0 and p 1.
    """
    m, n = int(y_true.sum()), int((~y_true).sum())
    if min(m, n) < 2:
        return None
    areas, of_positives, of_negatives = zip(*(_placements(y_true, y_score) for y_score in (a, b)), strict=True)
    variance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    gap = areas[0] - areas[1]
    se = float(np.sqrt(max(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1], 0.0)))
    p = float(2 * norm.sf(abs(gap) / se)) if se > 1e-12 else (1.0 if abs(gap) < 1e-12 else 0.0)
    return {"a": areas[0], "b": areas[1], "difference": gap, "se": se, "p": p}


def auc_change(
    labels: np.ndarray, lesions: np.ndarray, reference: np.ndarray, other: np.ndarray, resamples: int, seed: int
) -> dict[str, float | None]:
    """Melanoma AUC of ``other`` (N, 7) minus that of ``reference`` (N, 7), with its paired 95 % interval by lesion.

    All values are None if an AUC is undefined.
    """
    y_true = labels == MELANOMA
    first, second = (roc_auc(y_true, p[:, MELANOMA]) for p in (reference, other))
    result = bootstrap.paired_difference(first, second, lesions, resamples, seed)
    return dict(zip(("auc_change", "auc_low", "auc_high"), result or (None, None, None), strict=True))


def _placements(y_true: np.ndarray, y_score: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """AUC; the proportion of negatives that each positive outranks; of positives that outrank each negative."""
    x, y = y_score[y_true], y_score[~y_true]
    both = rankdata(np.append(x, y))
    above = (both[: len(x)] - rankdata(x)) / len(y)
    below = 1 - (both[len(x) :] - rankdata(y)) / len(x)
    return float(above.mean()), above, below

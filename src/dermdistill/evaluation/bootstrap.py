"""95 % intervals from a bootstrap that resamples lesions, not images.

Images of one lesion resemble each other. Resampling images one by one would count the same evidence twice and
give intervals that are too narrow. So lesions are drawn with replacement, each with all its images (cluster
bootstrap: Field & Welsh, J. R. Stat. Soc. B 69:369, 2007).

**Expanded percentiles.** The percentiles 2.5 and 97.5 have the error of a normal interval with estimated variance:
their coverage is too low when few lesions determine a metric, as melanomas do for the sensitivity. Student's t corrects
the normal interval, and its tail probabilities correct the percentiles (Hesterberg, Am. Stat. 69:371, 2015).
The degrees of freedom are Satterthwaite's (Biometrics Bull. 2:110, 1946), from the jackknife influence of each lesion.
``tests/evaluation/test_bootstrap_coverage.py`` simulates the coverage.

**Edge cases.** Resamples in which a metric is undefined (no melanoma drawn) are dropped. If a proportion is 0 or 1,
all resamples agree and carry no information; its interval is the exact one of Clopper and Pearson, over lesions. The
ECE adds absolute values, so noise raises it on the data, and more on a resample. Its interval lies too high and often
misses the true value.

The resamples depend on the seed and the set of lesions alone. Two models on the same images get the same resamples,
and the order of the rows does not matter.

Deliberately absent: BCa, whose coverage was worse in the simulation for differences and for averages over classes;
normal intervals on a logit scale, which need the range of each metric.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from dermdistill.evaluation.weighted_metrics import Metric, Proportion

CHUNK = 250  # resamples held in memory at once
LEVEL = 0.95


class BootstrapResult(NamedTuple):
    """One metric on the data, on each resample and without each lesion in turn (jackknife); NaN where undefined."""

    value: float
    resampled: np.ndarray  # (B,)
    left_out: np.ndarray  # (L,)

    def minus(self, other: "BootstrapResult") -> "BootstrapResult":
        """The difference of two results on the same resamples of the same lesions."""
        return BootstrapResult(
            self.value - other.value, self.resampled - other.resampled, self.left_out - other.left_out
        )

    def interval(self) -> list[float] | None:
        """[low, high] of the 95 % interval; None if the metric is undefined on the data or on all resamples."""
        defined = self.resampled[~np.isnan(self.resampled)]
        if np.isnan(self.value) or not len(defined):
            return None
        tail = float(norm.sf(t.isf((1 - LEVEL) / 2, effective_lesions(self.left_out))))
        return np.quantile(defined, [tail, 1 - tail]).tolist()


def effective_lesions(left_out: np.ndarray) -> float:
    """Satterthwaite's degrees of freedom of the jackknife variance: the effective number of lesions.

    Args:
        left_out: (L,) a metric without each lesion; NaN where it is undefined without one, which leaves a single one.
    """
    if np.isnan(left_out).any():
        return 1.0
    square = (left_out - left_out.mean()) ** 2
    if square.sum() < 1e-24:  # no lesion has any influence
        return np.inf
    spread = (square**2).sum() - square.sum() ** 2 / len(square)
    return float(max(2 * square.sum() ** 2 / spread, 1.0)) if spread > 0 else np.inf


def resamples(lesions: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (≤ CHUNK, N), how often each image is drawn; ``count`` rows in all, ``lesions`` (N,) ids."""
    names, index = np.unique(lesions, return_inverse=True)
    drawn = _draws(len(names), count, seed)
    for start in range(0, count, CHUNK):
        yield drawn[start : start + CHUNK, index].astype(np.float64)


@lru_cache(maxsize=2)  # every metric of every model asks for the same: those of val, and of the holdout
def _draws(lesions: int, count: int, seed: int) -> np.ndarray:
    """(count, lesions) int16: how often each lesion is drawn."""
    random, equal = np.random.default_rng(seed), np.full(lesions, 1 / lesions)
    chunks = (min(CHUNK, count - start) for start in range(0, count, CHUNK))
    return np.concatenate([random.multinomial(lesions, equal, size=size).astype(np.int16) for size in chunks])


def without_each(lesions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights (≤ CHUNK, N) of the jackknife: a row for each lesion, 0 for its images and 1 for others."""
    names, index = np.unique(lesions, return_inverse=True)
    for start in range(0, len(names), CHUNK):
        yield (index != np.arange(start, min(start + CHUNK, len(names)))[:, None]).astype(np.float64)


def bootstrap(metrics: Mapping[str, Metric], lesions: np.ndarray, count: int, seed: int) -> dict[str, BootstrapResult]:
    """Every metric on the same ``count`` resamples of ``lesions`` (N,)."""
    resampled = _values(metrics, resamples(lesions, count, seed))
    left_out = _values(metrics, without_each(lesions))
    return {
        name: BootstrapResult(value(metric, lesions), resampled[name], left_out[name])
        for name, metric in metrics.items()
    }


def _values(metrics: Mapping[str, Metric], weights: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    chunks = [{name: metric(w) for name, metric in metrics.items()} for w in weights]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in metrics}


def intervals(
    metrics: Mapping[str, Metric], lesions: np.ndarray, count: int, seed: int
) -> dict[str, list[float] | None]:
    """[low, high] of each metric over the same ``count`` resamples; None if undefined on the data."""
    return {
        name: _interval(metrics[name], result, lesions)
        for name, result in bootstrap(metrics, lesions, count, seed).items()
    }


def _interval(metric: Metric, result: BootstrapResult, lesions: np.ndarray) -> list[float] | None:
    if isinstance(metric, Proportion) and result.value in (0, 1):
        return _exact_interval(result.value, len(np.unique(lesions[metric.among])))
    return result.interval()


def _exact_interval(value: float, trials: int) -> list[float]:
    """[low, high] of a proportion that is 0 or 1 of ``trials`` (Clopper & Pearson, Biometrika 26:404, 1934)."""
    bound = ((1 - LEVEL) / 2) ** (1 / trials)
    return [bound, 1.0] if value else [0.0, 1 - bound]


def paired_difference(
    a: Metric, b: Metric, lesions: np.ndarray, count: int, seed: int
) -> tuple[float, float, float] | None:
    """b minus a on the data and its interval over shared resamples: (difference, low, high); None if undefined.

    Both metrics must be built on the same images in the same order as ``lesions`` (N,).
    """
    results = bootstrap({"a": a, "b": b}, lesions, count, seed)
    difference = results["b"].minus(results["a"])
    bounds = difference.interval()
    return None if bounds is None else (difference.value, bounds[0], bounds[1])


def value(metric: Metric, lesions: np.ndarray) -> float:
    """The metric on the data, every image counted once; ``lesions`` (N,) gives N."""
    return float(metric(np.ones((1, len(lesions))))[0])

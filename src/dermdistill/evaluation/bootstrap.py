"""How sure a figure is: 95 % intervals from a bootstrap that resamples lesions, not images.

Images of one lesion resemble each other; drawing them one by one would count the same evidence twice and
give intervals that are too narrow. So lesions are drawn with replacement and bring all their images (cluster
bootstrap: Field & Welsh, J. R. Stat. Soc. B 69:369, 2007).

The interval runs between two percentiles, but wider ones than 2.5 and 97.5: those have the error of a normal
interval with estimated variance, and miss the truth too often when few lesions decide a figure, as melanomas do
for sensitivity. As Student's t mends the normal interval, the tails are those of t (expanded percentiles: Hesterberg,
Am. Stat. 69:371, 2015). Its degrees of freedom say how many lesions really carry the figure: Satterthwaite's
(Biometrics Bull. 2:110, 1946), with the influence of each lesion from a jackknife. How often the intervals then hold
the truth is simulated in tests/test_coverage.py. Absent on purpose: BCa, which did worse there on differences and
averages over classes, and normal intervals on a logit scale, which need to know each figure's range.

A resample is never materialised. It is a row of integer weights — how often each image was drawn — and a
metric is a function from weights (B, N) to values (B,), which sorts once and then only adds. Two thousand
resamples of 1,500 images take about a second. The draws depend on the seed and the set of lesions alone,
so two models on the same images meet the same resamples, and the order of the rows does not matter.

Resamples in which a metric is undefined (no melanoma drawn) are dropped. Where a share is 0 or 1, all resamples agree
and say nothing; there the interval is the exact one of Clopper and Pearson, over lesions. The ECE adds absolute
values, so noise raises it on the data, and more so on a resample: its interval lies high, and often misses the truth.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, t

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.metrics.metrics import SENSITIVITY_FLOOR, SMALLEST, biopsy_subset, width_bins

Metric = Callable[[np.ndarray], np.ndarray]
"""Counts (B, N), how often each image is drawn → values (B,), NaN where undefined."""

CHUNK = 250  # resamples held in memory at once
LEVEL = 0.95


def resamples(lesions: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights (≤ CHUNK, N): how often each image is drawn, ``count`` rows in all."""
    names, index = np.unique(lesions, return_inverse=True)
    random = np.random.default_rng(seed)
    equal = np.full(len(names), 1 / len(names))
    for start in range(0, count, CHUNK):
        draws = random.multinomial(len(names), equal, size=min(CHUNK, count - start))
        yield draws[:, index].astype(np.float64)


def without_each(lesions: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights (≤ CHUNK, N): all images but those of one lesion, a row for each lesion."""
    names, index = np.unique(lesions, return_inverse=True)
    for start in range(0, len(names), CHUNK):
        yield (index != np.arange(start, min(start + CHUNK, len(names)))[:, None]).astype(np.float64)


class BootstrapResult(NamedTuple):
    """One figure: on the data, on each resample, and on the data without each lesion in turn; NaN where undefined."""

    value: float
    resampled: np.ndarray  # (B,)
    left_out: np.ndarray  # (L,)

    def minus(self, other: "BootstrapResult") -> "BootstrapResult":
        """The difference of two figures that met the same resamples of the same lesions."""
        return BootstrapResult(
            self.value - other.value, self.resampled - other.resampled, self.left_out - other.left_out
        )

    def interval(self) -> list[float] | None:
        """[low, high]; None if the figure is undefined on the data or on all resamples."""
        defined = self.resampled[~np.isnan(self.resampled)]
        if np.isnan(self.value) or not len(defined):
            return None
        tail = float(norm.sf(t.isf((1 - LEVEL) / 2, effective_lesions(self.left_out))))
        return np.quantile(defined, [tail, 1 - tail]).tolist()


def effective_lesions(left_out: np.ndarray) -> float:
    """Satterthwaite's degrees of freedom of the jackknife variance: about the number of lesions that matter alike.

    Args:
        left_out: (L,) a figure without each lesion; NaN where it cannot do without it, which leaves a single one.
    """
    if np.isnan(left_out).any():
        return 1.0
    square = (left_out - left_out.mean()) ** 2
    if square.sum() < 1e-24:  # no lesion matters
        return np.inf
    spread = (square**2).sum() - square.sum() ** 2 / len(square)
    return float(max(2 * square.sum() ** 2 / spread, 1.0)) if spread > 0 else np.inf


def bootstrap(metrics: dict[str, Metric], lesions: np.ndarray, count: int, seed: int) -> dict[str, BootstrapResult]:
    """Every metric on the same ``count`` resamples."""
    resampled = _values(metrics, resamples(lesions, count, seed))
    left_out = _values(metrics, without_each(lesions))
    return {
        name: BootstrapResult(value(metric, lesions), resampled[name], left_out[name])
        for name, metric in metrics.items()
    }


def _values(metrics: dict[str, Metric], weights: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    chunks = [{name: metric(w) for name, metric in metrics.items()} for w in weights]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in metrics}


def intervals(metrics: dict[str, Metric], lesions: np.ndarray, count: int, seed: int) -> dict[str, list[float] | None]:
    """[low, high] of each metric over the same ``count`` resamples; None if undefined on the data.

    Where a share is 0 or 1 all resamples agree, which is no certainty: its bound is the exact one.
    """
    return {
        name: metric.exact(drawn.value, lesions)
        if isinstance(metric := metrics[name], Proportion) and drawn.value in (0, 1)
        else drawn.interval()
        for name, drawn in bootstrap(metrics, lesions, count, seed).items()
    }


def paired_difference(
    a: Metric, b: Metric, lesions: np.ndarray, count: int, seed: int
) -> tuple[float, float, float] | None:
    """b minus a on the data and its interval over resamples that both models share: (delta, low, high).

    Both metrics must be built on the same images in the same order as ``lesions`` (N,).
    """
    drawn = bootstrap({"a": a, "b": b}, lesions, count, seed)
    gap = drawn["b"].minus(drawn["a"])
    bounds = gap.interval()
    return None if bounds is None else (gap.value, bounds[0], bounds[1])


def value(metric: Metric, lesions: np.ndarray) -> float:
    """The metric on the data themselves, every image counted once."""
    return float(metric(np.ones((1, len(lesions))))[0])


def headline(
    labels: np.ndarray, calibrated: np.ndarray, threshold: float, histology: np.ndarray, bins: int
) -> dict[str, Metric]:
    """The metrics that carry an interval, named by their path in the metrics file.

    Args: as in ``metrics.evaluate``; ``threshold`` is that of the operating point "sensitivity".
    """
    positive, score, predicted = labels == MELANOMA, calibrated[:, MELANOMA], calibrated.argmax(axis=1)
    called = score >= threshold
    return {
        "melanoma.roc_auc": roc_auc(positive, score),
        "melanoma.pr_auc": pr_auc(positive, score),
        "melanoma.partial_auc": partial_auc(positive, score),
        "melanoma.brier": mean((score - positive) ** 2),
        "melanoma.ece": calibration_error(score, positive, bins),
        "melanoma.histology.roc_auc": roc_auc(positive, score, among=biopsy_subset(labels, histology)),
        "diagnosis.nll": mean(-np.log(np.maximum(calibrated[np.arange(len(labels)), labels], SMALLEST))),
        "diagnosis.accuracy": Proportion(predicted == labels),
        "diagnosis.balanced_accuracy": balanced_accuracy(labels, predicted),
        "diagnosis.macro_f1": macro_f1(labels, predicted),
        "operating_points.sensitivity.sensitivity": Proportion(called, among=positive),
        "operating_points.sensitivity.specificity": Proportion(~called, among=~positive),
    }


def roc_auc(positive: np.ndarray, score: np.ndarray, among: np.ndarray | None = None) -> Metric:
    """Area under the ROC curve, ties counted half; ``among`` (N,) bool restricts it to a slice."""
    kept = np.arange(len(score)) if among is None else np.flatnonzero(among)
    if not len(kept):
        return lambda weights: np.full(len(weights), np.nan)
    order, starts = _ranking(score[kept])
    chosen, ill = kept[order], positive[kept[order]]

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, chosen]
        positives, negatives = (np.add.reduceat(drawn * side, starts, axis=1) for side in (ill, ~ill))
        below = negatives.cumsum(axis=1) - negatives / 2
        pairs = positives.sum(axis=1) * negatives.sum(axis=1)
        return _divide((positives * below).sum(axis=1), pairs)

    return metric


def partial_auc(positive: np.ndarray, score: np.ndarray, floor: float = SENSITIVITY_FLOOR) -> Metric:
    """Area between the ROC curve and sensitivity ``floor``, as a share of the largest possible."""
    order, starts = _ranking(-score)

    def metric(weights: np.ndarray) -> np.ndarray:
        positives, negatives = (_grouped(weights * side, order, starts) for side in (positive, ~positive))
        total, others = positives.sum(axis=1), negatives.sum(axis=1)
        rise = _divide(positives, np.broadcast_to(total[:, None], positives.shape))
        after = np.clip(np.nan_to_num(rise).cumsum(axis=1) - floor, 0, None)
        before = np.clip(after - np.nan_to_num(rise), 0, None)
        # A segment that crosses the floor counts with the part above it only.
        part = np.divide(after - before, rise, out=np.ones_like(after), where=rise > 0)
        above = (negatives * part * (before + after) / 2).sum(axis=1)
        return _divide(above / (1 - floor), np.where(total > 0, others, 0))

    return metric


def pr_auc(positive: np.ndarray, score: np.ndarray) -> Metric:
    """Average precision; undefined, as for the ROC, unless both sides are drawn."""
    order, starts = _ranking(-score)

    def metric(weights: np.ndarray) -> np.ndarray:
        positives = _grouped(weights * positive, order, starts)
        called = _grouped(weights, order, starts).cumsum(axis=1)
        precision = positives.cumsum(axis=1) / np.maximum(called, 1)  # 0 / 1 where nobody is called yet
        total = positives.sum(axis=1)
        both = total * (total < called[:, -1])
        return _divide((positives * precision).sum(axis=1), both)

    return metric


def calibration_error(confidence: np.ndarray, hit: np.ndarray, bins: int) -> Metric:
    """ECE with bins of equal width."""
    gaps = np.eye(bins)[width_bins(confidence, bins)] * (confidence - hit)[:, None]
    return lambda weights: _divide(np.abs(weights @ gaps).sum(axis=1), weights.sum(axis=1))


def mean(values: np.ndarray) -> Metric:
    """Mean of a value per image."""
    return lambda weights: _divide(weights @ values, weights.sum(axis=1))


class Proportion:
    """Proportion of images that are ``hit``: accuracy, sensitivity, specificity; ``among`` (N,) bool restricts it."""

    def __init__(self, hit: np.ndarray, among: np.ndarray | None = None) -> None:
        self.among = np.ones(len(hit), bool) if among is None else among
        self._hits, self._kept = (hit & self.among).astype(float), self.among.astype(float)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return _divide(weights @ self._hits, weights @ self._kept)

    def exact(self, value: float, lesions: np.ndarray) -> list[float]:
        """[low, high] of a share that is 0 or 1, each lesion one trial (Clopper & Pearson, Biometrika 26:404, 1934)."""
        bound = ((1 - LEVEL) / 2) ** (1 / len(np.unique(lesions[self.among])))
        return [bound, 1.0] if value else [0.0, 1 - bound]


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Mean recall of the classes drawn."""
    truth, _, hits = _by_class(labels, predicted)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ truth
        return _mean_over(_divide(weights @ hits, drawn), drawn > 0)

    return metric


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Mean F1 of the classes drawn."""
    truth, called, hits = _by_class(labels, predicted)

    def metric(weights: np.ndarray) -> np.ndarray:
        drawn = weights @ truth
        return _mean_over(_divide(2 * (weights @ hits), drawn + weights @ called), drawn > 0)

    return metric


def _ranking(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending order, and where in it each new value starts."""
    order = np.argsort(score, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(score[order]) > 0))


def _grouped(weights: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Weights summed over images of equal score: (B, N) → (B, number of different scores)."""
    return np.add.reduceat(weights[:, order], starts, axis=1)


def _by_class(labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    one_hot = np.eye(len(CLASSES))
    return one_hot[labels], one_hot[predicted], one_hot[labels] * (labels == predicted)[:, None]


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def _mean_over(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return _divide(np.where(kept, values, 0.0).sum(axis=1), kept.sum(axis=1))

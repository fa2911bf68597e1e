"""Where the models err and disagree: confusion, change by diagnosis, confidence, agreement (``plots/errors``).

Predictions in, figures out: no file is read here and no metric computed (``evaluation.errors`` does). Diverging colours
are matplotlib's PuOr, which is told apart with any colour vision.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.evaluation import errors
from dermdistill.evaluation.cases import Evaluated
from dermdistill.reporting import style

COMPARED = ("student", "int8")  # roles that are compared with the teacher
FIGURES = (
    "per_class",
    "confidence",
    *(f"agreement_{role}" for role in COMPARED),
    *(f"confusion_{role}" for role in ("teacher", *COMPARED)),
    *(f"confusion_difference_{role}" for role in COMPARED),
)
DELTAS = {"delta_f1": "ΔF1", "relative_delta_f1": "ΔF1 / F1 of teacher", "delta_recall": "Δrecall"}


def draw(evaluated: Mapping[str, Evaluated], change: pd.DataFrame) -> dict[str, Figure]:
    """The :data:`FIGURES`; ``evaluated``: role → model, ``change`` as of ``cases.per_class``."""
    tables = {role: errors.confusion(one.predictions.labels, one.predicted) for role, one in evaluated.items()}
    figures = {
        f"confusion_{role}": confusion(
            table["count"].to_numpy().reshape(len(CLASSES), -1).tolist(), CLASSES, f"{evaluated[role].model}, holdout"
        )
        for role, table in tables.items()
    }
    sure = {
        one.model: (one.calibrated.max(axis=1), one.predicted == one.predictions.labels) for one in evaluated.values()
    }
    teacher = evaluated["teacher"]
    for role in COMPARED:
        one = evaluated[role]
        gap = errors.confusion_change(tables["teacher"], tables[role])
        title = f"{one.model} − {teacher.model}, percentage points"
        figures[f"confusion_difference_{role}"] = confusion_difference(gap, CLASSES, title)
        a, b = ((side.model, side.p_melanoma, side.threshold) for side in (teacher, one))
        figures[f"agreement_{role}"] = agreement(a, b, teacher.predictions.melanoma, "Each image, holdout")
    figures["per_class"] = per_class(change, "F1 by diagnosis, holdout")
    return figures | {"confidence": confidence(sure, "How sure the models are, holdout")}


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """Counts, shaded by the share of each true class (rows sum to 100 %)."""
    counts = np.asarray(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    texts = [
        [f"{count:.0f}\n{100 * share:.0f} %" if count else "0" for count, share in zip(*rows, strict=True)]
        for rows in zip(counts, shares, strict=True)
    ]
    return _grid(shares, texts, classes, title, cmap="Blues", low=0, high=1)


def confusion_difference(shares: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Change of each share of a true class in percentage points, (7, 7); the diagonal is the change of recall."""
    texts = [[_points(value) for value in row] for row in shares]
    reach = max(float(np.nanmax(np.abs(shares))), 0.01)
    return _grid(shares, texts, classes, title, cmap="PuOr", low=-reach, high=reach)


def _points(share: float) -> str:
    if np.isnan(share):
        return "–"
    return "0" if abs(share) < 0.005 else f"{100 * share:+.0f}".replace("-", "−")


def _grid(
    values: np.ndarray, texts: list[list[str]], classes: Sequence[str], title: str, cmap: str, low: float, high: float
) -> Figure:
    figure, axes = style.single(5.2)
    axes.grid(False)
    axes.imshow(values, cmap=cmap, vmin=low, vmax=high)
    for row, column in np.ndindex(*values.shape):
        dark = max(values[row, column] / high, values[row, column] / low if low else 0) > 0.55
        shade = "white" if dark else "#222222"
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="diagnosis given by the model", ylabel="diagnosis on record", title=title)
    return figure


def per_class(change: pd.DataFrame, title: str) -> Figure:
    """F1 per diagnosis, and below what each model lost or gained against the first.

    Args:
        change: as ``errors.per_class_change``, with ``model_a`` (one model) and ``model_b`` beside every row.
    """
    figure = style.new(9.2)
    rows = figure.subplots(4, 1, sharex=True, height_ratios=[1.3, 1, 1, 1])
    diagnoses, others = list(change["dx"].unique()), list(change["model_b"].unique())
    reference = str(change["model_a"].iloc[0])
    place, width = np.arange(len(diagnoses)), 0.8 / (len(others) + 1)
    tables = {model: change[change["model_b"] == model].set_index("dx").reindex(diagnoses) for model in others}
    bars = {reference: tables[others[0]]["f1_a"]} | {model: table["f1_b"] for model, table in tables.items()}
    for index, (model, values) in enumerate(bars.items()):
        shift = place + (index - len(others) / 2) * width
        rows[0].bar(shift, values, width, color=style.color(model), label=model)
        for axes, column in zip(rows[1:], DELTAS, strict=True):
            if model != reference:
                axes.bar(shift, tables[model][column], width, color=style.color(model))
    rows[0].set(title=title, ylabel="F1", ylim=(0, 1.0))
    for axes, label in zip(rows[1:], DELTAS.values(), strict=True):
        axes.axhline(0, color="#3A3A3A", linewidth=0.8)
        axes.set(ylabel=label)
    rows[-1].set_xticks(place, diagnoses)
    for axes in rows:
        axes.grid(False, axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def confidence(confidences: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """How sure each model is of its diagnosis, where it was right and where it was wrong.

    Args:
        confidences: per model the largest probability (N,) and whether that diagnosis was right (N,).
    """
    figure = style.new(1.0 + 1.55 * len(confidences))
    rows = np.atleast_1d(figure.subplots(len(confidences), 1, sharex=True))
    bins = np.linspace(0, 1, 26).tolist()
    for axes, (model, (sure, right)) in zip(rows, confidences.items(), strict=True):
        axes.hist(sure[right], bins=bins, color=style.BLUE, alpha=0.85, label="right")
        axes.hist(sure[~right], bins=bins, histtype="step", color=style.ORANGE, linewidth=2, label="wrong")
        axes.set(ylabel="images", yscale="log")
        axes.text(0.01, 0.86, model, transform=axes.transAxes, fontsize=9)
    rows[0].set_title(title)
    rows[0].legend(loc="upper center", ncols=2)
    rows[-1].set_xlabel("probability of the diagnosis given")
    return figure


def agreement(
    first: tuple[str, np.ndarray, float], second: tuple[str, np.ndarray, float], melanoma: np.ndarray, title: str
) -> Figure:
    """Every image by the probability of melanoma that two models give it; lines: their thresholds.

    Args:
        first: model, P(melanoma) (N,), threshold; likewise ``second``.
        melanoma: (N,) bool, on record.
    """
    figure, axes = style.single(5.4)
    least = 1e-3
    for kind, name, shade, marker in ((~melanoma, "other", style.BLUE, "o"), (melanoma, "melanoma", style.ORANGE, "^")):
        x, y = (np.maximum(one[1][kind], least) for one in (first, second))
        axes.scatter(x, y, s=16, color=shade, marker=marker, alpha=0.45, linewidths=0, label=name)
    axes.axvline(first[2], color="#3A3A3A", linewidth=1, linestyle="--")
    axes.axhline(second[2], color="#3A3A3A", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=(0.8 * least, 1.15), ylim=(0.8 * least, 1.15), title=title)
    axes.set(xlabel=f"P(melanoma) by {first[0]}, logarithmic", ylabel=f"P(melanoma) by {second[0]}, logarithmic")
    axes.legend(loc="upper left")
    return figure

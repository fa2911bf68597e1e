"""Figures in one style: colour-blind safe, readable in print and on a phone, the same bytes every time.

Each function turns tables into a :class:`matplotlib.figure.Figure`; :func:`save` writes it. The colour
says what kind of model it is (teacher, student, control, INT8), the line's style which network; a
control is always dashed or hollow beside its student. Figures are about as wide as a column so that their
text stays legible at 390 pixels.

Deliberately absent: pyplot and its global state, any metric (those are computed in ``evaluation``), and
dates or versions inside the files, which would change their hash without changing the picture.

Colours: Okabe & Ito, "Color Universal Design" (2008).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermdistill.files import atomic

COLORS = {"teacher": "#0072B2", "student": "#D55E00", "control": "#6B6B6B", "int8": "#009E73", "baseline": "#A68A00"}
MARKERS = {"teacher": "s", "student": "o", "control": "D", "int8": "^", "baseline": "v"}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#6B6B6B"
WIDTH = 5.6  # inches

matplotlib.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": "#8A8A8A",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 10.5,
        "axes.titleweight": "bold",
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
        "font.size": 9.5,
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "savefig.dpi": 144,
        "svg.hashsalt": "dermdistill",
    }
)


class Interval(NamedTuple):
    """One row of a forest plot; ``low`` and ``high`` bound the 95 % interval and may be None."""

    model: str
    value: float | None
    low: float | None
    high: float | None


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG or SVG, by suffix, without date or version."""
    stamps = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    with atomic(path) as temporary:
        figure.savefig(temporary, metadata=stamps[Path(path).suffix])


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), layout="constrained")


def color(model: str) -> str:
    return COLORS.get(model.split("_")[0], "#CC79A7")


def line_styles(models: Sequence[str]) -> dict[str, Any]:
    """A line style per network within each kind of model; controls are always dashed."""
    solid, dashed = ["-", (0, (6, 1.2, 1, 1.2)), (0, (9, 1.5))], [(0, (3, 1.5)), (0, (1, 1.2)), (0, (2, 3))]
    seen: dict[str, int] = {}
    styles = {}
    for model in models:
        kind = model.split("_")[0]
        styles[model] = (dashed if kind == "control" else solid)[seen.get(kind, 0) % 3]
        seen[kind] = seen.get(kind, 0) + 1
    return styles


def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and melanoma AUC on val by epoch, one line per trained model.

    Args:
        histories: per model the columns ``epoch, train_loss, val_loss, val_melanoma_auc, …``.
    """
    figure = _figure(5.8)
    axes = figure.subplots(2, 1, sharex=True)
    dashes = line_styles(list(histories))
    for model, history in histories.items():
        style: dict[str, Any] = {"color": color(model), "linestyle": dashes[model]}
        axes[0].plot(history["epoch"], history["val_loss"], label=model, **style)
        axes[1].plot(history["epoch"], history["val_melanoma_auc"], **style)
    axes[0].set(title="Loss on validation (each by its own objective)", ylabel="loss")
    axes[1].set(title="Melanoma ROC-AUC on validation", ylabel="ROC-AUC", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def roc(curves: Mapping[str, pd.DataFrame], points: Mapping[str, tuple[float, float]]) -> Figure:
    """ROC curves and operating points.

    Args:
        curves: per model the columns ``fpr, tpr``.
        points: per model the (sensitivity, specificity) reached at the operating point that ships.
    """
    figure = _figure(5.2)
    axes = figure.subplots()
    dashes = line_styles(list(curves))
    axes.plot([0, 1], [0, 1], color="#B5B5B5", linewidth=1, linestyle=":")
    for model, curve in curves.items():
        axes.plot(curve["fpr"], curve["tpr"], color=color(model), linestyle=dashes[model], label=model)
    for model, (sensitivity, specificity) in points.items():
        _mark(axes, model, 1 - specificity, sensitivity)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="lower right", title="marks: operating point", title_fontsize=8.5)
    return figure


def precision_recall(
    curves: Mapping[str, pd.DataFrame], points: Mapping[str, tuple[float, float]], prevalence: float
) -> Figure:
    """Precision–recall curves; ``points`` gives (recall, precision) at the operating point that ships."""
    figure = _figure(5.2)
    axes = figure.subplots()
    dashes = line_styles(list(curves))
    axes.axhline(prevalence, color="#B5B5B5", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.2f}")
    for model, curve in curves.items():
        axes.plot(curve["recall"], curve["precision"], color=color(model), linestyle=dashes[model], label=model,
                  drawstyle="steps-post")  # fmt: skip
    for model, (recall, precision) in points.items():
        _mark(axes, model, recall, precision)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="upper right")
    return figure


def _mark(axes: Axes, model: str, x: float, y: float) -> None:
    marker = MARKERS.get(model.split("_")[0], "o")
    axes.plot(x, y, marker=marker, color=color(model), markersize=8, markeredgecolor="white", zorder=5)


def reliability(table: pd.DataFrame, title: str) -> Figure:
    """Stated probability of melanoma against the share that were melanoma, with the count of images below.

    Args:
        table: columns ``confidence, frequency, count``, one row per bin; empty bins are skipped.
    """
    filled = table[table["count"] > 0]
    figure = _figure(5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#B5B5B5", linestyle=":", linewidth=1, label="perfect calibration")
    error = np.sqrt(filled["frequency"] * (1 - filled["frequency"]) / filled["count"])
    upper.errorbar(filled["confidence"], filled["frequency"], yerr=error, color=BLUE, marker="o", capsize=2.5,
                   elinewidth=1, label="observed ± standard error")  # fmt: skip
    upper.set(ylabel="share that were melanoma", ylim=(-0.03, 1.03), title=title)
    upper.legend(loc="upper left")
    lower.bar(filled["confidence"], filled["count"], width=0.03, color=BLUE)
    lower.set(yscale="log", ylabel="images", xlabel="calibrated probability of melanoma", xlim=(-0.02, 1.02))
    return figure


def threshold(table: pd.DataFrame, chosen: Mapping[str, float], title: str) -> Figure:
    """Sensitivity, specificity and F1 by threshold on P(melanoma), with the ``chosen`` thresholds."""
    figure = _figure(4.4)
    axes = figure.subplots()
    for column, shade, dash in (("sensitivity", ORANGE, "-"), ("specificity", BLUE, "--"), ("f1", "#009E73", "-.")):
        axes.plot(table["threshold"], table[column], color=shade, linestyle=dash, label=column.replace("f1", "F1"))
    for name, value in chosen.items():
        axes.axvline(value, color="#3A3A3A", linewidth=1)
        axes.text(value, 1.04, f" {name}", rotation=35, fontsize=8, va="bottom")
    low = max(float(table["threshold"].replace(0, np.nan).min()), 1e-4)
    axes.set(xscale="log", xlim=(low, 1), ylim=(0, 1.03), xlabel="threshold on P(melanoma), logarithmic")
    axes.set_title(title, pad=42)
    axes.legend(loc="center left")
    return figure


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], title: str) -> Figure:
    """Counts, shaded by the share of each true class (rows sum to 100 %)."""
    counts = np.asarray(matrix, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(5.2)
    axes = figure.subplots()
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        text = f"{counts[row, column]:.0f}\n{100 * shares[row, column]:.0f} %" if counts[row, column] else "0"
        axes.text(column, row, text, ha="center", va="center", fontsize=8,
                  color="white" if shares[row, column] > 0.55 else "#222222")  # fmt: skip
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="diagnosis given by the model", ylabel="diagnosis on record", title=title)
    return figure


def comparison(rows: Sequence[Interval], xlabel: str, title: str) -> Figure:
    """Forest plot: one model per line, point and 95 % interval; a model without a value is left blank."""
    figure = _figure(1.1 + 0.36 * len(rows))
    axes = figure.subplots()
    for place, (model, value, low, high) in enumerate(reversed(rows)):
        if value is None:
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=color(model), linewidth=2, solid_capstyle="butt")
        hollow = model.startswith("control")
        axes.plot(value, place, marker=MARKERS.get(model.split("_")[0], "o"), color=color(model), markersize=7,
                  markerfacecolor="white" if hollow else color(model))  # fmt: skip
        axes.annotate(f"{value:.3f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.model for row in reversed(rows)])
    axes.set(xlabel=xlabel, title=title, ylim=(-0.5, len(rows) - 0.3))
    axes.grid(False, axis="y")
    return figure


def per_class(scores: pd.DataFrame, title: str) -> Figure:
    """F1 per diagnosis for each model, and the change against the first one below.

    Args:
        scores: one row per diagnosis, one column per model (first: the reference), F1 or NaN.
    """
    figure = _figure(5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.4, 1])
    place = np.arange(len(scores))
    width = 0.8 / scores.shape[1]
    reference = scores.columns[0]
    for index, model in enumerate(scores.columns):
        shift = place + (index - (scores.shape[1] - 1) / 2) * width
        upper.bar(shift, scores[model], width, color=color(model), label=model)
        if model != reference:
            lower.bar(shift, scores[model] - scores[reference], width, color=color(model))
    lower.axhline(0, color="#3A3A3A", linewidth=0.8)
    upper.set(title=title, ylabel="F1", ylim=(0, 1.0))
    lower.set(ylabel="ΔF1 to teacher")
    lower.set_xticks(place, list(scores.index))
    for axes in (upper, lower):
        axes.grid(False, axis="x")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def confidence(confidences: Mapping[str, tuple[np.ndarray, np.ndarray]], title: str) -> Figure:
    """How sure each model is of its diagnosis, where it was right and where it was wrong.

    Args:
        confidences: per model the largest probability (N,) and whether that diagnosis was right (N,).
    """
    figure = _figure(1.0 + 1.55 * len(confidences))
    rows = np.atleast_1d(figure.subplots(len(confidences), 1, sharex=True))
    bins = np.linspace(0, 1, 26).tolist()
    for axes, (model, (sure, right)) in zip(rows, confidences.items(), strict=True):
        axes.hist(sure[right], bins=bins, color=BLUE, alpha=0.85, label="right")
        axes.hist(sure[~right], bins=bins, histtype="step", color=ORANGE, linewidth=2, label="wrong")
        axes.set(ylabel="images", yscale="log")
        axes.text(0.01, 0.86, model, transform=axes.transAxes, fontsize=9)
    rows[0].set_title(title)
    rows[0].legend(loc="upper center", ncols=2)
    rows[-1].set_xlabel("probability of the diagnosis given")
    return figure


def panel(images: Sequence[np.ndarray], captions: Sequence[str], columns: int = 4) -> Figure:
    """A grid of uint8 (H, W, 3) pictures, each with its caption below; captions have equally many lines."""
    rows = -(-len(images) // columns)
    picture, gap = 1.9, 0.1  # inches
    tall = picture * images[0].shape[0] / images[0].shape[1]
    cell = tall + 0.3 + 0.135 * (captions[0].count("\n") + 1)
    width, height = columns * (picture + gap) + gap, rows * cell + gap
    figure = Figure(figsize=(width, height))
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = gap + (place % columns) * (picture + gap), height - gap - (place // columns) * cell
        axes = figure.add_axes((left / width, (top - tall) / height, picture / width, tall / height))
        axes.set_axis_off()
        axes.imshow(image, interpolation="bilinear")
        axes.text(0, -0.05, caption, transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.25)
    return figure

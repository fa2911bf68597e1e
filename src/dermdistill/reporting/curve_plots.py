"""Curves of one model or several: training, ROC, precision, reliability, thresholds, decisions, abstention.

Tables in, a figure out: no file is read and no metric computed here.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.reporting import plots


def training_curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Loss and melanoma AUC on val by epoch, one line per trained model.

    Args:
        histories: per model the columns ``epoch, train_loss, val_loss, val_melanoma_auc, …``.
    """
    figure = plots.new(5.8)
    axes = figure.subplots(2, 1, sharex=True)
    dashes = plots.line_styles(list(histories))
    for model, history in histories.items():
        style: dict[str, Any] = {"color": plots.color(model), "linestyle": dashes[model]}
        axes[0].plot(history["epoch"], history["val_loss"], label=model, **style)
        axes[1].plot(history["epoch"], history["val_melanoma_auc"], **style)
    axes[0].set(title="Loss on validation (each by its own objective)", ylabel="loss")
    axes[1].set(title="Melanoma ROC-AUC on validation", ylabel="ROC-AUC", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def training_curve(history: pd.DataFrame, model: str) -> Figure:
    """One training: both losses, both scores on val, the epoch kept; columns as in ``plots/training``."""
    figure = plots.new(5.8)
    axes = figure.subplots(2, 1, sharex=True)
    for column, shade, dash in (("train_loss", plots.GREY, "--"), ("val_loss", plots.BLUE, "-")):
        axes[0].plot(history["epoch"], history[column], color=shade, linestyle=dash, label=column.replace("_", " "))
    scores = {"val_melanoma_auc": (plots.ORANGE, "-"), "val_balanced_accuracy": (plots.GREEN, "-.")}
    for column, (shade, dash) in scores.items():
        axes[1].plot(history["epoch"], history[column], color=shade, linestyle=dash, label=column[4:].replace("_", " "))
    [kept] = history["epoch"][history["kept"] == 1]
    for shown in axes:
        shown.axvline(kept, color="#3A3A3A", linewidth=0.8, linestyle=":")
        shown.legend()
    axes[0].set(title=f"{model} (dotted: the epoch kept)", ylabel="loss")
    axes[1].set(ylabel="score on validation", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def roc(curves: Mapping[str, pd.DataFrame], points: Mapping[str, tuple[float, float]]) -> Figure:
    """ROC curves and operating points.

    Args:
        curves: per model the columns ``fpr, tpr``.
        points: per model the (sensitivity, specificity) reached at the operating point that ships.
    """
    figure = plots.new(5.2)
    axes = figure.subplots()
    dashes = plots.line_styles(list(curves))
    axes.plot([0, 1], [0, 1], color="#B5B5B5", linewidth=1, linestyle=":")
    for model, curve in curves.items():
        axes.plot(curve["fpr"], curve["tpr"], color=plots.color(model), linestyle=dashes[model], label=model)
    for model, (sensitivity, specificity) in points.items():
        plots.mark(axes, model, 1 - specificity, sensitivity)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="lower right", title="marks: operating point", title_fontsize=8.5)
    return figure


def precision_recall(
    curves: Mapping[str, pd.DataFrame], points: Mapping[str, tuple[float, float]], prevalence: float
) -> Figure:
    """Precision–recall curves; ``points`` gives (recall, precision) at the operating point that ships."""
    figure = plots.new(5.2)
    axes = figure.subplots()
    dashes = plots.line_styles(list(curves))
    axes.axhline(prevalence, color="#B5B5B5", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.2f}")
    for model, curve in curves.items():
        axes.plot(curve["recall"], curve["precision"], color=plots.color(model), linestyle=dashes[model], label=model,
                  drawstyle="steps-post")  # fmt: skip
    for model, (recall, precision) in points.items():
        plots.mark(axes, model, recall, precision)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="upper right")
    return figure


def reliability(table: pd.DataFrame, title: str) -> Figure:
    """Stated probability of melanoma against the share that were melanoma, with the count of images below.

    Args:
        table: columns ``confidence, frequency, count``, one row per bin; empty bins are skipped.
    """
    filled = table[table["count"] > 0]
    figure = plots.new(5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#B5B5B5", linestyle=":", linewidth=1, label="perfect calibration")
    error = np.sqrt(filled["frequency"] * (1 - filled["frequency"]) / filled["count"])
    upper.errorbar(filled["confidence"], filled["frequency"], yerr=error, color=plots.BLUE, marker="o", capsize=2.5,
                   elinewidth=1, label="observed ± standard error")  # fmt: skip
    upper.set(ylabel="share that were melanoma", ylim=(-0.03, 1.03), title=title)
    upper.legend(loc="upper left")
    lower.bar(filled["confidence"], filled["count"], width=0.03, color=plots.BLUE)
    lower.set(yscale="log", ylabel="images", xlabel="calibrated probability of melanoma", xlim=(-0.02, 1.02))
    return figure


def reliability_pair(raw: pd.DataFrame, calibrated: pd.DataFrame, title: str) -> Figure:
    """Reliability before and after calibration; columns ``confidence, frequency``, one row per occupied bin."""
    figure = plots.new(4.6)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#B5B5B5", linestyle=":", linewidth=1, label="perfect calibration")
    for table, shade, dash, name in ((raw, plots.ORANGE, "--", "raw"), (calibrated, plots.BLUE, "-", "calibrated")):
        axes.plot(table["confidence"], table["frequency"], color=shade, linestyle=dash, marker="o", label=name)
    axes.set(xlabel="stated probability of melanoma", ylabel="share that were melanoma", title=title)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left")
    return figure


def reliability_grid(bins: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """A small reliability diagram per model: (raw, calibrated), each with the columns ``confidence, frequency``."""
    columns = 3
    rows = -(-len(bins) // columns)
    figure = plots.new(0.3 + 1.95 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (model, (raw, calibrated)) in zip(grid, bins.items(), strict=False):
        axes.plot([0, 1], [0, 1], color="#B5B5B5", linestyle=":", linewidth=1)
        axes.plot(raw["confidence"], raw["frequency"], color=plots.GREY, linestyle="--", linewidth=1.2)
        axes.plot(calibrated["confidence"], calibrated["frequency"], color=plots.color(model), marker="o", markersize=3)
        axes.set_title(model, fontsize=7.5)
    for axes in grid[len(bins) :]:
        axes.set_axis_off()
    figure.supxlabel("stated probability of melanoma", fontsize=9.5)
    figure.supylabel("share that were melanoma", fontsize=9.5)
    return figure


def threshold(table: pd.DataFrame, chosen: Mapping[str, float], title: str) -> Figure:
    """Sensitivity, specificity and F1 by threshold on P(melanoma), with the ``chosen`` thresholds."""
    figure = plots.new(4.4)
    axes = figure.subplots()
    for column, shade, dash in (
        ("sensitivity", plots.ORANGE, "-"),
        ("specificity", plots.BLUE, "--"),
        ("f1", "#009E73", "-."),
    ):
        axes.plot(table["threshold"], table[column], color=shade, linestyle=dash, label=column.replace("f1", "F1"))
    for name, value in chosen.items():
        axes.axvline(value, color="#3A3A3A", linewidth=1)
        axes.text(value, 1.04, f" {name}", rotation=35, fontsize=8, va="bottom")
    low = max(float(table["threshold"].replace(0, np.nan).min()), 1e-4)
    axes.set(xscale="log", xlim=(low, 1), ylim=(0, 1.03), xlabel="threshold on P(melanoma), logarithmic")
    axes.set_title(title, pad=42)
    axes.legend(loc="center left")
    return figure


def decision(curves: Mapping[str, pd.DataFrame], prevalence: float, screening: float) -> Figure:
    """Net benefit by threshold, per model the columns of ``decision.curve``; above as here, below as in a screening."""
    figure = plots.new(6.4)
    axes, styles = figure.subplots(2, 1), plots.line_styles(list(curves))
    first = next(iter(curves.values()))
    for place, suffix, share in ((0, "", prevalence), (1, "_screening", screening)):
        shown = axes[place]
        shown.axhline(0, color="#3A3A3A", linewidth=1, label="refer nobody")
        shown.plot(
            first["threshold"], first[f"treat_all{suffix}"], color=plots.GREY, linewidth=1.2, label="refer everybody"
        )
        for model, curve in curves.items():
            line = curve[f"model{suffix}"]
            shown.plot(curve["threshold"], line, color=plots.color(model), linestyle=styles[model], label=model)
        best = max(float(curve[f"model{suffix}"].max()) for curve in curves.values())
        shown.set(ylim=(-0.25 * best, 1.15 * best) if best > 0 else (-0.01, 0.01), xlim=(0, 0.5), ylabel="net benefit")
        shown.set_title(f"{100 * share:.1f} % of images are melanomas")
    axes[1].set_xlabel("probability of melanoma from which one would refer")
    axes[0].legend(loc="upper right")
    return figure


def risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of wrong diagnoses among the surest images, by how many are answered: columns ``coverage, risk``."""
    figure = plots.new(4.2)
    axes, styles = figure.subplots(), plots.line_styles(list(curves))
    for model, curve in curves.items():
        axes.plot(curve["coverage"], curve["risk"], color=plots.color(model), linestyle=styles[model], label=model)
    axes.set(xlabel="share of images answered, the surest first", ylabel="share of them wrong", xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.set_title("Risk and coverage, holdout")
    axes.legend(loc="upper left")
    return figure

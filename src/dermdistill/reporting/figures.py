"""Curves of one model or several: training, ROC, precision, reliability, thresholds, decisions, abstention.

:func:`draw` reads the CSV tables of ``plots/curves`` and ``plots/training``; every other function turns tables into one
figure. What a figure says in words stands in the templates of the page. Deliberately absent: any metric.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermdistill.core.model_id import ModelId
from dermdistill.params import Params
from dermdistill.reporting import style
from dermdistill.reporting.render import Metrics
from dermdistill.reporting.results import Results, read_table

Curves = Mapping[str, pd.DataFrame]


def draw(root: Path, results: Results) -> dict[str, Figure]:
    """Figures of ``plots/figures`` by name."""

    def curve(kind: str, model: str) -> pd.DataFrame:
        return read_table(root, f"plots/curves/{kind}/{model}.csv")

    def curves(kind: str) -> dict[str, pd.DataFrame]:
        return {model: curve(kind, model) for model in roles.values()}

    def pair(model: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        return curve("reliability_raw", model), curve("reliability", model)

    roles, deployed, settings = results.roles, results.settings.shipped, results.settings
    n = results.holdout[deployed]["n"]
    prevalence, title = n["melanoma"] / n["images"], f"{deployed}, holdout"
    reached = {model: results.holdout[model]["operating_points"]["sensitivity"] for model in roles.values()}
    points = {model: point for model, point in reached.items() if None not in point.values()}
    figures = {
        "roc": roc(curves("roc"), points),
        "pr": precision_recall(curves("pr"), points, prevalence),
        "reliability": reliability(curve("reliability", deployed), title),
        "reliability_pair": reliability_pair(*pair(deployed), title),
        "reliability_models": reliability_grid({model: pair(model) for model in results.holdout}),
        "decision": decision(curves("decision"), prevalence, settings.evaluate.screening_prevalence),
        "risk_coverage": risk_coverage(curves("risk_coverage")),
    }
    for role, name in {"int8": "threshold", "teacher": "threshold_teacher", "student": "threshold_student"}.items():
        first = "deployed" if role == "int8" else f"{100 * settings.calibrate.sensitivity:g} %"
        chosen = results.calibration[roles[role]]["thresholds"]
        lines = {first: chosen["sensitivity"], "Youden": chosen["youden"], "F1": chosen["f1"]}
        figures[name] = threshold(curve("threshold", roles[role]), lines, f"{roles[role]}, holdout")
    return figures | _training(root, settings)


def trained(settings: Params) -> dict[str, list[str]]:
    """Family → its trained models: the teachers, each student with its control; a mean of teachers was not trained."""
    families = {"teachers": [f"teacher_{name}" for name in settings.run.teachers]}
    ids = [ModelId.parse(model) for model in settings.model_ids()]
    for name in settings.run.students:
        families[name] = [str(one) for one in ids if one.kind in ("student", "control") and one.name == name]
    return families


def _training(root: Path, settings: Params) -> dict[str, Figure]:
    """``training_FAMILY``, and one ``training/MODEL`` for each trained model."""
    figures = {}
    for family, models in trained(settings).items():
        histories = {model: read_table(root, f"plots/training/{model}.csv") for model in models}
        figures[f"training_{family}"] = training_curves(histories)
        figures |= {f"training/{model}": training_curve(history, model) for model, history in histories.items()}
    return figures


def _lines(axes: Axes, curves: Curves, x: str, y: str, labels: bool = True, **options: Any) -> None:
    """One line per model in its colour and style."""
    dashes = style.line_styles(list(curves))
    for model, curve in curves.items():
        label = model if labels else None
        axes.plot(curve[x], curve[y], color=style.color(model), linestyle=dashes[model], label=label, **options)


def _diagonal(axes: Axes, label: str | None = None) -> None:
    axes.plot([0, 1], [0, 1], color="#B5B5B5", linewidth=1, linestyle=":", label=label)


def _columns(axes: Axes, table: pd.DataFrame, x: str, columns: Mapping[str, tuple[str, str]]) -> None:
    """Several columns of one table, each in its colour and line style."""
    for column, (shade, dash) in columns.items():
        label = column.replace("_", " ").replace("f1", "F1").replace("auc", "AUC")
        axes.plot(table[x], table[column], color=shade, linestyle=dash, label=label)


def training_curves(histories: Curves) -> Figure:
    """Loss and melanoma AUC on val by epoch, one line per trained model.

    Args:
        histories: per model the columns ``epoch, train_loss, val_loss, val_melanoma_auc, …``.
    """
    figure = style.new(5.8)
    axes = figure.subplots(2, 1, sharex=True)
    _lines(axes[0], histories, "epoch", "val_loss")
    _lines(axes[1], histories, "epoch", "val_melanoma_auc", labels=False)
    axes[0].set(title="Cross-entropy on validation, unweighted", ylabel="loss")
    axes[1].set(title="Melanoma ROC-AUC on validation", ylabel="ROC-AUC", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def training_curve(history: pd.DataFrame, model: str) -> Figure:
    """One training: both losses, both scores on val, the epoch kept; columns as in ``plots/training``."""
    figure = style.new(5.8)
    axes = figure.subplots(2, 1, sharex=True)
    losses = {"train_loss": (style.GREY, "--"), "val_loss": (style.BLUE, "-")}
    scores = {"val_melanoma_auc": (style.ORANGE, "-"), "val_balanced_accuracy": (style.GREEN, "-.")}
    _columns(axes[0], history, "epoch", losses)
    _columns(axes[1], history, "epoch", scores)
    [kept] = history["epoch"][history["kept"] == 1]
    for place in axes:
        place.axvline(kept, color="#3A3A3A", linewidth=0.8, linestyle=":")
        place.legend()
    axes[0].set(title=f"{model} (dotted: the epoch kept)", ylabel="loss")
    axes[1].set(ylabel="score on validation", xlabel="epoch")
    axes[1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def roc(curves: Curves, points: Mapping[str, Metrics]) -> Figure:
    """ROC curves (columns ``fpr, tpr``) and each model's deployed operating point."""
    figure, axes = style.single(5.2)
    _diagonal(axes)
    _lines(axes, curves, "fpr", "tpr")
    for model, point in points.items():
        style.mark(axes, model, 1 - point["specificity"], point["sensitivity"])
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="lower right", title="marks: operating point", title_fontsize=8.5)
    return figure


def precision_recall(curves: Curves, points: Mapping[str, Metrics], prevalence: float) -> Figure:
    """Precision–recall curves (columns ``precision, recall``) and each model's deployed operating point."""
    figure, axes = style.single(5.2)
    axes.axhline(prevalence, color="#B5B5B5", linewidth=1, linestyle=":", label=f"prevalence {prevalence:.2f}")
    _lines(axes, curves, "recall", "precision", drawstyle="steps-post")
    for model, point in points.items():
        style.mark(axes, model, point["sensitivity"], point["ppv"])
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.set_title("Melanoma against the rest, holdout")
    axes.legend(loc="upper right")
    return figure


def reliability(table: pd.DataFrame, title: str) -> Figure:
    """Stated probability of melanoma against the share that were melanoma, with the count of images below.

    Args:
        table: columns ``confidence, frequency, count``, one row per occupied bin.
    """
    figure = style.new(5.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _diagonal(upper, "perfect calibration")
    error = np.sqrt(table["frequency"] * (1 - table["frequency"]) / table["count"])
    upper.errorbar(table["confidence"], table["frequency"], yerr=error, color=style.BLUE, marker="o", capsize=2.5,
                   elinewidth=1, label="observed ± standard error")  # fmt: skip
    upper.set(ylabel="share that were melanoma", ylim=(-0.03, 1.03), title=title)
    upper.legend(loc="upper left")
    lower.bar(table["confidence"], table["count"], width=0.03, color=style.BLUE)
    lower.set(yscale="log", ylabel="images", xlabel="calibrated probability of melanoma", xlim=(-0.02, 1.02))
    return figure


def reliability_pair(raw: pd.DataFrame, calibrated: pd.DataFrame, title: str) -> Figure:
    """Reliability before and after calibration; columns ``confidence, frequency``, one row per occupied bin."""
    figure, axes = style.single(4.6)
    _diagonal(axes, "perfect calibration")
    for table, shade, dash, name in ((raw, style.ORANGE, "--", "raw"), (calibrated, style.BLUE, "-", "calibrated")):
        axes.plot(table["confidence"], table["frequency"], color=shade, linestyle=dash, marker="o", label=name)
    axes.set(xlabel="stated probability of melanoma", ylabel="share that were melanoma", title=title)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left")
    return figure


def reliability_grid(bins: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Figure:
    """A small reliability diagram per model: (raw, calibrated), each with the columns ``confidence, frequency``."""
    columns = 3
    rows = -(-len(bins) // columns)
    figure = style.new(0.3 + 1.95 * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (model, (raw, calibrated)) in zip(grid, bins.items(), strict=False):
        _diagonal(axes)
        axes.plot(raw["confidence"], raw["frequency"], color=style.GREY, linestyle="--", linewidth=1.2)
        axes.plot(calibrated["confidence"], calibrated["frequency"], color=style.color(model), marker="o", markersize=3)
        axes.set_title(model, fontsize=7.5)
    for axes in grid[len(bins) :]:
        axes.set_axis_off()
    figure.supxlabel("stated probability of melanoma", fontsize=9.5)
    figure.supylabel("share that were melanoma", fontsize=9.5)
    return figure


def threshold(table: pd.DataFrame, chosen: Mapping[str, float], title: str) -> Figure:
    """Sensitivity, specificity and F1 by threshold on P(melanoma), with the ``chosen`` thresholds."""
    figure, axes = style.single(4.4)
    lines = {"sensitivity": (style.ORANGE, "-"), "specificity": (style.BLUE, "--"), "f1": (style.GREEN, "-.")}
    _columns(axes, table, "threshold", lines)
    for name, value in chosen.items():
        axes.axvline(value, color="#3A3A3A", linewidth=1)
        axes.text(value, 1.04, f" {name}", rotation=35, fontsize=8, va="bottom")
    low = max(float(table["threshold"].replace(0, np.nan).min()), 1e-4)
    axes.set(xscale="log", xlim=(low, 1), ylim=(0, 1.03), xlabel="threshold on P(melanoma), logarithmic")
    axes.set_title(title, pad=42)
    axes.legend(loc="center left")
    return figure


def decision(curves: Curves, prevalence: float, screening: float) -> Figure:
    """Net benefit by threshold, columns of ``decision.curve``; above: this prevalence, below: screening."""
    figure = style.new(6.4)
    rows = figure.subplots(2, 1)
    first = next(iter(curves.values()))
    for axes, suffix, share in ((rows[0], "", prevalence), (rows[1], "_screening", screening)):
        axes.axhline(0, color="#3A3A3A", linewidth=1, label="refer nobody")
        everybody = first[f"treat_all{suffix}"]
        axes.plot(first["threshold"], everybody, color=style.GREY, linewidth=1.2, label="refer everybody")
        _lines(axes, curves, "threshold", f"model{suffix}")
        best = max(float(curve[f"model{suffix}"].max()) for curve in curves.values())
        axes.set(ylim=(-0.25 * best, 1.15 * best) if best > 0 else (-0.01, 0.01), xlim=(0, 0.5), ylabel="net benefit")
        axes.set_title(f"{100 * share:.1f} % of images are melanomas")
    rows[1].set_xlabel("probability of melanoma from which one would refer")
    rows[0].legend(loc="upper right")
    return figure


def risk_coverage(curves: Curves) -> Figure:
    """Share of wrong diagnoses among the surest images, by how many are answered: columns ``coverage, risk``."""
    figure, axes = style.single(4.2)
    _lines(axes, curves, "coverage", "risk")
    axes.set(xlabel="share of images answered, the surest first", ylabel="share of them wrong", xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.set_title("Risk and coverage, holdout")
    axes.legend(loc="upper left")
    return figure

"""Figures of the protocol beyond the headline, in the style of ``plots``: decisions, abstention, robustness.

Like there: tables in, a figure out, no file read and no metric computed.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.reporting.plots import BLUE, GREY, ORANGE, WIDTH, color, line_styles


def decision(curves: Mapping[str, pd.DataFrame], prevalence: float, screening: float) -> Figure:
    """Net benefit by threshold, per model the columns of ``decision.curve``; above as here, below as in a screening."""
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    axes, styles = figure.subplots(2, 1), line_styles(list(curves))
    first = next(iter(curves.values()))
    for place, suffix, share in ((0, "", prevalence), (1, "_screening", screening)):
        shown = axes[place]
        shown.axhline(0, color="#3A3A3A", linewidth=1, label="refer nobody")
        shown.plot(first["threshold"], first[f"treat_all{suffix}"], color=GREY, linewidth=1.2, label="refer everybody")
        for model, curve in curves.items():
            line = curve[f"model{suffix}"]
            shown.plot(curve["threshold"], line, color=color(model), linestyle=styles[model], label=model)
        best = max(float(curve[f"model{suffix}"].max()) for curve in curves.values())
        shown.set(ylim=(-0.25 * best, 1.15 * best) if best > 0 else (-0.01, 0.01), xlim=(0, 0.5), ylabel="net benefit")
        shown.set_title(f"{100 * share:.1f} % of images are melanomas")
    axes[1].set_xlabel("probability of melanoma from which one would refer")
    axes[0].legend(loc="upper right")
    return figure


def risk_coverage(curves: Mapping[str, pd.DataFrame]) -> Figure:
    """Share of wrong diagnoses among the surest images, by how many are answered: columns ``coverage, risk``."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes, styles = figure.subplots(), line_styles(list(curves))
    for model, curve in curves.items():
        axes.plot(curve["coverage"], curve["risk"], color=color(model), linestyle=styles[model], label=model)
    axes.set(xlabel="share of images answered, the surest first", ylabel="share of them wrong", xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.set_title("Risk and coverage, holdout")
    axes.legend(loc="upper left")
    return figure


def reliability_pair(raw: pd.DataFrame, calibrated: pd.DataFrame, title: str) -> Figure:
    """Reliability before and after calibration; columns ``confidence, frequency``, one row per occupied bin."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#B5B5B5", linestyle=":", linewidth=1, label="perfect calibration")
    for table, shade, dash, name in ((raw, ORANGE, "--", "raw"), (calibrated, BLUE, "-", "calibrated")):
        axes.plot(table["confidence"], table["frequency"], color=shade, linestyle=dash, marker="o", label=name)
    axes.set(xlabel="stated probability of melanoma", ylabel="share that were melanoma", title=title)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left")
    return figure


def heat(rows: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str]) -> Figure:
    """Melanoma AUC by corruption and severity (clean first), one panel per model; a missing value stays blank."""
    figure = Figure(figsize=(WIDTH, 0.8 + 3.1 * len(rows)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(rows), 1))
    for axes, (model, values) in zip(panels, rows.items(), strict=True):
        table = np.array(values, dtype=float)
        axes.grid(False)
        axes.imshow(table, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
        for row, column in np.ndindex(*table.shape):
            if not np.isnan(table[row, column]):
                shade = "#222222" if table[row, column] > 0.78 else "white"
                axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", fontsize=7.5, color=shade)
        axes.set_xticks(range(table.shape[1]), ["clean", *map(str, range(1, table.shape[1]))])
        axes.set_yticks(range(len(names)), list(names))
        axes.set_title(model)
    panels[-1].set_xlabel("severity")
    return figure

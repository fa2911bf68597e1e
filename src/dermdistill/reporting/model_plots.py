"""Models side by side: intervals, differences, robustness.

Tables in, a figure out: no file is read and no metric computed here.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dermdistill.reporting import plots


class Interval(NamedTuple):
    """One row of a forest plot; ``low`` and ``high`` bound the 95 % interval and may be None."""

    model: str
    value: float | None
    low: float | None
    high: float | None


def comparison(rows: Sequence[Interval], xlabel: str, title: str) -> Figure:
    """Forest plot: one model per line, point and 95 % interval; a model without a value is left blank."""
    figure = plots.new(1.1 + 0.36 * len(rows))
    axes = figure.subplots()
    for place, (model, value, low, high) in enumerate(reversed(rows)):
        if value is None:
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=plots.color(model), linewidth=2, solid_capstyle="butt")
        plots.dot(axes, model, value, place)
        axes.annotate(f"{value:.3f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.model for row in reversed(rows)])
    axes.set(xlabel=xlabel, title=title, ylim=(-0.5, len(rows) - 0.3))
    axes.grid(False, axis="y")
    return figure


def differences(groups: Mapping[str, Sequence[Interval]], xlabel: str, title: str) -> Figure:
    """Differences and their 95 % intervals around zero, group below group; what holds zero is drawn grey (a tie)."""
    lines = sum(len(rows) + bool(name) for name, rows in groups.items())
    figure = plots.new(1.0 + 0.3 * lines)
    axes = figure.subplots()
    axes.axvline(0, color="#3A3A3A", linewidth=0.8)
    labels: list[str] = []
    for name, rows in groups.items():
        labels += [name] if name else []
        for row in rows:
            if row.value is not None and row.low is not None and row.high is not None:
                shade = plots.GREY if row.low <= 0 <= row.high else plots.BLUE if row.low > 0 else plots.ORANGE
                axes.plot([row.low, row.high], [len(labels)] * 2, color=shade, linewidth=2, solid_capstyle="butt")
                axes.plot(row.value, len(labels), marker="o", color=shade, markersize=6)
            labels.append(f"  {row.model}" if name else row.model)
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes.set(xlabel=xlabel, ylim=(len(labels) - 0.4, -0.6))
    axes.set_title(title)
    axes.grid(False, axis="y")
    return figure


def several(grid: Mapping[str, Sequence[Interval]], title: str) -> Figure:
    """Small multiples, two beside each other: per metric one line per model, with its interval where there is one."""
    count = len(next(iter(grid.values())))
    rows = -(-len(grid) // 2)
    figure = plots.new(0.5 + rows * (0.55 + 0.2 * count))
    every = figure.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for axes, (metric, intervals) in zip(every, grid.items(), strict=False):
        for place, row in enumerate(intervals):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=plots.color(row.model), linewidth=1.6)
            if row.value is not None:
                plots.dot(axes, row.model, row.value, place)
        axes.set_title(metric, fontsize=8.5)
        axes.set_yticks(range(count), [row.model for row in intervals], fontsize=8)
        axes.set_ylim(count - 0.4, -0.6)
        axes.grid(False, axis="y")
    for axes in every[len(grid) :]:
        axes.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def heat(rows: Mapping[str, Sequence[Sequence[float | None]]], names: Sequence[str]) -> Figure:
    """Melanoma AUC by corruption and severity (clean first), one panel per model; a missing value stays blank."""
    figure = plots.new(0.8 + 3.1 * len(rows))
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

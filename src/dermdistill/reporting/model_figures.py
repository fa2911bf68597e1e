"""Models side by side: intervals, differences, robustness, accuracy against cost.

:func:`draw` takes the metrics of all models; every other function turns values into one figure. What a figure says in
words stands in the templates of the page. Deliberately absent: any metric (``evaluation`` computes) and any file.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dermdistill.core.model_id import SEEDED, ModelId
from dermdistill.evaluation.model_pairs import METRICS
from dermdistill.evaluation.pareto import CONDITION, COSTS, SCORES
from dermdistill.reporting import style
from dermdistill.reporting.render import Metrics, interval, lookup
from dermdistill.reporting.results import Results

HEADLINE = {**METRICS, "melanoma.ece": "melanoma ECE (less is better)"}


class Interval(NamedTuple):
    """One row of a forest plot; ``low`` and ``high`` bound the 95 % interval and may be None."""

    model: str
    value: float | None
    low: float | None
    high: float | None


def draw(results: Results) -> dict[str, Figure]:
    """Figures of ``plots/figures`` by name: every model, its differences, the teachers, each student's family."""
    pairs, every = results.compared["pairs"], list(results.holdout)
    effect = {
        pair["a"]: [_gap(label, pair["metrics"][key]) for key, label in METRICS.items()]
        for pair in student_against_control(results)
    }
    gaps = [_gap(f"{pair['a']} − {pair['b']}", pair["metrics"]["melanoma.roc_auc"]) for pair in pairs]
    figures = {
        "comparison": comparison(
            [_metric(model, "melanoma.roc_auc", results) for model in every],
            "melanoma ROC-AUC, holdout",
            "Every model with its 95 % interval",
        ),
        "kd_effect": differences(effect, "student − control, holdout", "What distillation added"),
        "differences": differences({"": gaps}, "difference of melanoma AUC, holdout", "Is A better than B?"),
        "robustness": heat(results.robustness),
    }
    for name, title, models in groups(results):
        grid = {label: [_metric(model, key, results) for model in models] for key, label in HEADLINE.items()}
        figures[name] = several(grid, f"{title}, holdout")
    return figures


def student_against_control(results: Results) -> list[dict[str, Any]]:
    """The pairs of ``metrics/compare/models.json`` that show what distillation added."""
    wanted = [(f"student_{name}", f"control_{name}") for name in results.settings.run.students]
    return [pair for pair in results.compared["pairs"] if (pair["a"], pair["b"]) in wanted]


def groups(results: Results) -> list[tuple[str, str, list[str]]]:
    """Name, title and models of each figure of small multiples: all, the teachers, each student's family."""
    ids = {model: ModelId.parse(model) for model in results.holdout}
    teachers = [model for model, one in ids.items() if one.kind == "teacher"]
    made = [("holdout", "Every model, every headline metric", list(ids)), ("teachers", "Teachers", teachers)]
    for name in results.settings.run.students:
        family = [model for model, one in ids.items() if one.kind in SEEDED and one.name == name]
        made.append((f"student_{name}", f"The student “{name}”", [results.roles["teacher"], *family]))
    return made


def _metric(model: str, key: str, results: Results) -> Interval:
    metrics = results.holdout[model]
    low, high = interval(metrics, key) or (None, None)
    return Interval(model, lookup(metrics, key), low, high)


def _gap(name: str, difference: Metrics) -> Interval:
    return Interval(name, difference["difference"], difference["low"], difference["high"])


def comparison(rows: Sequence[Interval], xlabel: str, title: str) -> Figure:
    """Forest plot: one model per line, point and 95 % interval; a model without a value is left blank."""
    figure, axes = style.single(1.1 + 0.36 * len(rows))
    for place, (model, value, low, high) in enumerate(reversed(rows)):
        if value is None:
            continue
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=style.color(model), linewidth=2, solid_capstyle="butt")
        style.dot(axes, model, value, place)
        axes.annotate(f"{value:.3f}", (value, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [row.model for row in reversed(rows)])
    axes.set(xlabel=xlabel, title=title, ylim=(-0.5, len(rows) - 0.3))
    axes.grid(False, axis="y")
    return figure


def differences(groups: Mapping[str, Sequence[Interval]], xlabel: str, title: str) -> Figure:
    """Differences and their 95 % intervals around zero, group below group; a tie (zero inside) is grey."""
    lines = sum(len(rows) + bool(name) for name, rows in groups.items())
    figure, axes = style.single(1.0 + 0.3 * lines)
    axes.axvline(0, color="#3A3A3A", linewidth=0.8)
    labels: list[str] = []
    for name, rows in groups.items():
        labels += [name] if name else []
        for row in rows:
            if row.value is not None and row.low is not None and row.high is not None:
                shade = style.GREY if row.low <= 0 <= row.high else style.BLUE if row.low > 0 else style.ORANGE
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
    figure = style.new(0.5 + rows * (0.55 + 0.2 * count))
    every = figure.subplots(rows, 2, sharey=True, squeeze=False).ravel()
    for axes, (metric, intervals) in zip(every, grid.items(), strict=False):
        for place, row in enumerate(intervals):
            if row.low is not None and row.high is not None:
                axes.plot([row.low, row.high], [place, place], color=style.color(row.model), linewidth=1.6)
            if row.value is not None:
                style.dot(axes, row.model, row.value, place)
        axes.set_title(metric, fontsize=8.5)
        axes.set_yticks(range(count), [row.model for row in intervals], fontsize=8)
        axes.set_ylim(count - 0.4, -0.6)
        axes.grid(False, axis="y")
    for axes in every[len(grid) :]:
        axes.set_axis_off()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    return figure


def heat(robustness: Mapping[str, Metrics]) -> Figure:
    """Melanoma AUC by corruption and severity (clean first), one panel per model; a missing value stays blank."""
    figure = style.new(0.8 + 3.1 * len(robustness))
    panels = np.atleast_1d(figure.subplots(len(robustness), 1))
    for axes, (model, result) in zip(panels, robustness.items(), strict=True):
        clean, conditions = result["clean"]["roc_auc"], result["conditions"]
        rows = [[clean, *(one["roc_auc"] for one in severities.values())] for severities in conditions.values()]
        table = np.array(rows, dtype=float)
        axes.grid(False)
        axes.imshow(table, cmap="cividis", vmin=0.5, vmax=1, aspect="auto")
        for row, column in np.ndindex(*table.shape):
            if not np.isnan(table[row, column]):
                shade = "#222222" if table[row, column] > 0.78 else "white"
                axes.text(column, row, f"{table[row, column]:.2f}", ha="center", va="center", fontsize=7.5, color=shade)
        axes.set_xticks(range(table.shape[1]), ["clean", *map(str, range(1, table.shape[1]))])
        axes.set_yticks(range(len(conditions)), list(conditions))
        axes.set_title(model)
    panels[-1].set_xlabel("severity")
    return figure


# Accuracy against cost ----------------------------------------------------------------------------


def pareto_front(table: pd.DataFrame, chains: Sequence[Sequence[str]]) -> Figure:
    """Two scores by two costs; ``chains`` (teacher, student, INT8) are joined by arrows."""
    figure = style.new(6.4, style.WIDTH * 1.5)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for axes, (score, cost) in zip(grid.flat, [(s, c) for s in SCORES for c in COSTS], strict=True):
        _bubbles(axes, table, score, cost, chains)
    for axes, cost in zip(grid[1], COSTS, strict=True):
        axes.set_xlabel(COSTS[cost])
    for axes, score in zip(grid[:, 0], SCORES, strict=True):
        axes.set_ylabel(f"{SCORES[score]}, holdout")
    figure.suptitle("Accuracy against cost; bubble: parameters; dotted: frontier", x=0.01, ha="left")
    return figure


def latencies(benchmark: Metrics) -> Figure:
    """A bar for each model in each format: processor time of one image on one thread, the fastest on top."""
    times = {entry: row["cpu_p50"] for entry, row in benchmark["latency"][CONDITION].items()}
    entries = sorted(times, key=lambda entry: -times[entry])
    figure, axes = style.single(0.9 + 0.26 * len(entries))
    bars = axes.barh(entries, [times[entry] for entry in entries], color=[style.color(entry) for entry in entries])
    axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("ms of processor time per image, one thread")
    axes.set_title("Latency by model and format")
    return figure


def _bubbles(axes: Axes, table: pd.DataFrame, score: str, cost: str, chains: Sequence[Sequence[str]]) -> None:
    models = table.set_index("model")
    x, y = models[cost], models[f"holdout_{score}"]
    best = models[models[f"frontier_{score}_{cost}"]].sort_values(cost)
    axes.step(best[cost], best[f"holdout_{score}"], where="post", linestyle=":", color=style.GREY, zorder=1)
    size = 30 + 300 * models["parameters"] / models["parameters"].max()
    axes.scatter(x, y, s=size, c=[style.color(model) for model in models.index], alpha=0.75, zorder=3)
    for model in models.index:
        place = (4, -12) if style.kind(model) == "int8" else (4, 5)  # close to its student
        axes.annotate(model, (x[model], y[model]), xytext=place, textcoords="offset points", fontsize=6.5, zorder=4)
    arrow = {"arrowstyle": "->", "color": style.GREY, "shrinkA": 6, "shrinkB": 6}
    for chain in chains:
        for start, end in itertools.pairwise(chain):
            axes.annotate("", (x[end], y[end]), (x[start], y[start]), arrowprops=arrow, zorder=2)
    axes.margins(x=0.2, y=0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")

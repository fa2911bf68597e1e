"""What accuracy costs: latencies, every model's score on the holdout against them and its bytes, and the frontier.

A point is on the frontier if no other is at least as good at no more cost (and better in one of them). Latency
is processor time per image in ONNX Runtime, one thread, from the `benchmark` stage: one machine on one day. A mean of
teachers costs all of them, and each as many passes as it is asked for, since that is what its score was earned with.
The frontier describes; nothing is chosen by it, since it shows the holdout.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from dermdistill.errors import UserError
from dermdistill.reporting import plots

SCORES = {"melanoma_auc": "melanoma ROC-AUC", "macro_f1": "macro-F1"}
COSTS = {"latency_ms": "ms per image, one thread", "megabytes": "MB"}
CONDITION = "1 thread, batch 1"


def points(
    models: Mapping[str, Sequence[str]],
    passes: int,
    benchmark: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
) -> Any:
    """One row per model: costs in ONNX Runtime, parameters, scores on val and holdout, and where it is undominated.

    Args:
        models: the networks that make up each model: itself, or the members of a mean.
        passes: how often a teacher is asked about an image, mirrored or not, to earn its score.
        metrics: {"val": {id: metrics}, "holdout": {id: metrics}}.

    Raises:
        UserError: if the benchmark lacks a model.
    """
    rows = []
    for model, networks in models.items():
        entries = {name: f"{name} {'onnx_int8' if name.startswith('int8_') else 'onnx'}" for name in networks}
        if absent := [name for name, entry in entries.items() if entry not in benchmark["static"]]:
            raise UserError(f"metrics/benchmark.json lacks {absent[0]}; run `dvc repro benchmark`")
        once = sum(benchmark["latency"][CONDITION][entry]["cpu_p50"] for entry in entries.values())
        row = {
            "model": model,
            "latency_ms": once * (passes if model.startswith("teacher_") else 1),
            "megabytes": sum(benchmark["static"][entry]["bytes"] for entry in entries.values()) / 1e6,
            "parameters": sum(benchmark["models"][name]["parameters"] for name in networks),
        }
        for part, known in metrics.items():
            row[f"{part}_melanoma_auc"] = known[model]["melanoma"]["roc_auc"]
            row[f"{part}_macro_f1"] = known[model]["diagnosis"]["macro_f1"]
        rows.append(row)
    table = pd.DataFrame(rows)
    for score in SCORES:
        for cost in COSTS:
            table[f"frontier_{score}_{cost}"] = frontier(table[cost].to_numpy(), table[f"holdout_{score}"].to_numpy())
    return table


def frontier(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,) bool: not dominated. An undefined score is on no frontier."""
    cheaper, better = cost[:, None] <= cost, score[:, None] >= score
    strictly = (cost[:, None] < cost) | (score[:, None] > score)
    return np.asarray(~(cheaper & better & strictly).any(axis=0) & ~np.isnan(score.astype(float)))


def draw(table: pd.DataFrame, chains: Sequence[Sequence[str]]) -> Figure:
    """Two scores by two costs; ``chains`` (teacher, student, INT8) are joined by arrows."""
    figure = plots.new(6.4, plots.WIDTH * 1.5)
    grid = figure.subplots(2, 2, sharex="col", sharey="row")
    for axes, (score, cost) in zip(grid.flat, [(s, c) for s in SCORES for c in COSTS], strict=True):
        _panel(axes, table, score, cost, chains)
    for axes, cost in zip(grid[1], COSTS, strict=True):
        axes.set_xlabel(COSTS[cost])
    for axes, score in zip(grid[:, 0], SCORES, strict=True):
        axes.set_ylabel(f"{SCORES[score]}, holdout")
    figure.suptitle("Accuracy against cost; bubble: parameters; dotted: frontier", x=0.01, ha="left")
    return figure


def latencies(benchmark: Mapping[str, Any]) -> Figure:
    """A bar for each model in each format: processor time of one image on one thread, the fastest on top."""
    times = {entry: row["cpu_p50"] for entry, row in benchmark["latency"][CONDITION].items()}
    entries = sorted(times, key=lambda entry: -times[entry])
    figure = plots.new(0.9 + 0.26 * len(entries))
    axes = figure.subplots()
    bars = axes.barh(entries, [times[entry] for entry in entries], color=[plots.color(entry) for entry in entries])
    axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=8)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.12)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("ms of processor time per image, one thread")
    axes.set_title("Latency by model and format")
    return figure


def _panel(axes: Axes, table: pd.DataFrame, score: str, cost: str, chains: Sequence[Sequence[str]]) -> None:
    known = table.set_index("model")
    x, y = known[cost], known[f"holdout_{score}"]
    best = known[known[f"frontier_{score}_{cost}"]].sort_values(cost)
    axes.step(best[cost], best[f"holdout_{score}"], where="post", linestyle=":", color=plots.GREY, zorder=1)
    size = 30 + 300 * known["parameters"] / known["parameters"].max()
    axes.scatter(x, y, s=size, c=[plots.color(model) for model in known.index], alpha=0.75, zorder=3)
    for model in known.index:
        place = (4, -12) if model.startswith("int8_") else (4, 5)  # close to its student
        axes.annotate(model, (x[model], y[model]), xytext=place, textcoords="offset points", fontsize=6.5, zorder=4)
    arrow = {"arrowstyle": "->", "color": plots.GREY, "shrinkA": 6, "shrinkB": 6}
    for chain in chains:
        for start, end in itertools.pairwise(chain):
            axes.annotate("", (x[end], y[end]), (x[start], y[start]), arrowprops=arrow, zorder=2)
    axes.margins(x=0.2, y=0.2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")

"""The one style of every figure: colour-blind safe, readable in print and on a phone, the same bytes every time.

The modules ``*figures`` and ``panels`` draw with it: their functions turn tables into a
:class:`matplotlib.figure.Figure`, and :func:`save` writes it. The colour tells the kind of model (teacher, student,
control, INT8), the line style which network; a control is always dashed or hollow beside its student. Figures are about
as wide as a column so that their text stays legible at 390 pixels.

Deliberately absent: pyplot and its global state, any metric (``evaluation`` computes them), and dates or versions
inside the files, which would change their hash without changing the picture.

Colours: Okabe & Ito, "Color Universal Design" (2008).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dermdistill.core.files import atomic
from dermdistill.core.model_id import KINDS, ModelId

COLORS = {"teacher": "#0072B2", "student": "#D55E00", "control": "#6B6B6B", "int8": "#009E73", "baseline": "#A68A00"}
MARKERS = {"teacher": "s", "student": "o", "control": "D", "int8": "^", "baseline": "v"}
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#6B6B6B", "#009E73"
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


def save(figure: Figure, path: str | Path) -> None:
    """Write a PNG or SVG, by suffix, without date or version."""
    stamps = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}
    if figure.get_layout_engine() is not None:
        _settle(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, metadata=stamps[Path(path).suffix])


def _settle(figure: Figure) -> None:
    """Keep the layout found, rounded: the solver's last digits vary, and with them the names inside an SVG."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(value, 6) for value in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def new(height: float, width: float = WIDTH, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of the common width; sizes in inches."""
    return Figure(figsize=(width, height), layout=layout)


def single(height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = new(height)
    return figure, figure.subplots()


def kind(name: str) -> str:
    """The kind of model behind a label (``int8_tiny_s0 onnx_int8``); "" if there is none, as for most ablation runs."""
    model = name.split()[0]
    try:
        return ModelId.parse(model).kind
    except ValueError:
        return model if model in KINDS else ""


def color(model: str) -> str:
    return COLORS.get(kind(model), "#CC79A7")


def line_styles(models: Sequence[str]) -> dict[str, Any]:
    """A line style per network within each kind of model; controls are always dashed."""
    solid, dashed = ["-", (0, (6, 1.2, 1, 1.2)), (0, (9, 1.5))], [(0, (3, 1.5)), (0, (1, 1.2)), (0, (2, 3))]
    seen: dict[str, int] = {}
    styles = {}
    for model in models:
        group = kind(model)
        styles[model] = (dashed if group == "control" else solid)[seen.get(group, 0) % 3]
        seen[group] = seen.get(group, 0) + 1
    return styles


def mark(axes: Axes, model: str, x: float, y: float) -> None:
    """A model's operating point, in the marker and colour of its kind."""
    marker = MARKERS.get(kind(model), "o")
    axes.plot(x, y, marker=marker, color=color(model), markersize=8, markeredgecolor="white", zorder=5)


def dot(axes: Axes, model: str, x: float, y: float) -> None:
    """A model's value among others: hollow for a control."""
    face = "white" if kind(model) == "control" else color(model)
    marker = MARKERS.get(kind(model), "o")
    axes.plot(x, y, marker=marker, color=color(model), markersize=7, markerfacecolor=face)

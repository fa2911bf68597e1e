"""Figures: the same bytes every time, no stamps inside, and no crash on what real runs contain."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dermdistill.classes import CLASSES
from dermdistill.reporting import plots
from dermdistill.reporting.plots import Interval


def all_figures() -> dict[str, Figure]:
    x = np.linspace(0, 1, 20)
    curve = pd.DataFrame({"fpr": x, "tpr": np.sqrt(x), "recall": x, "precision": 1 - x / 2})
    bins = pd.DataFrame({"confidence": [0.1, 0.5], "frequency": [0.2, 0.5], "count": [90, 10]})
    grid = pd.DataFrame({"threshold": x, "sensitivity": 1 - x, "specificity": x, "f1": x * (1 - x)})
    history = pd.DataFrame({"epoch": [1, 2], "val_loss": [1.0, 0.5], "val_melanoma_auc": [0.7, 0.8]})
    scores = pd.DataFrame({"teacher_a": [0.9, np.nan], "int8_b_s0": [0.8, np.nan]}, index=["nv", "df"])
    models = ["teacher_a", "student_b_s0", "control_b_s0"]
    rows = [
        Interval("teacher_a", 0.9, 0.88, 0.92),
        Interval("control_b_s0", 0.8, None, None),
        Interval("int8_b_s0", None, None, None),
    ]
    return {
        "training": plots.training_curves(dict.fromkeys(models, history)),
        "roc": plots.roc(dict.fromkeys(models, curve), {"teacher_a": (0.95, 0.6)}),
        "pr": plots.precision_recall(dict.fromkeys(models, curve), {}, 0.11),
        "reliability": plots.reliability(bins, "title"),
        "threshold": plots.threshold(grid, {"ships": 0.05}, "title"),
        "confusion": plots.confusion(np.eye(7, dtype=int).tolist(), CLASSES, "title"),
        "comparison": plots.comparison(rows, "AUC", "title"),
        "per_class": plots.per_class(scores, "title"),
        "confidence": plots.confidence({"teacher_a": (x, x > 0.5)}, "title"),
        "panel": plots.panel([np.full((12, 16, 3), 200, np.uint8)] * 5, ["id\nnv"] * 5),
    }


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_are_the_same_every_time_and_carry_no_stamp(tmp_path: Path, suffix: str) -> None:
    matplotlib.rcParams["savefig.dpi"] = 30
    for run in ("a", "b"):
        for name, figure in all_figures().items():
            plots.save(figure, tmp_path / run / f"{name}{suffix}")
    for path in sorted((tmp_path / "a").iterdir()):
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert b"Software" not in content and b"dc:date" not in content and b"dc:creator" not in content


def test_a_figure_is_not_blank_and_small(tmp_path: Path) -> None:
    matplotlib.rcParams["savefig.dpi"] = 144
    for name, figure in all_figures().items():
        plots.save(figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, name
            assert image.width < 1300
        assert (tmp_path / f"{name}.png").stat().st_size < 200_000


def test_panel_shows_every_picture_in_full_size() -> None:
    figure = plots.panel([np.zeros((120, 160, 3), np.uint8)] * 5, ["one\ntwo"] * 5, columns=4)
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 5
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    assert min(text.get_window_extent().y0 for axes in figure.axes for text in axes.texts) >= 0


def test_student_and_control_are_told_apart_without_color() -> None:
    dashes = plots.line_styles(["student_b_s0", "control_b_s0"])
    assert dashes["student_b_s0"] != dashes["control_b_s0"]
    assert len(set(plots.COLORS.values())) == len(set(plots.MARKERS.values())) == 5

"""Figures: the same bytes every time, no stamps inside, and no crash on what real runs contain."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import REPOSITORY, environment
from matplotlib.figure import Figure
from PIL import Image

from dermdistill.core.classes import CLASSES
from dermdistill.evaluation import errors
from dermdistill.reporting import error_figures, figures, model_figures, panels, style
from dermdistill.reporting.model_figures import Interval


def all_figures() -> dict[str, Figure]:
    x = np.linspace(0, 1, 20)
    curve = pd.DataFrame({"fpr": x, "tpr": np.sqrt(x), "recall": x, "precision": 1 - x / 2})
    bins = pd.DataFrame({"confidence": [0.1, 0.5], "frequency": [0.2, 0.5], "count": [90, 10]})
    grid = pd.DataFrame({"threshold": x, "sensitivity": 1 - x, "specificity": x, "f1": x * (1 - x)})
    history = pd.DataFrame({"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_loss": [1.0, 0.5]})
    history = history.assign(val_melanoma_auc=[0.7, 0.8], val_balanced_accuracy=[0.4, 0.5], kept=[1, 0])
    calls = errors.per_class_change(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([0, 0, 0]))
    change = pd.concat([calls.assign(model_a="teacher_a", model_b=name) for name in ("student_b_s0", "int8_b_s0")])
    gap = np.where(np.arange(7) == 5, np.nan, np.eye(7))
    views = [(name, np.maximum(x, 1e-9), 0.1) for name in ("teacher_a", "int8_b_s0")]
    models = ["teacher_a", "student_b_s0", "control_b_s0"]
    rows = [
        Interval("teacher_a", 0.9, 0.88, 0.92),
        Interval("control_b_s0", 0.8, None, None),
        Interval("int8_b_s0", None, None, None),
    ]
    return {
        "training": figures.training_curves(dict.fromkeys(models, history)),
        "roc": figures.roc(dict.fromkeys(models, curve), {"teacher_a": {"sensitivity": 0.95, "specificity": 0.6}}),
        "pr": figures.precision_recall(dict.fromkeys(models, curve), {}, 0.11),
        "reliability": figures.reliability(bins, "title"),
        "threshold": figures.threshold(grid, {"deployed": 0.05}, "title"),
        "confusion": error_figures.confusion(np.eye(7, dtype=int).tolist(), CLASSES, "title"),
        "comparison": model_figures.comparison(rows, "AUC", "title"),
        "per_class": error_figures.per_class(change, "title"),
        "confidence": error_figures.confidence({"teacher_a": (x, x > 0.5)}, "title"),
        "confusion_difference": error_figures.confusion_difference(gap, CLASSES, "title"),
        "agreement": error_figures.agreement(views[0], views[1], x > 0.7, "title"),
        "training_curve": figures.training_curve(history, "teacher_a"),
        "reliability_grid": figures.reliability_grid(dict.fromkeys(models, (bins, bins))),
        "differences": model_figures.differences({"a": rows, "": rows}, "difference", "title"),
        "several": model_figures.several({"AUC": rows, "F1": rows, "ECE": rows}, "title"),
        "panel": panels.panel([np.full((12, 16, 3), 200, np.uint8)] * 5, ["id\nnv"] * 5),
    }


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_files_are_the_same_every_time_and_carry_no_stamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 30)
    for run in ("a", "b"):
        for name, figure in all_figures().items():
            style.save(figure, tmp_path / run / f"{name}{suffix}")
    for path in sorted((tmp_path / "a").iterdir()):
        content = path.read_bytes()
        assert content == (tmp_path / "b" / path.name).read_bytes(), path.name
        assert b"Software" not in content and b"dc:date" not in content and b"dc:creator" not in content


def test_a_figure_is_not_blank_and_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "savefig.dpi", 144)
    for name, figure in all_figures().items():
        style.save(figure, tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 10, name
            assert image.width < 1300
        assert (tmp_path / f"{name}.png").stat().st_size < 200_000


def test_panel_shows_every_picture_in_full_size() -> None:
    figure = panels.panel([np.zeros((120, 160, 3), np.uint8)] * 5, ["one\ntwo"] * 5, columns=4)
    figure.draw_without_rendering()
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == 5
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    assert min(text.get_window_extent().y0 for axes in figure.axes for text in axes.texts) >= 0


def test_student_and_control_are_told_apart_without_color() -> None:
    dashes = style.line_styles(["student_b_s0", "control_b_s0"])
    assert dashes["student_b_s0"] != dashes["control_b_s0"]
    assert len(set(style.COLORS.values())) == len(set(style.MARKERS.values())) == 5


def test_a_label_tells_the_kind_of_model() -> None:
    labels = ("int8_tiny_s0 onnx_int8", "teacher_ensemble", "baseline_svm", "control", "kd_T4_a0.9", "student_tiny")
    assert [style.kind(label) for label in labels] == ["int8", "teacher", "baseline", "control", "", ""]


def test_no_plotting_code_loads_torch() -> None:
    code = (
        "import sys; from dermdistill.reporting import data_figures, error_figures, figures, model_figures, panels, "
        "readme, report, verify; "
        "print({'torch', 'timm', 'captum', 'matplotlib.pyplot'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_only_the_style_sets_a_style() -> None:
    for path in (REPOSITORY / "src/dermdistill/reporting").glob("*.py"):
        assert path.name == "style.py" or "rcParams" not in path.read_text(), path
        assert path.name == "style.py" or "Figure(" not in path.read_text().replace("-> Figure", ""), path


LISTED = re.findall(r"`((?:plots|reports|metrics|data)/[^`]*[^`/])`", (REPOSITORY / "docs/figures.md").read_text())


@pytest.mark.parametrize("name", sorted(set(LISTED)))
def test_every_figure_of_the_checklist_exists_or_is_an_output(name: str) -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    outs = [next(iter(out)) if isinstance(out, dict) else out for stage in stages.values() for out in stage["outs"]]
    assert (REPOSITORY / name).is_file() or name in outs


def test_the_checklist_names_every_figure_we_draw() -> None:
    drawn = [path for folder in ("figures", "errors") for path in (REPOSITORY / "plots" / folder).glob("*.png")]
    missing = {str(path.relative_to(REPOSITORY)) for path in drawn} - set(LISTED)
    assert {name for name in missing if not re.search(r"(training|student|confusion_difference)_", name)} == set()

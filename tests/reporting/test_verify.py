"""Verify finds what was tampered with in a small synthetic project, and nothing in an honest one."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers import REPOSITORY, change_params, edit

from dermdistill import params
from dermdistill.core.files import write_text
from dermdistill.metrics import predictions
from dermdistill.reporting import readme
from dermdistill.reporting.verify import _check_candidates, _collected, differences, verify

TEACHER = params.load(REPOSITORY / "params.yaml").teacher_id


def test_another_shipped_file_is_found(report_copy: Path) -> None:
    with (report_copy / "models/deploy/student.int8.onnx").open("a") as model:
        model.write("!")
    assert [line.split(":")[0] for line in verify(report_copy)] == [
        "metrics/ship.json",
        "models/deploy/student.int8.json",
    ]
    (report_copy / "models/deploy/student.int8.onnx").unlink()
    assert "student.int8.onnx does not exist" in verify(report_copy)[0]


def test_another_threshold_in_the_shipped_file_is_found(report_copy: Path) -> None:
    edit(report_copy / "models/deploy/student.int8.json", ["thresholds", "sensitivity"], 0.5)
    assert [line.split(": ")[0] for line in verify(report_copy)] == [
        "models/deploy/student.int8.json:thresholds.sensitivity"
    ]


def test_an_honest_project_has_no_mismatch(pristine: Path) -> None:
    assert verify(pristine) == []


TAMPERED = [
    ("metrics/holdout/student_tiny_s0.json", ["melanoma", "roc_auc"]),
    ("metrics/holdout/int8_tiny_s0.json", ["melanoma", "histology", "roc_auc"]),
    ("metrics/val/teacher_lite0.json", ["diagnosis", "per_class", "bkl", "f1"]),
    ("metrics/calibrate/student_tiny_s0.json", ["temperature"]),
    ("metrics/summary.json", ["int8_tiny_s0", "holdout", "macro_f1"]),
    ("metrics/holdout/baseline_logistic.json", ["melanoma", "roc_auc"]),
    ("metrics/holdout/int8_tiny_s0.json", ["selective", "conformal", "marginal", "coverage"]),
    ("metrics/calibrate/int8_tiny_s0.json", ["conformal", "marginal"]),
    ("metrics/robustness/int8_tiny_s0.json", ["conditions", "blur", "3", "roc_auc"]),
    (f"metrics/robustness/{TEACHER}.json", ["mean_drop", "macro_f1", "drop"]),
    ("metrics/compare/models.json", ["families", "student_tiny", "melanoma.roc_auc", "mean"]),
    ("metrics/compare/calibration.json", ["int8_tiny_s0", "methods", "vector", "holdout", "nll"]),
]


def test_every_tampered_number_is_named(report_copy: Path) -> None:
    for name, keys in TAMPERED:
        edit(report_copy / name, keys, 0.987654)
    found = verify(report_copy)
    for name, keys in TAMPERED:
        start = f"{name}:{'.'.join(keys)}: committed 0.987654 vs recomputed"
        assert [line.startswith(start) for line in found].count(True) == 1, name


def test_a_tampered_interval_is_named(report_copy: Path) -> None:
    name = "metrics/holdout/control_tiny_s0.json"
    edit(report_copy / name, ["intervals", "melanoma.roc_auc"], [0.5, 0.99])
    assert any("intervals.melanoma.roc_auc[1]: committed 0.99" in line for line in verify(report_copy))


@pytest.mark.parametrize(
    ("name", "start"), [("README.md", "| **the student in INT8"), ("docs/results.md", "| **`int8_tiny_s0`**")]
)
def test_a_tampered_document_is_named(report_copy: Path, name: str, start: str) -> None:
    document = report_copy / name
    lines = document.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith(start))
    lines[row] = lines[row].replace("0.", "0.9", 1)
    document.write_text("\n".join(lines) + "\n")
    found = verify(report_copy)
    assert len(found) == 1 and found[0].startswith(f"{name}:line")


CANDIDATES = """scheme,agreement,auc_drop,equal_decisions,bytes,time_ratio,violations
default,0.848322,0.054337,0.762416,1119653,0.68,"auc_drop 0.05434 (allowed 0.003), agreement 0.8483 (needed 0.95)"
minmax,0.98255,-0.00018,0.985235,1259277,0.5,
entropy,0.98,0.002,0.98,1259274,0.6,
"""


def test_the_candidates_stand_in_their_document_as_they_were_measured(report_copy: Path) -> None:
    document, measured = report_copy / readme.CANDIDATES, report_copy / readme.MEASURED / "int8_tiny_s0.csv"
    settings = params.load(report_copy / "params.yaml")

    def verify_candidates() -> list[str]:
        return _collected(_check_candidates(report_copy, settings))

    write_text(document, "Before.\n\n<!-- candidates -->\n<!-- /candidates -->\n\nAfter.\n")
    assert "int8_tiny_s0.csv does not exist" in verify_candidates()[0]
    write_text(measured, CANDIDATES)
    assert {line.split(":")[0] for line in verify(report_copy)} == {readme.CANDIDATES}
    readme.insert(document, "candidates", readme.candidates_text(report_copy, settings))
    assert verify_candidates() == []
    text = document.read_text()
    assert "| `default` | 0.054 | 84.8 % | 76.2 % | 1,120 | 0.68 | `auc_drop`, `agreement` |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| **`minmax`** | 0.000 | 98.3 % | 98.5 % | 1,259 | 0.50 |  |" in rows
    assert sum("**" in row for row in rows) == 1, "the first without violations is selected"
    write_text(measured, CANDIDATES.replace("0.054337", "0.044337"))
    assert len(verify_candidates()) == 1


def test_a_prediction_left_out_is_named(report_copy: Path) -> None:
    path = report_copy / "predictions/holdout/student_tiny_s0.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert any("its 299 images are not the 300 of the split" in line for line in verify(report_copy))


def test_a_changed_probability_shows_in_the_metrics(report_copy: Path) -> None:
    path = report_copy / "predictions/holdout/control_tiny_s0.csv"
    table = pd.read_csv(path)
    values = table.filter(like="p_").to_numpy()[::-1]
    predictions.write(path, table["image_id"], table["lesion_id"], table["dx"], values)
    assert any(line.startswith("metrics/holdout/control_tiny_s0.json:melanoma.roc_auc") for line in verify(report_copy))


def test_predictions_on_corrupted_images_must_be_the_chosen_models_and_images(report_copy: Path) -> None:
    folder = report_copy / "predictions/corrupted"
    shutil.copy(folder / f"{TEACHER}.npz", folder / "int8_tiny_s0.npz")
    change_params(report_copy, {"robustness.images": 50})
    lines = verify(report_copy)
    assert len(lines) == 3 and all("not of the images that robustness.images" in line for line in lines)
    change_params(report_copy, {"robustness.images": 60})
    lines = verify(report_copy)
    assert lines and all("int8_tiny_s0.npz comes from another model" in line for line in lines)


def test_a_missing_file_is_one_line_and_no_crash(report_copy: Path) -> None:
    (report_copy / "metrics/val/teacher_lite0.json").unlink()
    found = verify(report_copy)
    assert len(found) == 1 and "teacher_lite0.json does not exist" in found[0]


def test_the_published_numbers_follow_from_the_committed_predictions() -> None:
    """What `make verify` does, in this repository: a minute and a half of `make test`."""
    assert verify(REPOSITORY) == []


def test_null_is_not_zero_and_keys_may_not_vanish() -> None:
    assert list(differences("f", {"a": None}, {"a": 0.0}, 1e-6)) == ["f:a: committed None vs recomputed 0.0"]
    assert len(list(differences("f", {"a": 1.0}, {"a": 1.0, "b": 2.0}, 1e-6))) == 1
    assert len(list(differences("f", {"a": [1]}, {"a": [1, 2]}, 1e-6))) == 1

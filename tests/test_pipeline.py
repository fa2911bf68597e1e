"""The pipeline as DVC sees it: dependencies, what the holdout can reach, and one whole run."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from helpers import REPOSITORY, change_params, cloned, dvc, environment, write_documents
from test_architecture import modules, reached

from dermdistill import demo, params
from dermdistill.core import parts
from dermdistill.errors import UserError
from dermdistill.metrics import calibration, predictions
from dermdistill.reporting import verify

ROOT, SRC = REPOSITORY, REPOSITORY / "src"
PASSIVE = ("errors.py", "tracking.py", "params.py", "blocks.py")  # see dvc.yaml
STAGES: dict[str, dict] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def reached_code(stage: str) -> set[str]:
    """Every file of ours that a stage's script imports, directly or not, and that can change its result."""
    script = ROOT / (STAGES[stage]["cmd"].split()[2].replace(".", "/") + ".py")
    files = {script} | {file for module in modules(script) for file in reached(module)}
    return {file.relative_to(ROOT).as_posix() for file in files if file.name not in PASSIVE}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_what_it_imports_and_nothing_else(name: str) -> None:
    """A listed folder or file covers each import, and each listed one has an import."""
    code, listed = reached_code(name), [dep for dep in STAGES[name]["deps"] if dep.startswith(("src/", "stages/"))]
    covers = {dep: {file for file in code if file == dep or file.startswith(f"{dep}/")} for dep in listed}
    assert code - set().union(*covers.values()) == set()
    assert [dep for dep, files in covers.items() if not files] == []
    assert all((ROOT / dep).exists() for dep in listed)


def test_packages_hold_no_code_that_deps_would_miss() -> None:
    """But for the package's own, which names the version and the API, imported when asked for."""
    for path in (SRC / "dermdistill").rglob("*/__init__.py"):
        assert all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body), path


def test_passive_modules_cannot_change_a_result() -> None:
    for name in PASSIVE:
        assert {path.name for path in reached(SRC / "dermdistill" / name)} <= set(PASSIVE)


def test_expensive_stages_are_remembered() -> None:
    """DVC remembers runs only of stages whose outputs are all cached (or metrics and plots), none of them kept."""
    for name in ("train_teacher", "teacher_targets", "distill", "control", "quantize", "predict_teacher", "predict"):
        assert all(isinstance(out, str) for out in STAGES[name]["outs"]), name


def test_the_pipeline_is_short_enough_to_read() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 420


def ancestors(root: Path = ROOT) -> dict[str, set[str]]:
    """Stage address → every path it or a stage before it depends on."""
    stages = [stage for stage in Repo(root).index.stages if hasattr(stage, "name")]
    deps = {stage.name: {dep.def_path for dep in stage.deps} for stage in stages}
    makers = {out.def_path: stage.name for stage in stages for out in stage.outs}

    def closure(name: str, seen: set[str]) -> set[str]:
        for dep in deps[name] - seen:
            seen.add(dep)
            for out, maker in makers.items():
                if dep == out or out.startswith(f"{dep}/") or dep.startswith(f"{out}/"):
                    closure(maker, seen)
        return seen

    return {name: closure(name, set()) for name in deps}


def test_nothing_that_trains_calibrates_or_chooses_sees_holdout_results() -> None:
    reach = ancestors()
    choosing = [name for name in reach if name.split("@")[0] in CHOOSING]
    assert {name.split("@")[0] for name in choosing} == CHOOSING
    for name in choosing:
        seen = {path for path in reach[name] if "holdout" in path or path.startswith(("plots/", "docs/", "reports/"))}
        allowed = {"data/splits/holdout.csv"} if name.split("@")[0] in PREDICTED_FROM else set()
        assert seen <= allowed, name
    assert any("predictions/holdout" in path for path in reach["report"])  # the walk does find what is there


def test_nothing_but_the_report_depends_on_another_source(pipeline: Path) -> None:
    """Nothing that trains, keeps an epoch, calibrates, quantizes, sets a threshold or ships."""
    folders = {"other", "raw_other", "features_other", "predictions_other"}
    touched = {
        name.split("@")[0]
        for name, paths in ancestors(pipeline).items()
        if any(folders & set(Path(path).parts) for path in paths)
    }
    assert touched == {name for name in STAGES if name.endswith("_other")} - {"raw_other"} | {"report"}
    assert not touched & CHOOSING


def test_without_another_source_the_report_is_the_only_stage_that_changes(pipeline: Path, tmp_path: Path) -> None:
    folder = cloned(pipeline, tmp_path / "without")
    change_params(folder, {"data.other": []})
    assert set(json.loads(dvc(folder, "status", "--json"))) == {"report"}
    dvc(folder, "repro", "--quiet")
    assert "other" not in (folder / "docs/tables/results.md").read_text()
    assert set(json.loads((folder / "metrics/summary.json").read_text())["int8_tiny_s0"]) == {"val", "holdout"}
    write_documents(folder)
    assert verify.verify(folder) == []


CHOOSING = {"train_teacher", "teacher_targets", "ensemble", "distill", "control", "quantize", "baseline"}
CHOOSING |= {"calibrate", "ship"}
# Their predictions on val come from a stage that also writes those on the holdout, hence needs its list of images.
PREDICTED_FROM = {"baseline", "calibrate", "ship"}


def test_committed_splits_share_no_lesion_and_no_image() -> None:
    tables = [pd.read_csv(ROOT / f"data/splits/{name}.csv", dtype=str) for name in ("train", "val", "holdout")]
    together = pd.concat(tables)
    assert len(together) == together["image_id"].nunique() == 10_015
    assert sum(table["lesion_id"].nunique() for table in tables) == together["lesion_id"].nunique() == 7_470


@pytest.mark.parametrize(("stage", "arguments"), [("predict", []), ("evaluate", ["a", "b"]), ("prepare", ["x"])])
def test_a_stage_called_wrongly_says_how(stage: str, arguments: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"stages.{stage}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "takes" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_overwrites_no_folder_but_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").write_text("years of work")
    monkeypatch.chdir(ROOT)
    for folder, says in ((tmp_path / "work", "no earlier demo"), (ROOT, "no earlier demo")):
        with pytest.raises(UserError, match=says):
            demo.main(str(folder))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not the top folder"):
        demo.main("elsewhere")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["thesis.txt"]


def test_one_command_makes_everything(pipeline: Path) -> None:
    settings = params.load(pipeline / "params.yaml")
    for model_id in settings.model_ids():
        for part in ("val", "holdout"):
            assert (pipeline / f"predictions/{part}/{model_id}.csv").is_file()
            assert (pipeline / f"metrics/{part}/{model_id}.json").is_file()
    for model_id in settings.evaluated_ids():
        for part in parts.of_source("elsewhere"):
            assert (pipeline / f"predictions/{part}/{model_id}.csv").is_file()
            assert (pipeline / f"metrics/{part}/{model_id}.json").is_file()
    assert (pipeline / "models/deploy/student.int8.onnx").stat().st_size < 4_000_000
    assert (pipeline / "reports/report.html").stat().st_size < 10_000_000
    assert json.loads((pipeline / "metrics/split.json").read_text())["lesions_in_several_parts"] == 0


def test_the_lock_of_the_committed_run_is_short_enough_to_compare(pipeline: Path) -> None:
    """Counted from the phantom, since stages that wait for their next run are not in the committed one."""
    lines: dict[str, list[int]] = {}
    for name, stage in yaml.safe_load((pipeline / "dvc.lock").read_text())["stages"].items():
        lines.setdefault(name.split("@")[0], []).append(1 + len(yaml.safe_dump(stage).splitlines()))
    names = [stage.name.split("@")[0] for stage in Repo(ROOT).index.stages]
    assert sum(sum(lines[name]) / len(lines[name]) for name in names) <= 5_000


def test_a_second_repro_reruns_nothing(at_rest: Path) -> None:
    assert "up to date" in dvc(at_rest, "repro")
    assert json.loads(dvc(at_rest, "status", "--json")) == {}


def test_the_plots_of_dvc_have_something_to_draw(at_rest: Path, tmp_path: Path) -> None:
    dvc(at_rest, "plots", "show", "-o", str(tmp_path / "shown"))
    page = (tmp_path / "shown/index.html").read_text()
    for drawn in ("plots_training_teacher_lite0", "plots_curves_roc_int8_tiny_s0", "plots_confusion_int8_tiny_s0"):
        assert f'id = "{drawn}_csv"' in page
    assert "var spec = {};" not in page  # what DVC writes for a plot it could not load


def test_every_published_number_can_be_recomputed(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(pipeline, folder, ignore=shutil.ignore_patterns(".dvc", "runtime", "raw"))
    write_documents(folder)
    assert verify.verify(folder) == []


def test_the_shipped_file_answers_as_evaluated(pipeline: Path, tmp_path: Path) -> None:
    """`dermdistill predict` on a raw file gives the calibrated probabilities behind the published metrics."""
    known = pd.read_csv(pipeline / "predictions/holdout/int8_tiny_s0.csv").iloc[0]
    for archive in (pipeline / "data/raw").glob("*.zip"):
        with zipfile.ZipFile(archive) as images:
            if f"{known['image_id']}.jpg" in images.namelist():
                (tmp_path / "one.jpg").write_bytes(images.read(f"{known['image_id']}.jpg"))
    command = [sys.executable, "-m", "dermdistill.cli", "predict", str(tmp_path / "one.jpg"), "--json"]
    done = subprocess.run(command, cwd=pipeline, capture_output=True, text=True, env=environment())
    answer = json.loads(done.stdout)

    holdout = predictions.read(pipeline / "predictions/holdout/int8_tiny_s0.csv")
    fitted = calibration.read(pipeline / "metrics/calibrate/int8_tiny_s0.json")
    expected = fitted.apply(holdout.probabilities)[list(holdout.image_id).index(known["image_id"])]
    assert list(answer["probabilities"].values()) == pytest.approx(expected, abs=1e-3)

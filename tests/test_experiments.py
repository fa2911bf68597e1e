"""Used as its users use it: what reruns, experiments from queue to comparison, tracked runs, a shared remote."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from helpers import REPOSITORY, change_params, cloned, dvc, environment, git, this_python_first

from dermdistill import params, presets
from dermdistill.core.files import sha256
from dermdistill.errors import UserError

GUIDE, STUDENT = REPOSITORY / "docs/experiments.md", "students/student_tiny_s0"


@pytest.fixture
def clone(pipeline: Path, tmp_path: Path) -> Path:
    """A clone with everything pulled, so that nothing needs to be rebuilt in it."""
    return cloned(pipeline, tmp_path / "clone")


# Only what changed is rebuilt -------------------------------------------------------------------------------------


def reruns(folder: Path) -> tuple[set[str], set[str]]:
    """Addresses of the stages DVC calls changed that follow from no other changed one; of these and all that follow."""
    with Repo(folder) as repo:  # folder is the current one, so that an address is a stage's name
        changed, graph = set(repo.status()), repo.index.graph  # its edges run from a stage to what it needs
        names = {stage: stage.addressing for stage in graph}
        following = {names[other] for stage in graph if names[stage] in changed for other in nx.ancestors(graph, stage)}
    return changed - following, changed | following


def promised() -> dict[str, set[str]]:
    """The guide's table: what is changed → the stages said to rerun first."""
    text = GUIDE.read_text()
    rows = re.findall(r"^\| `([^`]+)`[^|]* \| (.+) \|$", text.split("## What reruns when")[1].split("##")[0], re.M)
    return {changed: set(re.findall(r"`([a-z0-9_]+)`", stages)) for changed, stages in rows}


CHANGES = {
    "data.height": 40,
    "audit.inliers": 12,
    "split.seed": 1,
    "train.weight_decay": 0.5,
    "teachers.lite2.lr": 1.0e-4,
    "students.tiny.lr": 1.0e-4,
    "kd.alpha": 0.1,
    "kd.num_views": 2,
    "quantize.candidates": ["entropy"],
    "baselines.models.svm.c": 1.0,
    "calibrate.sensitivity": 0.9,
    "evaluate.bins": 5,
    "run.teachers": ["lite0", "lite2", "lite1"],
}
FILES = [
    f"src/dermdistill/{name}.py"
    for name in (
        "training/loop", "distillation/losses", "metrics/calibration", "evaluation/bootstrap", "reporting/style",
    )
]  # fmt: skip


@pytest.fixture
def changeable(at_rest: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(at_rest)  # DVC names stages relative to it
    yield at_rest
    git(at_rest, "checkout", "--quiet", ".")


def test_nothing_reruns_at_rest(changeable: Path) -> None:
    assert reruns(changeable) == (set(), set())


@pytest.mark.parametrize("name", [*CHANGES, *FILES])
def test_a_change_reruns_what_the_guide_says(name: str, changeable: Path) -> None:
    if name in CHANGES:
        change_params(changeable, {name: CHANGES[name]})
    else:
        (changeable / name).write_text((changeable / name).read_text() + "# changed\n")
    assert {address.split("@")[0] for address in reruns(changeable)[0]} == promised()[name]


def test_the_guide_promises_nothing_else() -> None:
    assert set(promised()) == {*CHANGES, *FILES}


def test_alpha_retrains_no_control_and_a_new_teacher_no_old_one(changeable: Path) -> None:
    change_params(changeable, {"kd.alpha": 0.1})
    spared = {address for address in reruns(changeable)[1] if "control" in address or "teacher" in address}
    assert not spared
    git(changeable, "checkout", "--quiet", ".")
    change_params(changeable, {"run.teachers": ["lite0", "lite2", "lite1"]})
    first, following = reruns(changeable)
    assert first == {"train_teacher@lite1"}
    assert not {one for one in following if "control" in one or "lite0" in one}


@pytest.mark.slow
def test_students_depend_on_their_own_teachers_alone(clone: Path) -> None:
    """Another teacher trains no student again; becoming theirs does, and trains neither control nor old teacher."""
    lite1 = yaml.safe_load((clone / "params.yaml").read_text())["teachers"]["lite0"]
    change_params(clone, {"run.teachers": ["lite0", "lite2", "lite1"], "teachers.lite1": lite1 | {"seed": 1}})
    said = dvc(clone, "repro", "distill@tiny-0")
    assert "Running stage 'train_teacher@lite1'" in said and "Running stage 'ensemble'" in said
    assert "Stage 'distill@tiny-0' didn't change, skipping" in said
    change_params(clone, {"kd.teachers": ["lite0", "lite1"]})
    said = dvc(clone, "repro", "distill@tiny-0", "control@tiny-0")
    ran = set(re.findall(r"Running stage '([^']+)'", said))
    assert ran == {"teacher_targets@lite1", "ensemble", "distill@tiny-0"}
    change_params(clone, {"teachers.lite1.seed": 2})
    said = dvc(clone, "repro", "distill@tiny-0", "control@tiny-0")
    ran = set(re.findall(r"Running stage '([^']+)'", said))
    assert ran == {"train_teacher@lite1", "teacher_targets@lite1", "ensemble", "distill@tiny-0"}


def ran(said: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", said))


TRAINED = {"distill@tiny-0", "quantize@tiny-0", "predict@student-tiny-0", "predict@int8-tiny-0"}


@pytest.mark.slow
def test_an_alpha_tried_before_trains_nothing_also_in_a_second_checkout(clone: Path, tmp_path: Path) -> None:
    """DVC's run cache: α to 0.9, to 0.2 and back trains twice; a second checkout with that cache trains nothing."""
    targets = ["predict@student-tiny-0", "predict@int8-tiny-0"]
    for alpha, expected in ((0.9, TRAINED), (0.2, TRAINED), (0.9, set())):
        change_params(clone, {"kd.alpha": alpha})
        assert ran(dvc(clone, "repro", *targets)) == expected, alpha
    weights = sha256(clone / "models/students/student_tiny_s0/model.safetensors")
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(clone), str(second))
    dvc(second, "config", "--local", "cache.dir", str(clone / ".dvc/cache"))
    change_params(second, {"kd.alpha": 0.9})  # its dvc.lock knows nothing of this α
    dvc(second, "checkout", "--quiet", "--allow-missing")
    assert ran(dvc(second, "repro", *targets)) == set()
    assert sha256(second / "models/students/student_tiny_s0/model.safetensors") == weights


# Experiments ------------------------------------------------------------------------------------------------------


def commands(section: str) -> list[list[str]]:
    """The lines after ``$`` of one section of the guide, as a shell would split them."""
    text = GUIDE.read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return [shlex.split(line[2:]) for line in text.splitlines() if line.startswith("$ ")]


@pytest.mark.slow
def test_the_guides_ablation_from_queue_to_comparison(clone: Path) -> None:
    baseline = {path.name: path.read_bytes() for path in (clone / "metrics/holdout").iterdir()}
    teacher = sha256(clone / "models/teachers/teacher_lite0/model.safetensors")
    said = {}
    for program, *arguments in commands("An ablation, from queue to comparison"):
        assert program == "dvc"
        if arguments[:2] == ["queue", "start"]:  # what is queued is a snapshot: breaking the code now changes nothing
            broken = clone / "stages/distill.py"
            content = broken.read_text()
            broken.write_text("raise SystemExit('not the code that was queued')\n")
        said[" ".join(arguments[:2])] = dvc(clone, *arguments, tracking="on")
        if arguments[:2] == ["queue", "start"]:
            wait_for_queue(clone)
            broken.write_text(content)

    assert "alpha-1" in said["exp show"] and "alpha-2" in said["exp show"] and "student_tiny_s0" in said["exp show"]
    assert "kd.alpha" in said["params diff"] and "control_tiny_s0" not in said["metrics diff"]
    assert "student_tiny_s0.val.melanoma_roc_auc" in said["metrics diff"]
    page = (clone / "dvc_plots/index.html").read_text()
    assert "plots_training_student_tiny_s0" in page and "alpha-1" in page
    log = dvc(clone, "queue", "logs", "alpha-1")
    assert "Stage 'train_teacher@lite0' didn't change, skipping" in log and "stages.distill tiny 0" in log

    assert "alpha: 0.9" in (clone / "params.yaml").read_text()  # alpha-2, applied
    assert sha256(clone / "models/teachers/teacher_lite0/model.safetensors") == teacher
    changed = {p.name for p in (clone / "metrics/holdout").iterdir() if p.read_bytes() != baseline[p.name]}
    assert changed and changed <= {"student_tiny_s0.json", "int8_tiny_s0.json"}
    assert json.loads(dvc(clone, "status", "--json")) == {}
    names = {run["tags.mlflow.runName"] for run in runs(clone) if pd.isna(run["tags.mlflow.parentRunId"])}
    assert {"alpha-1", "alpha-2"} <= names  # logged to the repository they were queued in


def test_a_queued_experiment_trains_the_student_alone_with_the_code_of_then(clone: Path) -> None:
    """The guide's ablation, shorter: one experiment, and no further than the student."""
    weights, of_teacher = (clone / f"models/{name}/model.safetensors" for name in (STUDENT, "teachers/teacher_lite0"))
    before = [sha256(path) for path in (weights, of_teacher)]
    dvc(clone, "exp", "run", "--queue", "--name", "alpha", "-S", "kd.alpha=0.9", "distill@tiny-0")
    broken, content = clone / "stages/distill.py", (clone / "stages/distill.py").read_text()
    broken.write_text("raise SystemExit('not the code that was queued')\n")
    dvc(clone, "queue", "start")
    wait_for_queue(clone)
    broken.write_text(content)
    assert [sha256(path) for path in (weights, of_teacher)] == before, "the working copy was left alone"
    dvc(clone, "exp", "apply", "alpha")
    assert [sha256(path) == old for path, old in zip((weights, of_teacher), before, strict=True)] == [False, True]
    assert "alpha: 0.9" in (clone / "params.yaml").read_text()


def wait_for_queue(folder: Path, seconds: float = 900) -> None:
    for _ in range(int(seconds)):
        status = dvc(folder, "queue", "status")
        if not re.search(r"\b(Queued|Running|Failed)\b", status):
            dvc(folder, "queue", "stop", "--kill")  # a worker of DVC's may hang after its last task
            return
        assert "Failed" not in status, status
        time.sleep(1)
    raise AssertionError(status)


@pytest.mark.slow
def test_a_preset_becomes_an_experiment_in_a_copy(clone: Path) -> None:
    (clone / "presets/rich.yaml").write_text("kd: {alpha: 0.6}\nanalyze_errors: {panel_images: 2}\n")
    before = (clone / "params.yaml").read_bytes()
    command = [sys.executable, "-m", "dermdistill.presets", "rich", "--name", "rich", "-S", "kd.alpha=0.4"]
    subprocess.run(command, cwd=clone, env=this_python_first(environment()), check=True, capture_output=True)
    assert (clone / "params.yaml").read_bytes() == before
    difference = dvc(clone, "params", "diff", "main", "rich", "--json")
    new = {name: values["new"] for name, values in json.loads(difference)["params.yaml"].items()}
    assert new == {"kd.alpha": 0.4, "analyze_errors.panel_images": 2}  # what is given by hand wins


def test_presets_fit_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert presets.read("laptop") == {}
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for path in (REPOSITORY / "presets").glob("*.yaml"):
        preset = presets.read(path.stem)
        params.check(presets.merged(content, preset), path)
        for flag in presets.flags(preset)[1::2]:  # DVC sets what exists
            *blocks, last = flag.partition("=")[0].split(".")
            assert last in reduce(dict.__getitem__, blocks, content), flag
    assert presets.flags({"a": {"b": [1, "x"], "c": None}}) == ["-S", 'a.b=[1, "x"]', "-S", "a.c=null"]
    with pytest.raises(UserError, match=r"no preset 'dmeo'.*demo, laptop"):
        presets.read("dmeo")


# Tracked runs -----------------------------------------------------------------------------------------------------


def runs(folder: Path) -> list[dict[str, object]]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/runtime/mlflow.db")
    found: list[dict[str, object]] = mlflow.search_runs(experiment_names=["dermdistill"]).to_dict("records")
    return found


def test_one_run_a_step_below_one_for_the_pipeline(pipeline: Path) -> None:
    found = runs(pipeline)
    parents = [run for run in found if pd.isna(run["tags.mlflow.parentRunId"])]
    assert len(parents) == 1 and parents[0]["status"] == "FINISHED"
    headline = json.loads((pipeline / "metrics/summary.json").read_text())["int8_tiny_s0"]["holdout"]
    assert parents[0]["metrics.int8_tiny_s0.holdout.melanoma_roc_auc"] == headline["melanoma_roc_auc"]
    models = ("teacher_lite0", "teacher_lite2", "student_tiny_s0", "control_tiny_s0")
    judged = (*models, "teacher_ensemble", "int8_tiny_s0")
    expected = {f"train {name}" for name in models} | {f"evaluate {name}" for name in judged}
    expected |= {"quantize int8_tiny_s0", "ship int8_tiny_s0", "export student_tiny_s0", "benchmark"}
    children = {run["tags.mlflow.runName"]: run for run in found if run is not parents[0]}
    assert set(children) == expected
    assert {run["tags.mlflow.parentRunId"] for run in children.values()} == {parents[0]["run_id"]}
    assert children["train student_tiny_s0"]["tags.DVC_STAGE"] == "distill@tiny-0"


def test_the_champion_answers_as_the_shipped_file(pipeline: Path) -> None:
    import mlflow

    from dermdistill import Detector

    mlflow.set_tracking_uri(f"sqlite:///{pipeline}/runtime/mlflow.db")
    champion = mlflow.pyfunc.load_model("models:/dermdistill@champion")
    deployed = pipeline / "models/deploy"
    files = [(deployed / "example.jpg").read_bytes(), (deployed / "example.png").read_bytes(), b"no image"]
    expected = Detector.load(deployed / "student.int8.onnx").predict(files)
    assert champion.predict(pd.DataFrame({"image": files})) == [answer.to_dict() for answer in expected]
    assert [answer.outcome == "cannot judge" for answer in expected] == [False, False, True]


@pytest.mark.slow
def test_tracking_and_forks_change_no_bit(clone: Path) -> None:
    """The pipeline ran tracked, in forks of one process; what is made anew, untracked and without MLflow's database, in
    processes of its own, is the same."""
    assert not (clone / "runtime/mlflow.db").exists()
    again = ("train_teacher@lite0", "distill@tiny-0", "predict@int8-tiny-0", "evaluate", "analyze_errors", "report")
    assert ran(dvc(clone, "repro", "--force", "--single-item", "--no-run-cache", *again)) == set(again)
    assert git(clone, "status", "--porcelain") == "", "dvc.lock holds the hashes of weights, predictions and pictures"
    assert not (clone / "runtime/mlflow.db").exists()


# Shared between machines ------------------------------------------------------------------------------------------


def test_what_one_pushed_another_pulls_and_trains_nothing(clone: Path) -> None:
    said = dvc(clone, "repro")
    assert "Running stage" not in said and "up to date" in said


def test_a_clone_without_data_and_remote_finds_everything_current(pipeline: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    git(tmp_path, "clone", "--quiet", str(pipeline), str(folder))
    said = dvc(folder, "repro", "--allow-missing", "--dry")
    assert "Running stage" not in said


# Accidents --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_dvc_killed_leaves_a_training_that_the_next_repro_respects(clone: Path) -> None:
    """SIGKILL to dvc alone leaves its child training; then: one sentence, and in the end the same bits."""
    change_params(clone, {"students.tiny.epochs": 40})
    command = [sys.executable, "-m", "dvc", "repro", "control@tiny-0"]
    settings = this_python_first(os.environ)
    running = subprocess.Popen(command, cwd=clone, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    checkpoints = clone / "runtime/checkpoints"
    for _ in range(1200):
        if checkpoints.is_dir() and list(checkpoints.glob("control_tiny_s0-*")):
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    orphans = subprocess.run(["pgrep", "-f", "stages.control tiny 0"], capture_output=True, text=True, check=True)
    here = [int(p) for p in orphans.stdout.split() if os.readlink(f"/proc/{p}/cwd") == str(clone.resolve())]
    for process in here:
        os.kill(process, signal.SIGSTOP)  # else it might be done before dvc has started
    again = subprocess.run(command, cwd=clone, env=settings, capture_output=True, text=True, check=False)
    assert again.returncode != 0 and "is being trained by another process" in again.stdout + again.stderr
    for process in here:
        os.kill(process, signal.SIGKILL)
    dvc(clone, "repro", "--quiet", "control@tiny-0")
    resumed = sha256(clone / "models/students/control_tiny_s0/model.safetensors")
    dvc(clone, "repro", "--quiet", "--force", "--single-item", "--no-run-cache", "control@tiny-0")
    assert sha256(clone / "models/students/control_tiny_s0/model.safetensors") == resumed


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_a_sentence_and_leaves_no_half_file(pipeline: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    try:
        for name in ("data/raw", "params.yaml"):
            (disk / name).parent.mkdir(parents=True, exist_ok=True)
            (disk / name).symlink_to(pipeline / name)
        (disk / "filler").write_bytes(b"0" * (4 * 2**20 - 200_000))
        command = [sys.executable, "-m", "stages.prepare"]
        done = subprocess.run(command, cwd=disk, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "error: the disk is full" in done.stderr, done.stderr
        assert [path.name for path in (disk / "data").rglob("*") if path.is_file() and "raw" not in str(path)] == []
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

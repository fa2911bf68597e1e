"""``make ablation``: temperature × α, methods of distillation, and shapes of the student, beside its control.

All runs have the same epochs (``ablation.epochs``), the control too, which is the run with α = 0. Every run is an
experiment in DVC's queue that ends with the student's predictions. As soon as one is done, those on val are copied into
``predictions/ablation/`` with the parameters that gave them, because experiments do not travel with a clone. Started
again it skips what is done and goes on with the rest; a run counts as done as long as the parameters it depends on are
those in params.yaml (code is not compared). Nothing here reads the holdout.
"""

import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dermdistill import params, presets
from dermdistill.core.files import read_json, write_json, write_text
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.params import Model, Params

FOLDER = Path("predictions/ablation")
OPEN = ("Queued", "Running")
ROUNDS = 15  # of looking for results, after which the state of the queue is read


def runs(settings: Params) -> dict[str, dict[str, Any]]:
    """Name of each run → the parameters it changes.

    Raises:
        UserError: if the run has no stage that trains the student and seed; a run without ablation may leave them out.
    """
    wanted = settings.ablation
    for name, value, allowed in (
        ("student", wanted.student, settings.run.students),
        ("seed", wanted.seed, settings.run.seeds),
    ):
        if value not in allowed:
            names = ", ".join(map(str, allowed))
            raise UserError(f"ablation.{name} names {value!r}, which is not in run.{name}s ({names})")
    grid: dict[str, dict[str, Any]] = {wanted.CONTROL: {"kd.method": "kd", "kd.temperature": 1.0, "kd.alpha": 0.0}}
    grid |= {
        f"kd_T{t:g}_a{a:g}": {"kd.method": "kd", "kd.temperature": t, "kd.alpha": a}
        for t in wanted.temperatures
        for a in wanted.alphas
    }
    in_the_loop = {"kd.num_views": 0, "kd.flips": False}  # methods of features need the teacher there
    beside = [settings.kd.method] if wanted.shapes else []  # what shapes are compared with
    methods = dict.fromkeys([*wanted.methods, *beside])
    others = {name: {"kd.method": name} | (in_the_loop if name in ("at", "feature") else {}) for name in methods}
    block = f"students.{wanted.student}"
    shapes = {
        name: {f"{block}.{field}": value for field, value in changes.items()} for name, changes in wanted.shapes.items()
    }
    return {name: changes | {f"{block}.epochs": wanted.epochs} for name, changes in (grid | others | shapes).items()}


def inputs(settings: Params) -> dict[str, Any]:
    """All parameters that the ablated student's weights depend on; those of teachers only if it learns from them."""
    kd, student = settings.kd, settings.student(settings.ablation.student)
    views = {"num_views": min(kd.num_views, student.epochs)}  # how many more are stored changes nothing
    learns = kd.alpha > 0 or kd.compares_features  # a term with a weight of its own
    taught = {
        "kd": kd.model_dump(exclude={"methods"}) | {"beta": kd.beta} | views,
        "teachers": {name: settings.teacher(name).model_dump() for name in kd.teachers},
    }
    return {
        **(taught if learns else {"kd": {"alpha": 0.0} | views}),
        "student": student.model_dump(),
        "seed": settings.ablation.seed,
        **settings.model_dump(include={"train", "audit", "split"}),
        "data": settings.data.model_dump(exclude={"other"}),
    }


def expected_inputs(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a run: those of params.yaml's ``content`` with its changes."""
    merged: Any = content
    for name, value in changes.items():
        for part in reversed(name.split(".")):
            value = {part: value}
        merged = presets.merged(merged, value)
    return inputs(params.check(merged, f"params.yaml with {changes}"))


def missing(root: str | Path = ".") -> list[str]:
    """Runs without predictions for the parameters as they are now, in order."""
    root = Path(root)
    content = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    stored = collected(root)
    wanted = runs(params.check(content, "params.yaml"))
    return [name for name, changes in wanted.items() if stored.get(name) != expected_inputs(content, changes)]


def collected(root: str | Path = ".") -> dict[str, Any]:
    """Name of each run with predictions → the inputs they came from."""
    path = Path(root) / FOLDER / "runs.json"
    stored: dict[str, Any] = read_json(path) if path.exists() else {}
    return {name: inputs for name, inputs in stored.items() if path.with_name(f"{name}.csv").exists()}


# The queue ----------------------------------------------------------------------------------------


def main(jobs: str = "1", seconds: str = "20") -> None:
    """Run what is missing, ``jobs`` runs at a time, and rank what there is."""
    settings = params.load()
    wanted, content = runs(settings), yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    for changes in wanted.values():
        expected_inputs(content, changes)  # a run that params refuse is a sentence now, not after a night
    collect(settings, content)
    if missing():
        enqueue(settings, wanted)
        _call("dvc", "queue", "start", "--jobs", jobs)
    for done in itertools.count(1):
        collect(settings, content)
        if not missing() or (done % ROUNDS == 0 and not alive(settings, jobs)):
            break
        time.sleep(float(seconds))
    collect(settings, content)
    rank(settings)
    if left := missing():
        names = ", ".join(_experiment(settings, name) for name in left)
        raise UserError(f"{len(left)} runs did not finish; `dvc queue logs NAME` says why, then run again ({names})")


def alive(settings: Params, jobs: str) -> bool:
    """Whether a missing run still waits or runs; workers that died are replaced.

    Workers read control messages from files and die of a half-written one, which any ``dvc queue`` command may be
    writing: hence :data:`ROUNDS`, and new workers.
    """
    tasks, workers = _queue()
    names = [_experiment(settings, run_name) for run_name in missing()]
    left = [name for name in names if name in tasks and tasks[name].state in OPEN]
    if workers < min(int(jobs), len(left)):
        _call("dvc", "queue", "start", "--jobs", jobs)
    return bool(left)


def enqueue(settings: Params, wanted: dict[str, dict[str, Any]]) -> None:
    """Put every missing run that is not waiting or running in line; results of other parameters make room."""
    content = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    (tasks, _), ablation = _queue(), settings.ablation
    target = f"predict@student-{ablation.student}-{ablation.seed}"
    for run_name in missing():
        name = _experiment(settings, run_name)
        if (task := tasks.get(name)) is not None:
            if task.state == "Running":
                continue
            if task.state in OPEN and _inputs_at(task.revision) == expected_inputs(content, wanted[run_name]):
                continue
            _call("dvc", "queue", "remove", name)
        if any(_references(name)):
            _call("dvc", "exp", "remove", name)
        _call("dvc", "exp", "run", "--queue", "--name", name, *presets.flags(wanted[run_name]), target)


def collect(settings: Params, content: dict[str, Any]) -> None:
    """Copy val predictions of experiments that are done, if their parameters are those a run has now."""
    wanted, stored = runs(settings), collected()
    source = ModelId("student", settings.ablation.student, settings.ablation.seed).predictions("val")
    for run_name in missing():
        for reference in _references(_experiment(settings, run_name)):
            inputs_there = _inputs_at(reference)
            if inputs_there == expected_inputs(content, wanted[run_name]):
                write_text(FOLDER / f"{run_name}.csv", _cached(source, reference))
                stored[run_name] = inputs_there
                write_json(FOLDER / "runs.json", {name: stored[name] for name in wanted if name in stored})
                print(f"{run_name}: collected into {FOLDER}", flush=True)


def rank(settings: Params) -> None:
    """Write table and figure of the runs there are."""
    from dermdistill.evaluation import ablation  # heavy: pandas
    from dermdistill.reporting import report  # heavy: matplotlib

    done = [name for name in runs(settings) if name not in missing()]
    if set(done) - {settings.ablation.CONTROL, *settings.ablation.shapes}:
        write_json(ablation.COSTS, costs(settings, done))
        print(report.build_ablation(".", settings, done))


def costs(settings: Params, names: list[str]) -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds (one image) of the shapes among ``names`` and of the student as it is."""
    from dermdistill.deployment import benchmark  # heavy: torch
    from dermdistill.training import models

    content, result = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8")), {}
    size = settings.data.height, settings.data.width
    for name, changes in runs(settings).items():
        if name in names and (name in settings.ablation.shapes or name == settings.kd.method):
            spec = Model(**expected_inputs(content, changes)["student"]).model_copy(update={"weights": "none"})
            model, metadata = models.build(spec, size)
            with tempfile.TemporaryDirectory() as scratch:
                models.save(scratch, model, metadata)
                macs = benchmark.macs(Path(scratch), size)
            result[name] = {"parameters": metadata["parameters"], "macs": macs}
    return result


def _experiment(settings: Params, run_name: str) -> str:
    return f"ablation_{settings.ablation.student}_{run_name}"


def _references(name: str) -> Iterator[str]:
    listed = _call("git", "for-each-ref", "--format=%(refname)", "refs/exps").split()
    return (reference for reference in listed if reference.rsplit("/", 1)[-1] == name)


def _inputs_at(revision: str) -> dict[str, Any] | None:
    """What an experiment's weights depend on; None if its params.yaml is from before a parameter came or went."""
    try:
        return inputs(params.check(yaml.safe_load(_call("git", "show", f"{revision}:params.yaml")), revision))
    except UserError:
        return None


def _cached(path: Path, revision: str) -> str:
    """The text of a file that lies in DVC's cache, as of ``revision``."""
    from dvc import api  # heavy, and needed once a run

    text: str = api.read(path.as_posix(), rev=revision)
    return text


class Task(NamedTuple):
    revision: str  # a commit with the files it was queued with
    state: str


def _queue() -> tuple[dict[str, Task], int]:
    """Experiment → what ``dvc queue status`` prints of it, and how many workers there are."""
    output = _call("dvc", "queue", "status")
    rows = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    workers = re.search(r"(\d+) active, (\d+) idle", output)
    tasks = {row[1]: Task(row[0], row[-1]) for row in rows if len(row) >= 4 and row[0] != "Task"}
    return tasks, sum(map(int, workers.groups())) if workers else 0


def _call(*command: str) -> str:
    program = [sys.executable, "-m", "dvc", *command[1:]] if command[0] == "dvc" else list(command)
    # Files and not pipes, whose end comes only when the workers that `dvc queue start` leaves behind are done.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        code = subprocess.run(program, stdout=out, stderr=err, check=False).returncode
        for file in (out, err):
            file.seek(0)
        output, complaint = out.read(), err.read()
    if code:
        raise UserError(f"`{' '.join(command)}` failed: {(complaint or output).strip()}")
    return output


if __name__ == "__main__":
    run(main, *sys.argv[1:])

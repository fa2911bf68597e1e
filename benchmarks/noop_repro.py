"""How long `dvc repro` takes when nothing changed, against what DVC alone needs for as many stages.

    python benchmarks/noop_repro.py [ROUNDS]     in a repository whose stages are all current

Two yardsticks, both projects of as many stages in a chain whose files hold a line each. "bare" has one dependency,
one output and no parameter a stage: what our stages add is that they declare what they read. "declared" has as many
dependencies, outputs and parameters a stage as ours have on average: what is left is our own doing (large files,
folders, templates). CPU time is taken, since wall time tells what else the machine does; the three are measured in
turn, and the ratio of medians counts.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo

LIMIT = 1.5  # what we allow ourselves against "declared"


class Shape(NamedTuple):
    """How many stages, and of what each has so many on average."""

    stages: int
    deps: int
    outs: int
    params: int


def main(rounds: int = 5) -> None:
    ours = Path.cwd()
    shape = measure(ours)
    with tempfile.TemporaryDirectory() as bare, tempfile.TemporaryDirectory() as declared:
        chain(Path(bare), Shape(shape.stages, 1, 1, 0))
        chain(Path(declared), shape)
        folders = {"ours": ours, "bare": Path(bare), "declared": Path(declared)}
        seconds: dict[str, list[float]] = {label: [] for label in folders}
        for _ in range(rounds):
            for label, folder in folders.items():
                seconds[label].append(noop(folder))
    median = {label: statistics.median(values) for label, values in seconds.items()}
    ratios = {f"ratio_to_{label}": round(median["ours"] / median[label], 2) for label in ("bare", "declared")}
    times = {f"cpu_seconds_{label}": round(value, 2) for label, value in median.items()}
    print(json.dumps(shape._asdict() | {"rounds": rounds} | ratios | {"limit": LIMIT} | times, indent=2))


def measure(folder: Path) -> Shape:
    with Repo(folder) as repo:
        stages = repo.index.stages
        params = [dep for stage in stages for dep in stage.deps if isinstance(dep, ParamsDependency)]
        count = len(stages)
        files = sum(len(stage.deps) for stage in stages) - len(params)
        outs = sum(len(stage.outs) for stage in stages)
        return Shape(
            count, round(files / count), round(outs / count), round(sum(len(d.params) for d in params) / count)
        )


def chain(folder: Path, shape: Shape) -> None:
    """A DVC project whose stages copy a line from one file to the next."""
    shared = [f"dep{i}" for i in range(shape.deps - 1)]
    for name in ("0_0", *shared):
        (folder / name).write_text("a line\n")
    (folder / "params.yaml").write_text(yaml.safe_dump({f"p{i}": i for i in range(shape.params)}))
    stages = {}
    for i in range(shape.stages):
        outs = [f"{i + 1}_{k}" for k in range(shape.outs)]
        stages[f"s{i}"] = {"cmd": [f"cp {i}_0 {out}" for out in outs], "deps": [f"{i}_0", *shared], "outs": outs}
        if shape.params:
            stages[f"s{i}"]["params"] = [f"p{k}" for k in range(shape.params)]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for command in (["init", "--no-scm", "--quiet"], ["config", "core.analytics", "false"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)


def noop(folder: Path) -> float:
    """CPU seconds of a `dvc repro` with nothing to do."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=folder, capture_output=True, text=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "up to date" not in done.stdout:
        raise SystemExit(f"error: {folder} is not current; run `dvc repro` there first")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

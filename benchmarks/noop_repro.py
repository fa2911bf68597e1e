"""How long `dvc repro` takes when nothing changed, against what DVC alone needs for as many stages.

    python benchmarks/noop_repro.py [ROUNDS]     in a repository whose stages are all current

The yardstick is a project of as many stages in a chain, each with one tiny dependency and output: what
our stages add is hashing their dependencies. The two are measured in turn, the ratio of medians counts.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from dvc.repo import Repo

LIMIT = 1.5  # what we allow ourselves


def main(rounds: int = 5) -> None:
    ours = Path.cwd()
    with Repo(ours) as repo:
        stages = len(repo.index.stages)
    with tempfile.TemporaryDirectory() as name:
        bare = Path(name)
        chain(bare, stages)
        seconds: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(rounds):
            for label, folder in (("ours", ours), ("bare", bare)):
                seconds[label].append(noop(folder))
    median = {label: statistics.median(values) for label, values in seconds.items()}
    result = {"stages": stages, "rounds": rounds, "ratio": round(median["ours"] / median["bare"], 2), "limit": LIMIT}
    print(json.dumps(result | {f"seconds_{label}": round(value, 2) for label, value in median.items()}, indent=2))


def chain(folder: Path, length: int) -> None:
    """A DVC project of ``length`` stages that copy a line from one file to the next."""
    (folder / "0").write_text("a line\n")
    stages = {f"s{i}": {"cmd": f"cp {i} {i + 1}", "deps": [str(i)], "outs": [str(i + 1)]} for i in range(length)}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for command in (["init", "--no-scm", "--quiet"], ["config", "core.analytics", "false"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)


def noop(folder: Path) -> float:
    command, start = [sys.executable, "-m", "dvc", "repro"], time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    if "up to date" not in done.stdout:
        raise SystemExit(f"error: {folder} is not current; run `dvc repro` there first")
    return seconds


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""What several test files share: a small phantom data set, a working directory with it, stages as processes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported anywhere: the thread count is part of what makes bits repeat.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DERMDISTILL_TRACKING"] = "off"

import pytest
import yaml
from hypothesis import settings

from dermdistill.data import phantom

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = {"arch": "tf_efficientnet_lite0", "weights": "none", "cut": {"stages": 1, "blocks": 1, "head": 16}}

settings.register_profile("small", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("small")

RunStage = Callable[..., "subprocess.CompletedProcess[str]"]


def shrunk_params() -> dict[str, Any]:
    """The committed parameters, cut down until a training takes a second."""
    params: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["run"] = {"teachers": ["small"], "students": ["smaller"], "seeds": [0]}
    params["data"] = {"height": 32, "width": 48}
    params["train"] |= {"batch_size": 16, "warmup_epochs": 0.5}
    params["teachers"] = {"small": SMALL | {"epochs": 2, "lr": 2.0e-3, "dropout": 0.2, "seed": 0}}
    cut = {"stages": 1, "blocks": 0, "head": 8}
    params["students"] = {"smaller": SMALL | {"cut": cut, "epochs": 2, "lr": 2.0e-3, "dropout": 0.1}}
    params["kd"]["teacher"], params["ship"]["student"] = "small", "smaller"
    params["evaluate"]["bootstrap"] = 50
    return params


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def change_params(folder: Path, changes: dict[str, Any]) -> None:
    """Set values by dotted name, e.g. ``{"teachers.small.lr": 1.0}``, in the folder's params.yaml."""
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        *path, last = name.split(".")
        block = params
        for part in path:
            block = block[part]
        block[last] = value
    write_params(folder, params)


def environment() -> dict[str, str]:
    """Of a child process that imports the repository's code but works in its own directory."""
    paths = [str(REPOSITORY / "src"), str(REPOSITORY)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def run_stage() -> RunStage:
    """``run_stage("prepare", cwd=folder)``: a stage as DVC runs it, in a process of its own."""

    def call(name: str, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", f"stages.{name}", *arguments]
        return subprocess.run(
            command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )

    return call


@pytest.fixture(scope="session")
def phantom_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder as downloaded: two zips and a table, about 60 lesions. Shared: copy before changing it."""
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    phantom.write(folder, lesions=60, seed=0, height=60, width=80, progress=False)
    return folder


@pytest.fixture(scope="session")
def prepared(phantom_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first three stages have run. Shared: use ``project`` instead."""
    from stages import prepare, raw, split

    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(phantom_raw, folder / "data/raw")
    write_params(folder, shrunk_params())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (raw, prepare, split):
            stage.main()
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the test: params.yaml, data/raw, data/prepared, data/splits, metrics."""
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder

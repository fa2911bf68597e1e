"""Fixtures of all tests: a small phantom data set, a working directory with it, stages as processes."""

import os

# Before torch is imported anywhere: the thread count is part of what makes bits repeat.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["DERMDISTILL_TRACKING"] = "off"

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from forks import forking_python
from helpers import (
    REPOSITORY,
    TINY_RUN,
    RunStage,
    dvc,
    environment,
    git,
    missing,
    shrunk_params,
    write_documents,
    write_params,
)
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from dermdistill import demo, presets
from dermdistill.phantom import phantom

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MadeOnce = Callable[[str, Callable[[Path], None]], Path]
settings.register_profile("small", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("small")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The pipeline is built first, by one process, and read last, when the others need not wait for it any more.

    Between the two run all other tests, in the other process. So ``--dist worksteal`` keeps both busy.
    """
    last = [item for item in items if "pipeline" in getattr(item, "fixturenames", ())]
    for item in last:
        items.remove(item)
    items[:] = [*last[:1], *items, *last[1:]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, the machine's own."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        missing(f"no Chromium on the path (looked for {', '.join(CHROMIUMS)})")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


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
def made_once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> MadeOnce:
    """``made_once(name, make)``: the folder that ``make`` fills; the first process makes it, others wait for it."""

    def call(name: str, make: Callable[[Path], None]) -> Path:
        root = tmp_path_factory.getbasetemp()
        shared = root if worker_id == "master" else root.parent
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return call


@pytest.fixture(scope="session")
def pipeline(made_once: MadeOnce) -> Path:
    """A git repository in which all stages ran through DVC on a few dozen phantom lesions, with a shared remote.

    One for all processes: read its files, or change a ``git clone`` of it (``dvc pull`` brings the rest).
    """
    return made_once("pipeline", build_pipeline)


def build_pipeline(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        demo.copy_source(REPOSITORY, folder)
    for name in (".gitignore", "presets"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, folder / name)
    write_params(folder, presets.merged(yaml.safe_load((folder / "params.yaml").read_text()), TINY_RUN))
    phantom.write(folder / "data/raw", lesions=120, seed=1, progress=False)
    phantom.write(folder / "data/raw_other/elsewhere", lesions=60, seed=2, height=60, width=60, progress=False)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "Test")
    git(folder, "config", "user.email", "test@example.org")
    dvc(folder, "init", "--quiet")
    dvc(folder, "config", "core.analytics", "false")
    dvc(folder, "remote", "add", "--default", "shared", str(folder.with_name("remote")))
    with forking_python() as python:
        dvc(folder, "repro", "--quiet", tracking="on", python=python)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "The whole pipeline on phantom data")
    dvc(folder, "push", "--quiet")


@pytest.fixture(scope="session")
def at_rest(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline with its cache, of this process alone. Shared: leave it as it is."""
    return Path(shutil.copytree(pipeline, tmp_path_factory.mktemp("rest") / "copy"))


@pytest.fixture(scope="session")
def pristine(made_once: MadeOnce) -> Path:
    """A synthetic project with its report, as of ``make_project``. One for all: use ``report_copy`` to change it."""
    import matplotlib

    matplotlib.rcParams["savefig.dpi"] = 30  # what the figures look like is another test's concern
    return made_once("project", build_project)


def build_project(root: Path) -> None:
    from synthetic import make_project

    from dermdistill.reporting import report

    report.build(root, make_project(root, images=300, bootstrap=40))
    write_documents(root)


@pytest.fixture
def report_copy(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "report"))


@pytest.fixture(scope="session")
def phantom_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder as downloaded: two zips and a table, about 60 lesions. Shared: copy before changing it."""
    folder = tmp_path_factory.mktemp("phantom") / "raw"
    phantom.write(folder, lesions=60, seed=0, height=60, width=80, progress=False)
    return folder


@pytest.fixture(scope="session")
def prepared(phantom_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first four stages have run. Shared: use ``project`` instead."""
    from stages import audit, prepare, raw, split

    folder = tmp_path_factory.mktemp("prepared")
    shutil.copytree(phantom_raw, folder / "data/raw")
    write_params(folder, shrunk_params())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (raw, prepare, audit, split):
            stage.main()
    return folder


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the test: params.yaml, data/raw, data/prepared, data/splits, metrics."""
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder

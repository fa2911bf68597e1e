"""What whoever clones, joins or cites relies on: types, line ends, weight, proofs that run in CI."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from dvc.repo import Repo
from helpers import REPOSITORY, git, missing

import dermdistill


def test_types_check() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# --- clones -------------------------------------------------------------------------------------------------------


def test_a_clone_has_the_bytes_of_git_where_line_ends_are_converted(tmp_path: Path) -> None:
    """Else DVC would find 2,285 changed lines and train everything again."""
    git(tmp_path, "clone", "--quiet", "--config", "core.autocrlf=true", str(REPOSITORY), "clone")
    for line in git(tmp_path / "clone", "ls-files", "--eol").splitlines():
        committed, checked_out, *_ = line.split()
        assert committed.removeprefix("i/") == checked_out.removeprefix("w/"), line


@pytest.fixture
def weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script of CI and pre-commit, in a repository with one small file."""
    spec = importlib.util.spec_from_file_location("weight", REPOSITORY / ".ci/weight.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    git(tmp_path, "init", "--quiet")
    (tmp_path / "small file.txt").write_text("small")
    git(tmp_path, "add", "--all")
    git(tmp_path, "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", "One")
    monkeypatch.chdir(tmp_path)
    return module


def test_a_file_too_large_is_named_before_it_is_committed(weight: ModuleType, tmp_path: Path) -> None:
    assert weight.complaints() == []
    (tmp_path / "weights é.bin").write_bytes(b"0" * 4_000_001)
    assert weight.complaints() == [], "not to be committed"
    git(tmp_path, "add", "--all")
    (found,) = weight.complaints()
    assert found.startswith("weights é.bin has 4.0 MB, 4 at most in git; ") and "git rm --cached" in found


def test_a_history_too_large_names_what_weighs_most(weight: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight, "HISTORY", 100)
    (found,) = weight.complaints()
    assert found.startswith("the history has 0 MB") and "small file.txt (" in found


def test_this_clone_is_light() -> None:
    subprocess.run([sys.executable, ".ci/weight.py"], cwd=REPOSITORY, check=True)


# --- proofs that run -----------------------------------------------------------------------------------------------


def test_what_is_missing_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        missing("no browser")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no browser; \.ci/run should have installed it"):
        missing("no browser")


def test_no_test_skips_in_another_way() -> None:
    """But for the right to mount a disk, which CI may lack."""
    for path in (REPOSITORY / "tests").rglob("*.py"):
        skips = re.findall(r"pytest\.(?:mark\.)?(?:skip|xfail|importorskip)\w*", path.read_text(encoding="utf-8"))
        allowed = {"helpers.py": 1, "test_experiments.py": 2, Path(__file__).name: 1}
        assert len(skips) <= allowed.get(path.name, 0), path


def test_ci_calls_the_one_script() -> None:
    runs = {}
    for name in ("ci", "nightly"):
        jobs = yaml.safe_load((REPOSITORY / f".github/workflows/{name}.yml").read_text())["jobs"]
        runs[name] = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs == {"ci": ["bash .ci/run"], "nightly": ["bash .ci/run test-all"]}
    script = (REPOSITORY / ".ci/run").read_text()
    assert "export CI=true" in script and script.rstrip().endswith('make "${1:-test}"')


# --- names ---------------------------------------------------------------------------------------------------------


def test_the_deployed_model_is_an_artifact_of_dvc() -> None:
    with Repo(REPOSITORY) as repo:
        (artifact,) = [one for every in repo.artifacts.read().values() for one in every.values()]
        tracked = {out.def_path for stage in repo.index.stages for out in stage.outs}
    assert artifact.path == "models/deploy/student.int8.onnx" in tracked
    assert (REPOSITORY / artifact.meta["metadata"]).is_file()


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == dermdistill.__version__
    assert citation["references"][0]["doi"] in (REPOSITORY / "README.md").read_text()

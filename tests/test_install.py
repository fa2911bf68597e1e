"""What `pip install .` gives: the wheel in empty environments, as large as promised, with the answers of this checkout.

Slow tests build and install (some need a minute of downloads); the quick one only refuses imports.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from helpers import REPOSITORY, environment

import dermdistill
from dermdistill import Detector
from dermdistill.phantom import phantom

SLIM = ("dermdistill", "numpy", "PIL", "onnxruntime")
BROUGHT_ALONG = ("flatbuffers", "google", "packaging", "coloredlogs", "humanfriendly", "sympy", "mpmath")  # by them
EXAMPLE = REPOSITORY / "models/deploy/example.jpg"


def test_predict_imports_nothing_but_the_slim_install(tmp_path: Path) -> None:
    """Whatever else is asked for is refused, as in an environment that lacks it."""
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {{*sys.stdlib_module_names, *{SLIM + BROUGHT_ALONG}}}:
            raise ImportError(f"{{name}} is not part of the slim install")
sys.meta_path.insert(0, Refuse())
from dermdistill.cli import main
try:
    import pandas
except ImportError:
    main(sys.argv[1:])
"""
    for arguments in (["--json", str(EXAMPLE)], ["--csv", str(tmp_path / "out.csv"), str(EXAMPLE)]):
        command = [sys.executable, "-c", code, "predict", *arguments]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout, done.stderr


def built(folder: Path, **settings: str) -> Path:
    """The wheel of a copy of what git would commit; building leaves files, and not in this checkout."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True
    )
    for name in names.stdout.splitlines():
        if name.startswith(("src/", "models/", "data/image_hashes")) or "/" not in name:
            (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / "copy" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), "."]
    subprocess.run(command, cwd=folder / "copy", env=os.environ | settings, check=True)
    [wheel] = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


def install(folder: Path, *requirements: str, constrained: bool = True) -> Path:
    """An empty environment with ``requirements``; its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *requirements]
    if constrained:
        command += ["--constraint", str(REPOSITORY / "constraints.txt")]
    subprocess.run(command, check=True)
    return folder / "bin/python"


def megabytes(python: Path) -> float:
    """What the packages take, without pip and setuptools, which every environment begins with."""
    [packages] = python.parent.parent.glob("lib/*/site-packages")
    files = [path for path in packages.rglob("*") if path.is_file() and not path.is_symlink()]
    ours = [
        path for path in files if path.relative_to(packages).parts[0].partition("-")[0] not in ("pip", "setuptools")
    ]
    return sum(path.stat().st_size for path in ours) / 1e6


def run(python: Path, *arguments: str, cwd: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), "-m", "dermdistill.cli", *arguments]
    done = subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def metadata(wheel: Path) -> tuple[dict[str, list[str]], set[str]]:
    """Fields of the wheel's metadata, and the names of its files."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [place] = [name for name in names if name.endswith(".dist-info/METADATA")]
        message = message_from_bytes(archive.read(place))
    return {name: message.get_all(name, []) for name in message}, names


@pytest.mark.slow
def test_the_slim_install_is_small_and_answers_as_this_checkout(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "slim", str(wheel))
    assert megabytes(python) <= 200
    answer = json.loads(run(python, "predict", str(EXAMPLE), "--json", cwd=tmp_path))
    here = Detector.load().predict(EXAMPLE)
    assert answer["probabilities"] == pytest.approx(here.probabilities, abs=1e-6)
    assert (answer["outcome"], answer["model_sha256"]) == (here.outcome, here.model_sha256)
    said = run(python, "--version", cwd=tmp_path)
    assert f"dermdistill {dermdistill.__version__}, MIT" in said and "CC BY-NC 4.0" in said and "Tschandl" in said


@pytest.mark.slow
def test_the_oldest_runtime_answers_as_this_one(wheel: Path, tmp_path: Path) -> None:
    oldest = ("onnxruntime==1.17.3", "numpy==1.26.4", "pillow==10.1.0")
    python = install(tmp_path / "old", str(wheel), *oldest, constrained=False)
    answer = json.loads(run(python, "predict", str(EXAMPLE), "--json", cwd=tmp_path))
    assert answer["probabilities"] == pytest.approx(Detector.load().predict(EXAMPLE).probabilities, abs=1e-6)


@pytest.mark.slow
def test_evaluate_runs_with_its_extra(wheel: Path, tmp_path: Path) -> None:
    python = install(tmp_path / "evaluate", f"{wheel}[evaluate]")
    assert megabytes(python) <= 500
    phantom.write(tmp_path / "raw", lesions=20, seed=77, height=60, width=80, progress=False)
    for archive in phantom.PARTS:
        shutil.unpack_archive(tmp_path / "raw" / archive, tmp_path / "images")
    labels, model = str(tmp_path / "raw" / phantom.TABLE), str(REPOSITORY / "models/deploy/student.int8.onnx")
    said = run(python, "evaluate", "--model", model, "--images", "images", "--labels", labels, cwd=tmp_path)
    assert "melanoma.roc_auc" in said


@pytest.mark.slow
def test_with_weights_the_wheel_names_both_licences_and_without_one(wheel: Path, tmp_path: Path) -> None:
    fields, names = metadata(wheel)
    assert fields["License-Expression"] == ["MIT AND CC-BY-NC-4.0"] and len(fields["License-File"]) == 2
    inside = {"student.int8.onnx", "student.int8.json", "LICENSE", "data/image_hashes.csv"}
    assert {f"dermdistill/deployed/{name}" for name in inside} <= names
    fields, names = metadata(built(tmp_path, DERMDISTILL_WEIGHTS="none"))
    assert fields["License-Expression"] == ["MIT"] and fields["License-File"] == ["LICENSE"]
    assert not [name for name in names if "/deployed/" in name or "models/deploy" in name]

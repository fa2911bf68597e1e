"""What several test files share: small parameters, a repository for stages, DVC and git; simulated predictions."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml

from dermdistill.core.files import write_text
from dermdistill.reporting import readme

os.environ["DERMDISTILL_TRACKING"] = "off"


REPOSITORY = Path(__file__).resolve().parent.parent


SMALL = {
    "arch": "tf_efficientnet_lite0",
    "weights": "none",
    "cut": {"stages": 1, "blocks": 1, "head": 16},
    "size": None,
    "drop_path": 0.0,
    "mixup": 0.0,
}


RunStage = Callable[..., "subprocess.CompletedProcess[str]"]


def shrunk_params() -> dict[str, Any]:
    """The committed parameters, cut down until a training takes a second."""
    params: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["run"] = {"teachers": ["small"], "students": ["smaller"], "seeds": [0], "baselines": ["forest"]}
    params["data"] = {"height": 32, "width": 48, "other": []}
    params["train"] |= {"batch_size": 16, "warmup_epochs": 0.5}
    small = SMALL | {"epochs": 2, "lr": 2.0e-3, "dropout": 0.2, "keep": "best"}
    params["teachers"] = {"small": small | {"seed": 0, "fold": None}}
    cut = {"stages": 1, "blocks": 0, "head": 8}
    params["students"] = {"smaller": SMALL | {"cut": cut, "epochs": 2, "lr": 2.0e-3, "dropout": 0.1, "keep": "last"}}
    params["kd"] |= {"teachers": ["small"], "num_views": 0}
    params["ship"] |= {"student": "smaller", "seed": 0}
    params["predict"]["flips"] = False
    params["ablation"]["student"] = "smaller"
    params["evaluate"]["bootstrap"] = 50
    params["robustness"]["images"] = 12
    params["quantize"] |= {"sensitivity_images": 8, "candidates": ["default", "minmax", "mixed_1", "weight_only"]}
    params["quantize"]["timing_rounds"] = 2
    params["export"]["formats"] = ["onnx", "torch_export"]
    params["benchmark"] = {"rounds": 3, "batch_rounds": 1}
    params["baselines"]["features"] = "quick"
    params["baselines"]["models"]["forest"]["trees"], params["baselines"]["models"]["boosting"]["rounds"] = 10, 3
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


def this_python_first(settings: Mapping[str, str]) -> dict[str, str]:
    """``settings`` of a child process, in which ``python``, ``dvc`` and ``dermdistill`` are those of these tests."""
    return {**settings, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def dvc(folder: Path, *command: str, tracking: str = "off", python: Path | None = None) -> str:
    """What ``dvc COMMAND`` prints in ``folder``; stages run under the Python of these tests, or that in ``python``."""
    settings = this_python_first(os.environ) | {"DERMDISTILL_TRACKING": tracking, "PYTHONDONTWRITEBYTECODE": "1"}
    if python:
        settings["PATH"] = f"{python}{os.pathsep}{settings['PATH']}"
    call = [sys.executable, "-m", "dvc", *command]
    # Into files: a worker that `dvc queue start` leaves behind would keep pipes open, for ever if it hangs.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        done = subprocess.run(call, cwd=folder, stdout=out, stderr=err, env=settings, check=False)
        said, complained = (stream.seek(0) or stream.read() for stream in (out, err))
    assert done.returncode == 0, f"dvc {' '.join(command)}:\n{said[-3000:]}\n{complained[-3000:]}"
    return said


def stop_after_first_checkpoint(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a training of the teacher ``small`` that stopped once it was written, like one killed there."""
    from dermdistill.training import checkpoint  # not at the top: most tests need no PyTorch
    from stages import train_teacher

    write = checkpoint.write

    def write_and_stop(path: Path, state: dict[str, object]) -> None:
        write(path, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train_teacher.main("small")
    [path] = Path("runtime/checkpoints").iterdir()
    return path


def git(folder: Path, *command: str) -> str:
    return subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True, text=True).stdout


def write_documents(root: Path) -> None:
    """README and model card as short as they can be: a title and the report's tables, inserted."""
    for document, names in readme.DOCUMENTS.items():
        blocks = "\n\n".join("\n".join(readme.markers(name)) for name in names)
        write_text(root / document, f"# Title\n\n{blocks}\n\nThe end.\n")
        for name in names:
            readme.insert(root / document, name, readme.read_text(root / f"{readme.FOLDER}/{name}.md"))


def edit(path: Path, keys: list[str], value: object) -> None:
    """Set one value of a JSON file."""
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))


def missing(what: str) -> NoReturn:
    """Skip the test, since this machine lacks ``what``; with CI=true fail: a proof that is not run is none."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; .ci/run should have installed it")
    pytest.skip(what)


def cloned(pipeline: Path, folder: Path) -> Path:
    """``git clone`` and ``dvc pull`` of it: nothing needs to be rebuilt there."""
    git(pipeline.parent, "clone", "--quiet", str(pipeline), str(folder))
    git(folder, "config", "user.name", "Test")
    git(folder, "config", "user.email", "test@example.org")
    dvc(folder, "pull", "--quiet")
    return folder


TINY_RUN = {
    "data": {"height": 32, "width": 48, "other": ["elsewhere"]},
    "train": {"batch_size": 8},
    "run": {"teachers": ["lite0", "lite2"], "baselines": ["forest", "svm"]},
    "teachers": {name: {"epochs": 1, "cut": {"stages": 1, "blocks": 1, "head": 48}} for name in ("lite0", "lite2")},
    "kd": {"teachers": ["lite0", "lite2"], "num_views": 1},
    "students": {"tiny": {"epochs": 1, "cut": {"stages": 2, "blocks": 0, "head": 32}}},
    "quantize": {
        "calibration_images": 16,
        "candidates": ["minmax", "mixed_1", "weight_only"],
        "limits": {"max_auc_drop": 1.0, "max_ece_rise": 1.0, "min_agreement": 0.0, "min_equal_decisions": 0.0},
    },
    "export": {"formats": ["onnx"]},
    "benchmark": {"rounds": 3, "batch_rounds": 1},
    "evaluate": {"bootstrap": 50},
    "robustness": {"images": 12},
    "explain": {"images": 2, "misses": 2},
    "baselines": {"features": "quick", "models": {"forest": {"trees": 10}, "boosting": {"rounds": 3}}},
}


def simulated(count: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and the probabilities (N, 7) of a model that is right more often than not."""
    random = np.random.default_rng(seed)
    labels = random.choice(7, count, p=[0.5, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    logits = random.normal(size=(count, 7)) + 1.5 * np.eye(7)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def simulated_lesions(count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """labels, probabilities (rounded: with ties), histology, lesions of one to several images."""
    random = np.random.default_rng(seed)
    lesions = np.array([f"l{number:04d}" for number in random.integers(0, count * 3 // 4, count)])
    of_lesion = {name: random.choice(7, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]) for name in np.unique(lesions)}
    labels = np.array([of_lesion[name] for name in lesions])
    logits = random.normal(size=(count, 7)) + 1.5 * np.eye(7)[labels]
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).round(2)
    return labels, probabilities, random.random(count) < 0.5, lesions

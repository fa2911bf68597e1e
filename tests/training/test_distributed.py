"""The same training by two processes: the weights of one if batch norm is frozen, much the same if not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch
from helpers import REPOSITORY, change_params, environment

from dermdistill.errors import UserError
from dermdistill.params import Devices
from dermdistill.training import distributed
from stages import train_teacher

TEACHER = Path("models/teachers/teacher_small")
HISTORY = Path("models/teachers/teacher_small/history.csv")
# Largest difference of a weight over ten steps: rounding gives 1.6e-5 with AVX-512, a batch shared wrongly 9e-3.
SAME = 3e-5

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "stages.train_teacher", "small"]
FABRIC = [str(Path(sys.executable).with_name("fabric")), "run", "--accelerator=cpu", "--devices=2"]
FABRIC += [str(REPOSITORY / "stages/train_teacher.py"), "small"]


CARRIED = ("torch", "timm", "numpy", "pandas", "scikit-learn", "safetensors", "pydantic", "lightning-fabric")
ELSEWHERE = """
import re, sys
from importlib import metadata
from importlib.machinery import PathFinder

def closure(names):
    found, left = set(), list(names)
    while left:
        name = re.sub("[-_.]+", "-", left.pop().lower())
        if name not in found and not found.add(name):
            try:
                requires = metadata.requires(name) or []
            except metadata.PackageNotFoundError:  # of another platform
                continue
            left += [re.match("[A-Za-z0-9_.-]+", text)[0] for text in requires if "extra ==" not in text]
    return found

brought = closure({carried})
of = metadata.packages_distributions()

class Brought(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        owners = {{re.sub("[-_.]+", "-", one.lower()) for one in of.get(name.partition(".")[0], [])}}
        hidden = owners and not owners & (brought | {{"dermdistill"}})
        return None if hidden else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Brought
for absent in ("mlflow", "dvc", "onnx", "onnxruntime", "matplotlib"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{{absent}} is here")
from stages import control, distill, teacher_targets, train_teacher  # noqa: F401  (they import no more)
train_teacher.main("small")
"""


def launch(command: list[str] = TORCHRUN) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def together(command: list[str] = TORCHRUN) -> tuple[int, str]:
    """Exit code and output of a training by two processes."""
    process = launch(command)
    output, _ = process.communicate(timeout=280)
    return process.returncode, output


def result() -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    return safetensors.numpy.load_file(TEACHER / "model.safetensors"), pd.read_csv(HISTORY)


def largest_difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[name].astype(float) - b[name].astype(float)).max()) for name in a)


@pytest.mark.parametrize("mixup", [0.0, pytest.param(0.4, marks=pytest.mark.slow)])
def test_two_processes_end_with_the_weights_of_one(project: Path, mixup: float) -> None:
    changes = {"train.freeze_batch_norm": True, "teachers.small.dropout": 0.0, "teachers.small.mixup": mixup}
    if mixup:
        changes |= {"train.sampling": "balanced", "train.focal_gamma": 1.0}
    change_params(project, changes)
    train_teacher.main("small")
    alone, history = result()
    code, output = together()
    assert code == 0, output
    weights, other = result()
    assert 0 < largest_difference(alone, weights) < SAME  # 0: it was not trained by two
    assert np.allclose(history, other, atol=1e-4)
    assert output.count("melanoma AUC on val") == 2  # epochs; the second process is silent
    assert not list(Path("runtime/checkpoints").iterdir())


def test_a_machine_with_eight_packages_trains_the_same_bits(project: Path) -> None:
    """Those that docs/devices.md names and what they require; DVC, MLflow, ONNX and the rest of ours are absent."""
    ended = subprocess.run(
        [sys.executable, "-c", ELSEWHERE.format(carried=CARRIED)],
        env=environment() | {"DERMDISTILL_TRACKING": "off"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    weights, history = result()
    train_teacher.main("small")
    again, repeated = result()
    assert largest_difference(weights, again) == 0 and history.equals(repeated)


@pytest.mark.slow
def test_fabric_run_starts_the_same_training(project: Path) -> None:
    code, output = together()
    assert code == 0, output
    weights, _ = result()
    code, output = together(FABRIC)
    assert code == 0, output
    assert largest_difference(weights, result()[0]) == 0 and output.count("melanoma AUC on val") == 2


@pytest.mark.slow
def test_with_batch_norm_of_each_share_it_learns_as_well(project: Path) -> None:
    """Eight images normalise more noisily than sixteen: another run, whose loss on val ends within a tenth."""
    change_params(project, {"teachers.small.epochs": 8})
    train_teacher.main("small")
    alone, history = result()
    code, output = together()
    assert code == 0, output
    weights, other = result()
    assert largest_difference(alone, weights) > SAME
    assert other["val_loss"].iloc[-1] == pytest.approx(history["val_loss"].iloc[-1], rel=0.1)


@pytest.mark.slow
def test_one_of_two_processes_killed_and_all_started_again(project: Path) -> None:
    change_params(project, {"teachers.small.epochs": 12})
    process, checkpoints = launch(), Path("runtime/checkpoints")
    end = time.monotonic() + 240
    while not (checkpoints.exists() and list(checkpoints.glob("teacher_small-*.pt"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=120)  # the launcher ends the other one
    assert process.returncode != 0 and not TEACHER.exists()
    code, output = together()
    assert code == 0 and output.count("melanoma AUC on val") < 12, output
    resumed = (TEACHER / "model.safetensors").read_bytes()
    code, output = together()
    assert code == 0 and output.count("melanoma AUC on val") == 12, output
    assert (TEACHER / "model.safetensors").read_bytes() == resumed


def test_shares_of_a_batch_cover_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = np.arange(24), []
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        found.append(distributed.shard(batch))
    assert np.concatenate(found).tolist() == batch.tolist() and {len(part) for part in found} == {6}
    with pytest.raises(UserError, match=r"train.batch_size 22 cannot be shared by 4 processes; make it a multiple"):
        distributed.shard(batch[:22])


def test_half_precision_needs_a_gpu() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match=r"16-mixed needs a GPU; choose 32-true or bf16-mixed"):
            distributed.start(Devices(precision="16-mixed", compile=False))


def test_bfloat16_trains_and_saves_weights_of_32_bits(project: Path) -> None:
    train_teacher.main("small")
    exact, _ = result()
    change_params(project, {"train.devices.precision": "bf16-mixed"})
    train_teacher.main("small")
    rough, history = result()
    assert {str(w.dtype) for w in rough.values()} == {str(w.dtype) for w in exact.values()} <= {"float32", "int64"}
    assert 1e-6 < largest_difference(exact, rough) < 0.1
    assert np.isfinite(history).all(axis=None)

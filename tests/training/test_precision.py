"""Which arithmetic ``auto`` takes, and that a training stays in the one it was begun in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import change_params, stop_after_first_checkpoint

from dermdistill import params
from dermdistill.errors import UserError
from dermdistill.params import Devices, Train
from dermdistill.training import precision
from stages import train_teacher

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")

TEACHER = Path("models/teachers/teacher_small")
CHECKPOINTS = Path("runtime/checkpoints")
Has = Callable[..., None]


@pytest.fixture
def has(monkeypatch: pytest.MonkeyPatch) -> Has:
    """``has("amx_bf16")``: a processor that has just that, beside AVX-512; no GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")

    def give(*features: str) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_f": True} | dict.fromkeys(features, True))

    return give


def asked(wanted: str) -> Train:
    settings = params.load().train
    return settings.model_copy(update={"devices": Devices(precision=wanted, compile=False)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("features", "taken", "kind"),
    [
        ((), "32-true", "avx512"),
        (("avx512_bf16",), "bf16-mixed", "avx512-bf16"),
        (("amx_bf16",), "bf16-mixed", "avx512-amx"),
        (("avx512_bf16", "amx_bf16"), "bf16-mixed", "avx512-bf16-amx"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it_and_says_so(
    has: Has, capsys: pytest.CaptureFixture[str], features: tuple[str, ...], taken: str, kind: str
) -> None:
    has(*features)
    assert precision.choose(asked("auto")) == asked(taken)
    assert capsys.readouterr().out == f"train.devices.precision auto: {taken} on {kind}\n"


@pytest.mark.parametrize("wanted", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("features", [(), ("avx512_bf16",)])
def test_a_pinned_value_is_not_asked_about(
    has: Has, capsys: pytest.CaptureFixture[str], wanted: str, features: tuple[str, ...]
) -> None:
    has(*features)
    assert precision.choose(asked(wanted)) == asked(wanted) and capsys.readouterr().out == ""


@pytest.mark.parametrize(("native", "taken"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_is_asked_itself(has: Has, monkeypatch: pytest.MonkeyPatch, native: bool, taken: str) -> None:
    has("avx512_bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA T4 / 16 GB")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    assert precision.choose(asked("auto")) == asked(taken) and precision.processor() == "nvidia-t4-16-gb"


def trained() -> bytes:
    train_teacher.main("small")
    return (TEACHER / "model.safetensors").read_bytes()


@pytest.mark.parametrize("frozen", [False, True])  # folded into convolutions from the second step of an epoch on
def test_bfloat16_gives_the_same_bits_every_time_and_when_resumed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], frozen: bool
) -> None:
    change_params(project, {"train.freeze_batch_norm": frozen, "teachers.small.cut.stages": 2})  # 5 × 5 too
    exact = trained()
    assert "precision" not in json.loads((TEACHER / "model.json").read_text())  # pinned: as ever
    change_params(project, {"train.devices.precision": "bf16-mixed"})
    first = trained()
    assert first != exact and trained() == first
    metadata = json.loads((TEACHER / "model.json").read_text())
    assert (metadata["precision"], metadata["processor"]) == ("bf16-mixed", precision.processor())
    stop_after_first_checkpoint(monkeypatch)
    capsys.readouterr()
    assert trained() == first and not list(CHECKPOINTS.iterdir())
    assert capsys.readouterr().out.count(": melanoma AUC on val") == 1  # the second epoch alone


def test_auto_is_the_training_pinned_to_what_it_takes(project: Path, has: Has) -> None:
    has("avx512_bf16")
    change_params(project, {"train.devices.precision": "bf16-mixed"})
    pinned, described = trained(), (TEACHER / "model.json").read_bytes()
    change_params(project, {"train.devices.precision": "auto"})
    assert (trained(), (TEACHER / "model.json").read_bytes()) == (pinned, described)
    has()
    change_params(project, {"train.devices.precision": "auto"})
    assert trained() != pinned


@pytest.mark.parametrize("change", ["precision", "processor"])
def test_a_training_is_not_continued_in_another_arithmetic(
    project: Path, has: Has, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    has("avx512_bf16")
    change_params(project, {"train.devices.precision": "bf16-mixed"})
    begun = stop_after_first_checkpoint(monkeypatch)
    if change == "precision":
        change_params(project, {"train.devices.precision": "32-true"})
        now = "32-true-avx512-bf16"
    else:
        has("amx_bf16")
        now = "bf16-mixed-avx512-amx"
    with pytest.raises(UserError) as refused:
        train_teacher.main("small")
    assert str(refused.value) == (
        f"this training was begun in bf16-mixed-avx512-bf16 and cannot go on in {now}; set train.devices.precision "
        f"back and use such a processor, or delete {begun} to begin anew"
    )
    assert begun.exists() and not TEACHER.exists()
    begun.unlink()
    assert trained()
    shutil.rmtree(TEACHER)


def test_a_checkpoint_of_other_parameters_is_in_nobodys_way(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change_params(project, {"train.devices.precision": "bf16-mixed"})
    begun = stop_after_first_checkpoint(monkeypatch)
    change_params(project, {"train.devices.precision": "32-true", "teachers.small.lr": 1e-3})
    assert trained() and begun.exists()

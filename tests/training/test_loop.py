"""The loop: the same bits every time, killed or not; which epoch is kept; the holdout is never looked at."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import RunStage, change_params, environment, stop_after_first_checkpoint

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_split
from dermdistill.errors import UserError, run
from dermdistill.training import checkpoint, loop, losses, models
from stages import control, distill, ensemble, teacher_targets, train_teacher

# The few images of a small val lack some diagnoses.
pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")

TEACHER = Path("models/teachers/teacher_small")
STUDENT = Path("models/students/student_smaller_s0")
CONTROL = Path("models/students/control_smaller_s0")
CHECKPOINTS = Path("runtime/checkpoints")


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def teacher() -> bytes:
    train_teacher.main("small")
    return weights(TEACHER)


def student(seed: str = "0") -> bytes:
    teacher_targets.main("small")
    ensemble.main()
    distill.main("smaller", seed)
    return weights(STUDENT.with_name(f"student_smaller_s{seed}"))


@pytest.fixture
def stopped(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training stopped after its first epoch's checkpoint was written, like one that was killed there."""
    return stop_after_first_checkpoint(monkeypatch)


# --- the same bits ----------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(project: Path) -> None:
    first, history = teacher(), Path("models/teachers/teacher_small/history.csv").read_bytes()
    torch.manual_seed(123)  # what was drawn before must not matter
    assert teacher() == first and Path("models/teachers/teacher_small/history.csv").read_bytes() == history
    change_params(project, {"teachers.small.seed": 1})
    assert teacher() != first


def test_what_a_training_leaves_behind(project: Path) -> None:
    teacher()
    metadata = models.read_metadata(TEACHER)
    assert (metadata["id"], metadata["height"], metadata["width"], len(metadata["inputs"])) == (
        "teacher_small",
        32,
        48,
        16,
    )
    history = pd.read_csv("models/teachers/teacher_small/history.csv")
    assert list(history["epoch"]) == [1, 2]
    assert {"train_loss", "val_loss", "val_melanoma_auc", "val_balanced_accuracy", "lr"} <= set(history.columns)
    assert not list(CHECKPOINTS.iterdir())
    assert str(project) not in (TEACHER / "model.json").read_text()


@pytest.mark.parametrize(("seed", "views"), [("0", 0), ("1", 1)])
def test_at_alpha_0_the_student_is_its_control_to_the_bit_and_else_not(project: Path, seed: str, views: int) -> None:
    change_params(project, {"kd.num_views": views})
    teacher()
    control.main("smaller", seed)
    alone = weights(CONTROL.with_name(f"control_smaller_s{seed}"))
    assert student(seed) != alone
    change_params(project, {"kd.alpha": 0.0})
    assert student(seed) == alone


def test_the_student_depends_on_its_teacher_and_temperature(project: Path) -> None:
    teacher()
    first = student()
    assert {"task_loss", "kd_loss"} <= {c.removeprefix("train_") for c in pd.read_csv(STUDENT / "history.csv").columns}
    change_params(project, {"kd.temperature": 4.0})
    warmer = student()
    change_params(project, {"kd.temperature": 2.0, "teachers.small.seed": 5})
    teacher()
    assert len({first, warmer, student()}) == 3


# --- the holdout is never looked at -----------------------------------------------------------------------------


def scramble(part: str, images: bool = True, labels: bool = True) -> None:
    """Other pixels, diagnoses and patients for every image of a part, wherever they are written."""
    rng = np.random.default_rng(1)
    path, metadata = Path(f"data/splits/{part}.csv"), Path("data/prepared/metadata.csv")
    table, everything = pd.read_csv(path, dtype=str), pd.read_csv(metadata, dtype=str)
    rows = load_split(part).rows
    if images:
        array = np.load("data/prepared/images.npy")
        array[rows] = rng.integers(0, 256, array[rows].shape)
        np.save("data/prepared/images.npy", array)
        everything.loc[rows, "pixels_sha256"] = [f"{i:016x}" for i in range(len(rows))]
    if labels:
        other = {dx: CLASSES[(i + 1) % len(CLASSES)] for i, dx in enumerate(CLASSES)}
        table["dx"] = table["dx"].map(other)
        everything.loc[rows, "dx"] = everything.loc[rows, "dx"].map(other)
        everything.loc[rows, ["age", "sex", "dx_type"]] = ["5.0", "unknown", "histo"]
    table.to_csv(path, index=False)
    everything.to_csv(metadata, index=False)


def test_scrambling_the_holdout_changes_no_trained_bit(project: Path) -> None:
    before = teacher(), student()
    scramble("holdout")
    assert load_split("holdout").labels.tolist() != []
    shutil.rmtree("models")
    assert (teacher(), student()) == before


def test_removing_the_holdout_changes_no_trained_bit(project: Path) -> None:
    before = teacher(), student()
    shutil.rmtree("models")
    Path("data/splits/holdout.csv").unlink()
    assert (teacher(), student()) == before


@pytest.mark.parametrize("what", ["images", "labels"])
def test_scrambling_train_changes_teacher_and_student(project: Path, what: str) -> None:
    """So that the test above can fail."""
    before = teacher(), student()
    scramble("train", images=what == "images", labels=what == "labels")
    after = teacher(), student()
    assert before[0] != after[0] and before[1] != after[1]


def test_one_train_image_is_enough_to_change_the_weights(project: Path) -> None:
    before = teacher()
    array, row = np.load("data/prepared/images.npy"), load_split("train").rows[0]
    array[row] = 255 - array[row]
    np.save("data/prepared/images.npy", array)
    assert teacher() != before


# --- killed and started again -----------------------------------------------------------------------------------


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[bytes]", seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < end, "took too long"
        time.sleep(0.005)


def test_killed_with_9_and_run_again_it_ends_with_the_same_bits(project: Path, run_stage: RunStage) -> None:
    change_params(project, {"teachers.small.epochs": 20})
    with Path("log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.train_teacher", "small"], env=environment(), stdout=log, stderr=log
        )
        try:
            wait_for(lambda: CHECKPOINTS.exists() and list(CHECKPOINTS.glob("teacher_small-*.pt")), process)
            with pytest.raises(UserError, match=r"teacher_small is being trained by another process"):
                train_teacher.main("small")
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert not TEACHER.exists()
    [path] = CHECKPOINTS.glob("teacher_small-*.pt")
    state = checkpoint.read(path)
    assert state is not None and 1 <= state["epoch"] < 20

    resumed = run_stage("train_teacher", "small", cwd=project)
    assert resumed.returncode == 0, resumed.stderr
    told = [line for line in resumed.stdout.splitlines() + resumed.stderr.splitlines() if ": melanoma AUC" in line]
    assert len(told) == 20 - state["epoch"]  # it went on, and did not begin again
    killed, history = weights(TEACHER), Path("models/teachers/teacher_small/history.csv").read_bytes()
    assert not list(CHECKPOINTS.iterdir())

    assert teacher() == killed  # never killed, and in this process
    assert Path("models/teachers/teacher_small/history.csv").read_bytes() == history


def test_killed_between_the_last_checkpoint_and_the_saved_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train_teacher.main("small")
    assert len(list(CHECKPOINTS.iterdir())) == 1 and not TEACHER.exists()
    resumed = teacher()
    assert not list(CHECKPOINTS.iterdir())
    assert teacher() == resumed


@pytest.mark.parametrize(
    "change", [{"teachers.small.lr": 1e-3}, {"train.augment.rotate": 90}, {"teachers.small.seed": 3}]
)
def test_a_checkpoint_of_other_parameters_is_not_picked_up(
    stopped: Path, project: Path, change: dict[str, float]
) -> None:
    change_params(project, change)
    with_leftover = teacher()
    assert stopped.exists()
    shutil.rmtree(CHECKPOINTS)
    assert teacher() == with_leftover


def test_a_checkpoint_of_other_data_is_not_picked_up(stopped: Path, project: Path) -> None:
    scramble("train", labels=False)
    with_leftover = teacher()
    shutil.rmtree(CHECKPOINTS)
    assert teacher() == with_leftover


def test_what_names_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inputs = checkpoint.hash_inputs({"lr": 1.0}, ["x"])
    assert inputs == checkpoint.hash_inputs({"lr": 1.0}, ["x"]) != checkpoint.hash_inputs({"lr": 2.0}, ["x"])
    path = checkpoint.path_of("a", inputs)
    assert path == checkpoint.path_of("a", inputs)
    assert len({path, checkpoint.path_of("b", inputs), checkpoint.path_of("a", checkpoint.hash_inputs(1))}) == 3
    code = tmp_path / "dermdistill"
    shutil.copytree(Path(checkpoint.__file__).parents[1], code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(checkpoint, "__file__", str(code / "training/checkpoint.py"))
    assert checkpoint.path_of("a", inputs) == path
    for file in ("training/loop.py", "distillation/losses.py", "core/dataset.py"):
        before = checkpoint.path_of("a", inputs)
        (code / file).write_text((code / file).read_text() + "# changed\n")
        assert checkpoint.path_of("a", inputs) != before
    before = checkpoint.path_of("a", inputs)
    (code / "ingest/prepare.py").write_text("")
    assert checkpoint.path_of("a", inputs) == before


def test_an_edit_of_the_code_changes_nothing_in_a_saved_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher()
    before = {path.name: path.read_bytes() for path in TEACHER.iterdir()}
    monkeypatch.setattr(checkpoint, "CODE", ("ingest/*.py",))  # other code, as far as the checkpoint's name knows
    teacher()
    assert {path.name: path.read_bytes() for path in TEACHER.iterdir()} == before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_is_one_sentence(stopped: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(stopped.read_bytes())
    content[len(content) // 2] ^= 1
    stopped.write_bytes({"cut": content[: len(content) // 3], "flip": content, "empty": b""}[damage])
    with pytest.raises(SystemExit) as ended:
        run(train_teacher.main, "small")
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 1
    assert error.startswith("error: checkpoint runtime/checkpoints/teacher_small-")
    assert error.endswith("is damaged; delete it to train from the beginning")
    assert not TEACHER.exists()


def test_the_lock_of_a_dead_process_does_not_hold(project: Path) -> None:
    """A lock held by another process keeps us out; one whose process was killed does not."""
    code = (
        "import fcntl, sys, time; stream = open(sys.argv[1], 'w'); fcntl.flock(stream, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(600)"
    )
    Path("runtime/locks").mkdir(parents=True)
    other = subprocess.Popen(
        [sys.executable, "-c", code, "runtime/locks/teacher_small"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is being trained by another process"), checkpoint.alone("teacher_small"):
            raise AssertionError("the lock was not held")
        with checkpoint.alone("teacher_big"):
            pass
    finally:
        other.kill()
        other.wait()
    with checkpoint.alone("teacher_small"):
        assert Path("runtime/locks/teacher_small").exists()


# --- training that goes wrong -----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_with_epoch_and_step(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_params(project, {"teachers.small.lr": 1e30})
    with pytest.raises(SystemExit) as ended:
        run(train_teacher.main, "small")
    error = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 1
    assert error.startswith("error: the loss became nan in epoch 1, step ") and "lower lr (now 1e+30)" in error
    assert not TEACHER.exists()


def test_weights_spoilt_by_the_last_step_of_an_epoch_are_a_sentence_too(project: Path) -> None:
    train = len(load_split("train").rows)
    change_params(project, {"teachers.small.lr": 1e30, "train.batch_size": train})  # one step an epoch
    with pytest.raises(UserError, match="lower lr"):
        train_teacher.main("small")


def test_an_unknown_model_is_named_with_those_there_are(project: Path) -> None:
    with pytest.raises(UserError, match=r"no 'nobody' under teachers, only small"):
        train_teacher.main("nobody")


@pytest.mark.parametrize("seed", [0, 2**21, 20240101, 2**32 - 1])
def test_every_epoch_and_seed_has_an_order_of_its_own(project: Path, seed: int) -> None:
    train, val = load_split("train"), load_split("val")
    spec = params.load()
    job = loop.TrainingRun(load_images(), train, val, spec.teachers["small"], spec.train, seed, Path("none"))
    orders = {np.concatenate(list(loop._order(job, epoch))).tobytes() for epoch in range(10)}
    assert len(orders) == 10


def test_too_few_images_for_a_batch(project: Path) -> None:
    change_params(project, {"train.batch_size": 1000})
    with pytest.raises(UserError, match=r"train has \d+ images, fewer than train\.batch_size 1000; lower it"):
        train_teacher.main("small")


def test_val_without_melanoma_cannot_choose(project: Path) -> None:
    val = pd.read_csv("data/splits/val.csv", dtype=str)
    val[val["dx"] != "mel"].to_csv("data/splits/val.csv", index=False)
    with pytest.raises(UserError, match=r"val needs both melanoma and other images"):
        train_teacher.main("small")


# --- schedule and choice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "epochs"), [(0.5, 8), (1.0, 2), (0.0, 10), (2.0, 16)])
def test_the_schedule_warms_up_to_1_and_falls_to_0(warmup: float, epochs: int) -> None:
    time_ = np.linspace(0, epochs, 4001)
    rate = np.array([loop.lr_factor(t, warmup, epochs) for t in time_])
    assert loop.lr_factor(warmup, warmup, epochs) == 1
    assert rate.max() == 1 and rate.min() >= 0
    assert rate[-1] == pytest.approx(0, abs=1e-6)
    assert (np.diff(rate[time_ < 0.998 * warmup]) > 0).all() and (np.diff(rate[time_ >= warmup]) <= 0).all()
    assert np.abs(np.diff(rate)).max() < 2.5 * max(epochs / 4000 / max(warmup, 0.5), 1e-3)  # no jump
    if warmup:
        assert 0 < rate[0] < 0.01
        middle = loop.lr_factor((warmup + epochs) / 2, warmup, epochs)
        assert middle == pytest.approx(0.5)


def job(path: Path, **changes: object) -> loop.TrainingRun:
    settings = params.load()
    spec = settings.teachers["small"].model_copy(update=changes)
    parts = [load_split(name) for name in ("train", "val")]
    return loop.TrainingRun(load_images(), *parts, spec, settings.train, 0, path / "checkpoint.pt")


@pytest.mark.parametrize(
    ("keep", "scores", "kept"),
    [
        ("best", [0.6, 0.9, 0.7, 0.8], 1),
        ("best", [0.5, 0.6, 0.7, 0.8], 3),
        ("best", [0.9, 0.9, 0.1, 0.2], 0),
        ("last", [0.6, 0.9, 0.7, 0.8], 3),
    ],
)
def test_the_weights_of_the_best_or_the_last_epoch_are_returned(
    project: Path, monkeypatch: pytest.MonkeyPatch, keep: str, scores: list[float], kept: int
) -> None:
    """Ties go to the earlier epoch."""
    seen: list[dict[str, torch.Tensor]] = []

    def validate(fabric: object, model: torch.nn.Module, _: loop.TrainingRun) -> dict[str, float]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"val_melanoma_auc": scores[len(seen) - 1]}

    monkeypatch.setattr(loop, "_validate", validate)
    loop.deterministic(0)
    work = job(project, epochs=4, keep=keep)
    told: list[int] = []
    model, history = loop.fit(
        models.build(work.model)[0], losses.cross_entropy(torch.ones(7)), work, lambda row, epoch: told.append(epoch)
    )
    assert [row["val_melanoma_auc"] for row in history] == scores and told == [1, 2, 3, 4]
    same = [all(torch.equal(v, state[k]) for k, v in model.state_dict().items()) for state in seen]
    assert same == [row["kept"] for row in history] == [i == kept for i in range(4)] and not model.training


@pytest.mark.parametrize(
    ("activation", "copied"), [(torch.nn.ReLU6, True), (torch.nn.SiLU, True), (torch.nn.ReLU, False)]
)
def test_no_activation_copies_its_input(activation: type[torch.nn.Module], copied: bool) -> None:
    """Those whose gradient needs the input would, if they overwrote it; the bits are the same."""
    torch.manual_seed(0)
    images, outputs, clones = torch.randn(2, 3, 4, 4), [], []
    for prepared in (False, True):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), activation(inplace=True))
        torch.nn.init.eye_(network[0].weight.view(5, 3).detach())
        torch.nn.init.zeros_(network[0].bias)
        if prepared:
            loop.train_mode(network, False)
        with torch.profiler.profile() as profile:
            output = network(images)
        output.square().sum().backward()
        clones.append(sum(event.count for event in profile.key_averages() if event.key == "aten::clone"))
        outputs.append([output, *(parameter.grad for parameter in network.parameters())])
    assert clones == [int(copied), 0]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def test_the_average_follows_the_model_by_hand() -> None:
    model, average = (torch.nn.BatchNorm1d(1) for _ in range(2))
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(10.0)
        model.num_batches_tracked.fill_(7)
    loop.update_ema(average, model, 0.75)
    assert average.weight.item() == 0.75 * 1 + 0.25 * 3 and average.running_mean.item() == 0.25 * 10
    assert average.num_batches_tracked.item() == 7 and model.weight.item() == 3
    loop.update_ema(average, model, 0.0)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in average.state_dict().items())


def test_the_average_is_what_is_validated_and_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it the model itself, a decay of nearly 1 would change nothing."""
    validated: list[torch.Tensor] = []
    validate = loop._validate

    def note(fabric: Any, model: torch.nn.Module, work: loop.TrainingRun) -> dict[str, float]:
        validated.append(first(model))
        return validate(fabric, model, work)

    monkeypatch.setattr(loop, "_validate", note)
    kept = {}
    for decay in (0.0, 0.5):
        change_params(project, {"train.ema": decay})
        loop.deterministic(0)
        work = job(project / f"ema{decay}", epochs=1)
        loss, network = losses.cross_entropy(torch.ones(7)), models.build(work.model)[0]
        kept[decay] = first(loop.fit(network, loss, work, lambda row, epoch: None)[0])
    assert torch.equal(kept[0.0], validated[0]) and torch.equal(kept[0.5], validated[1])
    assert not torch.equal(kept[0.0], kept[0.5])


def first(model: torch.nn.Module) -> torch.Tensor:
    return next(model.parameters()).detach().clone()


# --- options of the loop ----------------------------------------------------------------------------------------


def with_settings(work: loop.TrainingRun, **changes: object) -> loop.TrainingRun:
    return replace(work, settings=work.settings.model_copy(update=changes))


@pytest.mark.parametrize(
    ("scores", "patience", "stops"),
    [
        ([], 2, False),
        ([0.5, 0.4, 0.4], 2, True),
        ([0.5, 0.4], 2, False),
        ([0.5, 0.4, 0.6], 2, False),
        ([0.5] * 9, 0, False),
    ],
)
def test_patience_counts_epochs_since_the_best(scores: list[float], patience: int, stops: bool) -> None:
    assert loop.should_stop_early(scores, patience) is stops


def test_a_training_without_progress_ends_early(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_validate", lambda *_: {"val_melanoma_auc": 0.5})
    work = with_settings(job(project, epochs=9), patience=2)
    loss = losses.cross_entropy(torch.ones(7))
    _, history = loop.fit(models.build(work.model)[0], loss, work, lambda row, epoch: None)
    assert [row["epoch"] for row in history] == [1, 2, 3]


def test_mixed_images_and_their_labels() -> None:
    images, labels = torch.rand(6, 3, 4, 5), torch.tensor([0, 1, 2, 3, 4, 6])
    mixed, shares = loop.mixup(images, labels, 0.4, (0, 1, 2))
    again = loop.mixup(images, labels, 0.4, (0, 1, 2))
    assert torch.equal(mixed, again[0]) and torch.equal(shares, again[1])
    assert not torch.equal(mixed, loop.mixup(images, labels, 0.4, (0, 1, 3))[0])
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    expected = torch.einsum("ij,jchw->ichw", shares[:, labels], images)  # distinct labels: shares name the partners
    torch.testing.assert_close(mixed, expected)


def test_balanced_sampling_shows_every_class_as_often(project: Path) -> None:
    work = with_settings(job(project), sampling="balanced")
    drawn = np.concatenate([np.concatenate(list(loop._order(work, epoch))) for epoch in range(30)])
    shares = np.bincount(work.train.labels[drawn], minlength=7) / len(drawn)
    present = np.bincount(work.train.labels, minlength=7) > 0
    assert shares[present] == pytest.approx(1 / present.sum(), abs=0.03) and not shares[~present].any()


def test_lower_layers_learn_more_slowly(project: Path) -> None:
    work = with_settings(job(project), layer_decay=0.5)
    model = models.build(work.model)[0]
    groups = loop.parameter_groups(model, work.settings)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    assert scale[id(model.network.classifier.weight)] == 1 > scale[id(model.network.conv_stem.weight)]
    assert decay[id(model.network.conv_stem.weight)] > 0 == decay[id(model.network.bn1.weight)]


def test_frozen_statistics_stay_and_weights_do_not(project: Path) -> None:
    work = with_settings(job(project, epochs=1), freeze_batch_norm=True, ema=0.0)
    model = models.build(work.model)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained, _ = loop.fit(model, losses.cross_entropy(torch.ones(7)), work, lambda row, epoch: None)
    for name, value in trained.state_dict().items():
        statistic = "running" in name or "num_batches" in name
        assert torch.equal(value, before[name]) == statistic, name


def test_frozen_stages_keep_every_bit_and_the_others_learn(project: Path) -> None:
    change_params(project, {"train.frozen_stages": 1})
    teacher()
    torch.manual_seed(0)
    start = models.build(params.load().teachers["small"])[0].state_dict()
    end = models.load(TEACHER)[0].state_dict()
    frozen = {name for name in start if name.startswith(("network.conv_stem", "network.bn1", "network.blocks.0"))}
    assert len(frozen) > 10 and any("running_mean" in name for name in frozen)
    assert all(torch.equal(start[name], end[name]) for name in frozen)
    learnt = {name for name in start.keys() - frozen if not name.endswith("num_batches_tracked")}
    assert len(learnt) > 10 and not any(torch.equal(start[name], end[name]) for name in learnt)


def test_more_frozen_stages_than_there_are(project: Path) -> None:
    change_params(project, {"train.frozen_stages": 3})
    with pytest.raises(UserError, match=r"train\.frozen_stages is 3, but there are only 2; lower it"):
        train_teacher.main("small")


@pytest.mark.parametrize(
    "change",
    [
        {"teachers.small.mixup": 0.4},
        {"train.focal_gamma": 2.0},
        {"train.sampling": "balanced"},
        {"train.layer_decay": 0.8},
    ],
)
def test_each_option_reaches_the_weights(project: Path, change: dict[str, object]) -> None:
    before = teacher()
    change_params(project, change)
    assert teacher() != before


def test_an_epoch_takes_each_train_image_at_most_once_and_in_another_order(project: Path) -> None:
    work = job(project)
    epochs = [np.concatenate(list(loop._order(work, epoch))) for epoch in (0, 1)]
    size, count = work.settings.batch_size, len(work.train.rows)
    for order in epochs:
        assert len(order) == count // size * size == len(set(order.tolist()))
    assert epochs[0].tolist() != epochs[1].tolist()
    again = np.concatenate(list(loop._order(work, 0)))
    assert (again == epochs[0]).all()


def test_a_teacher_learns_what_melanoma_looks_like(project: Path) -> None:
    """The loop does learn: a mark that only melanomas carry is found within a few epochs."""
    images = np.random.default_rng(0).integers(128, 168, (96, 32, 48, 3), np.uint8)
    labels = np.arange(96) % 2
    images[labels == 1, 8:24, 16:32, 0] = 255
    split = [loop.Split([""] * 48, [""] * 48, labels[rows], rows) for rows in (np.arange(48), np.arange(48, 96))]
    work = job(project, epochs=12, lr=5e-3)
    work = loop.TrainingRun(images, *split, work.model, work.settings, 0, work.checkpoint)
    loop.deterministic(0)
    loss = losses.cross_entropy(torch.ones(7))
    _, history = loop.fit(models.build(work.model)[0], loss, work, lambda row, epoch: None)
    assert max(row["val_melanoma_auc"] for row in history) > 0.95
    assert history[-1]["train_loss"] < 0.6 * history[0]["train_loss"]


def test_predictions_do_not_depend_on_the_batch_size(project: Path) -> None:
    loop.deterministic(0)
    work = job(project)
    model = models.build(work.model)[0].train()
    one, other = (loop.predict(model, work.images, work.val.rows, size) for size in (1, 64))
    assert one.shape == (len(work.val.rows), 7) and torch.allclose(one, other, atol=1e-5)


def test_a_student_names_its_teacher_among_its_inputs(project: Path) -> None:
    teacher()
    student()
    before = models.read_metadata(STUDENT)["inputs"]
    change_params(project, {"teachers.small.lr": 1e-3})
    teacher()
    student()
    assert models.read_metadata(STUDENT)["inputs"] != before

"""Several teachers as one, and their stored targets: the same as in the loop, refused when they are another's."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import change_params, shrunk_params
from torch import Tensor, nn

from dermdistill import params
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import read_json, sha256
from dermdistill.core.model_id import ModelId
from dermdistill.distillation import ensemble as ensemble_module
from dermdistill.distillation import teacher_targets
from dermdistill.distillation.ensemble import Ensemble, load_model, log_mean_probability
from dermdistill.errors import UserError
from dermdistill.metrics import predictions
from dermdistill.training import checkpoint, loop
from dermdistill.training.models import read_metadata
from stages import control, distill, ensemble, predict, split, train_teacher
from stages import teacher_targets as store_targets

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
STUDENT = Path("models/students/student_smaller_s0/model.safetensors")
HISTORY = STUDENT.with_name("history.csv")


class Fixed(nn.Module):
    """Answers with the mean of one channel and a constant, whatever the image's size."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, images: Tensor) -> Tensor:
        left = images[:, self.channel, :, : images.shape[3] // 2].mean((1, 2))
        top = images[:, self.channel, : images.shape[2] // 2].mean((1, 2))
        return torch.stack([4 * left, 4 * top, torch.ones_like(left)], 1)


def test_the_mean_is_that_of_probabilities_and_not_of_logits() -> None:
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]], dtype=torch.float64)
    first = 1 / (1 + np.exp(-2.0))
    assert log_mean_probability(logits).exp()[0].tolist() == pytest.approx([(first + 0.5) / 2, (1.5 - first) / 2])


def test_an_ensemble_averages_members_and_mirror_images() -> None:
    images = torch.rand(4, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    one, two = Fixed(0), Fixed(1)
    assert torch.equal(Ensemble([one])(images), one(images))
    expected = (one(images).softmax(1) + two(images).softmax(1)) / 2
    assert torch.allclose(Ensemble([one, two])(images).softmax(1), expected)
    mirrored = Ensemble([one], flips=True)
    four = [one(images), one(images.flip(3)), one(images.flip(2)), one(images.flip(2, 3))]
    assert torch.allclose(mirrored(images).softmax(1), torch.stack([x.softmax(1) for x in four]).mean(0))
    for dims in ((2,), (3,), (2, 3)):
        assert torch.allclose(mirrored(images.flip(dims)), mirrored(images), atol=1e-6)
    assert not torch.allclose(one(images.flip(3)), one(images), atol=1e-3)  # the test can tell


def taught(seed: str = "0", teachers: tuple[str, ...] = ("small",)) -> dict[str, Tensor]:
    """The student's weights once everything before it has run."""
    for name in teachers:
        store_targets.main(name)
    ensemble.main()
    distill.main("smaller", seed)
    return safetensors.torch.load_file(str(STUDENT).replace("s0", f"s{seed}"))


def two_teachers(folder: Path, **kd: object) -> None:
    other = shrunk_params()["teachers"]["small"] | {"seed": 1, "epochs": 1}
    changes = {"teachers.other": other, "run.teachers": ["small", "other"], "kd.teachers": ["small", "other"]}
    change_params(folder, changes | {f"kd.{name}": value for name, value in kd.items()})
    for name in ("small", "other"):
        train_teacher.main(name)


@pytest.mark.parametrize("flips", [False, True])
def test_stored_answers_teach_what_the_teachers_in_the_loop_teach(project: Path, flips: bool) -> None:
    two_teachers(project, flips=flips)
    inside, history = taught(teachers=("small", "other")), np.loadtxt(HISTORY, delimiter=",", skiprows=1)
    change_params(project, {"kd.num_views": 2})  # as many as epochs
    stored = taught(teachers=("small", "other"))
    assert np.load("models/teacher_ensemble/targets.npy").shape == (2, len(teacher_targets.load_split("train").rows), 7)
    assert np.loadtxt(HISTORY, delimiter=",", skiprows=1) == pytest.approx(history, rel=1e-3)
    # To half precision, in which targets are stored: see the next test.
    assert all(torch.allclose(stored[name].float(), inside[name].float(), atol=1e-2) for name in inside)
    change_params(project, {"kd.num_views": 1})  # the second epoch shows the first view again
    taught(teachers=("small", "other"))
    again = np.loadtxt(HISTORY, delimiter=",", skiprows=1)
    assert again[0] == pytest.approx(history[0], rel=1e-3) and again[1] != pytest.approx(history[1], rel=1e-3)


@pytest.mark.parametrize("flips", [False, True])
def test_stored_targets_are_the_logits_of_the_views_in_half_precision(project: Path, flips: bool) -> None:
    two_teachers(project, flips=flips, num_views=2)
    for name in ("small", "other"):
        store_targets.main(name)
    ensemble.main()
    targets = np.load("models/teacher_ensemble/targets.npy")
    network = ensemble_module.load([ModelId("teacher", name).folder for name in ("other", "small")], flips)
    images, rows, settings = load_images(), load_split("train").rows, params.load().train.augment
    for view in (0, 1):
        shown = teacher_targets.augment(teacher_targets.to_float(images[rows]), rows, settings, loop.STORED, view)
        with torch.no_grad():
            logits = network(shown)
        assert targets.dtype == np.float16 and targets[view] == pytest.approx(logits.numpy(), rel=1e-3, abs=1e-3)


def crossfitted(folder: Path) -> dict[str, np.ndarray]:
    """Two teachers that each leave out a fold; name → the targets it stored."""
    block = params.load().teachers["small"].model_dump()
    blocks = {f"teachers.left_{fold}": block | {"fold": fold, "seed": fold, "epochs": 3} for fold in (0, 1)}
    change_params(folder, blocks | {"split.folds": 2, "run.teachers": ["left_0", "left_1"]})
    change_params(folder, {"kd.teachers": ["left_0", "left_1"], "kd.num_views": 2, "kd.crossfit": True})
    split.main()
    for name in ("left_0", "left_1"):
        train_teacher.main(name)
        store_targets.main(name)
    ensemble.main()
    return {name: np.load(f"data/teacher_targets/{name}/logits.npy") for name in ("left_0", "left_1")}


def test_crossfitted_targets_are_of_the_teacher_that_left_the_image_out(project: Path) -> None:
    stored, train = crossfitted(project), load_split("train")
    assert train.folds is not None
    targets = np.load("models/teacher_ensemble/targets.npy").astype(np.float64)
    temperatures = read_json("models/teacher_ensemble/ensemble.json")["temperatures"]
    for fold in (0, 1):
        name, left_out = f"left_{fold}", train.folds == fold
        assert left_out.any() and stored[name].shape == (2, left_out.sum(), 7)
        wanted = torch.from_numpy(stored[name] / temperatures[name]).log_softmax(-1).softmax(-1).numpy()
        assert torch.from_numpy(targets[:, left_out]).softmax(-1).numpy() == pytest.approx(wanted, abs=2e-3)
    lesions = [{one for one, fold in zip(train.lesion_id, train.folds, strict=True) if fold == k} for k in (0, 1)]
    assert not lesions[0] & lesions[1]
    before = np.load("models/teacher_ensemble/targets.npy")
    distill.main("smaller", "0")  # learns from them as from any
    shown = {name: read_metadata(ModelId("teacher", name).folder)["inputs"] for name in stored}
    assert len(set(shown.values())) == 2 and np.array_equal(before, np.load("models/teacher_ensemble/targets.npy"))


def test_what_a_teacher_left_out_cannot_change_it(project: Path) -> None:
    """Scrambled pixels of its fold leave its weights as they are; those of another fold do not."""
    crossfitted(project)
    train, path = load_split("train"), ModelId("teacher", "left_0").folder / "model.safetensors"
    assert train.folds is not None
    before, whole = sha256(path), np.load("data/prepared/images.npy")
    for fold, same in ((0, True), (1, False)):
        scrambled, rows = whole.copy(), train.rows[train.folds == fold]
        scrambled[rows] = 255 - scrambled[rows]
        np.save("data/prepared/images.npy", scrambled)
        train_teacher.main("left_0")
        assert (sha256(path) == before) == same


def test_the_fitted_temperature_is_the_one_of_least_nll() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4000, 7, generator=generator) * 2
    labels = torch.multinomial(logits[0].softmax(-1), 1, generator=generator)[:, 0]
    assert teacher_targets.fit_temperature(logits[:1], labels) == pytest.approx(1, rel=0.05)
    assert teacher_targets.fit_temperature(3 * logits[:1], labels) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kd.num_views": 0}, "kd.crossfit takes each image's target .* set kd.num_views to at least 1"),
        ({"split.folds": 3}, r"every fold of split.folds 3 left out by one; those of kd.teachers leave out \[0, 1\]"),
        ({"split.folds": 0, "kd.crossfit": False}, "teachers.left_0.fold is 0, but split.folds is 0"),
        ({"teachers.left_1.fold": None}, r"leave out \[0, None\]"),
    ],
)
def test_folds_that_do_not_fit_are_refused(project: Path, changes: dict[str, object], says: str) -> None:
    block = params.load().teachers["small"].model_dump()
    change_params(project, {f"teachers.left_{fold}": block | {"fold": fold} for fold in (0, 1)})
    change_params(project, {"split.folds": 2, "kd.num_views": 1, "kd.crossfit": True})
    change_params(project, {"run.teachers": ["left_0", "left_1"], "kd.teachers": ["left_0", "left_1"]})
    params.load()
    change_params(project, changes)
    with pytest.raises(UserError, match=says):
        params.load()


def test_a_split_without_folds_says_how_to_make_them(project: Path) -> None:
    with pytest.raises(UserError, match=r"no fold 1; raise split.folds and run `dvc repro split`"):
        load_split("train").in_fold(1)


def test_the_views_do_not_depend_on_the_students_seed() -> None:
    def run(seed: int, views: int) -> loop.TrainingRun:
        return loop.TrainingRun(*[None] * 5, seed, Path(), views)  # type: ignore[arg-type]

    assert [run(4, 3).view(epoch) for epoch in range(5)] == [(0, 0), (0, 1), (0, 2), (0, 0), (0, 1)]
    assert [run(4, 0).view(epoch) for epoch in range(2)] == [(4, 0), (4, 1)]


def test_students_of_other_seeds_share_the_answers_and_still_differ(project: Path) -> None:
    train_teacher.main("small")
    change_params(project, {"kd.num_views": 2, "run.seeds": [0, 1]})
    first, second = taught("0"), taught("1")
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_storing_goes_on_where_it_was_killed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_teacher.main("small")
    change_params(project, {"kd.num_views": 3})
    store_targets.main("small")
    logits = Path("data/teacher_targets/small/logits.npy")
    whole = logits.read_bytes()
    views: list[int] = []
    augment = teacher_targets.augment

    def counted(*arguments: object) -> Tensor:
        views.append(int(arguments[-1]))  # type: ignore[call-overload]
        if len(views) == 2:
            raise KeyboardInterrupt
        return augment(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(teacher_targets, "augment", counted)
    logits.unlink()
    with pytest.raises(KeyboardInterrupt):
        store_targets.main("small")
    assert not logits.exists() and views == [0, 1]
    store_targets.main("small")
    assert views == [0, 1, 1, 2] and logits.read_bytes() == whole
    assert not list(checkpoint.FOLDER.glob("teacher_targets_*"))


def test_answers_of_another_teacher_are_refused(project: Path) -> None:
    train_teacher.main("small")
    change_params(project, {"kd.num_views": 1})
    store_targets.main("small")
    change_params(project, {"teachers.small.seed": 1})
    train_teacher.main("small")
    with pytest.raises(
        UserError, match=r"targets of another teacher_small or kd.num_views; run `dvc repro teacher_targets@small`"
    ):
        ensemble.main()
    change_params(project, {"kd.num_views": 2})
    with pytest.raises(UserError, match="another teacher_small"):
        ensemble.main()


def test_answers_to_other_views_are_refused(project: Path) -> None:
    two_teachers(project, num_views=1)
    store_targets.main("small")
    change_params(project, {"train.augment.rotate": 10})
    store_targets.main("other")
    with pytest.raises(UserError, match="belong to different views"):
        ensemble.main()
    store_targets.main("small")
    ensemble.main()
    change_params(project, {"train.augment.rotate": 20})
    with pytest.raises(UserError, match=r"belong to other images or views; run `dvc repro ensemble`"):
        distill.main("smaller", "0")


def test_a_student_shown_mixed_images_cannot_learn_from_stored_answers(project: Path) -> None:
    change_params(project, {"kd.num_views": 1, "students.smaller.mixup": 0.2})
    with pytest.raises(UserError, match=r"kd.num_views 1 .* student smaller sees mixed ones; set its mixup to 0"):
        params.load()


def test_the_ensemble_is_evaluated_like_any_model_and_costs_no_pass_of_its_own(project: Path) -> None:
    two_teachers(project)
    settings = params.load()
    assert settings.teacher_id == "teacher_ensemble" and "teacher_ensemble" in settings.model_ids()
    store_targets.main("small")
    ensemble.main()  # no stored views: no targets are needed
    members = read_json("models/teacher_ensemble/ensemble.json")["members"]
    assert members == {n: sha256(f"models/teachers/teacher_{n}/model.safetensors") for n in ("other", "small")}
    inside = ensemble_module.load_teachers(flips=False)
    for name in ("small", "other"):
        predict.main(f"teacher_{name}")
    files = [predictions.read(ModelId("teacher", name).predictions("val")) for name in ("small", "other")]
    predictions.write_mean("mean.csv", files)
    rows = loop.predict(inside, load_images(), load_split("val").rows).double().softmax(1).numpy()
    assert predictions.read("mean.csv").probabilities == pytest.approx(rows, abs=1e-6)


def test_a_teacher_is_evaluated_with_mirror_images_and_a_student_never(project: Path) -> None:
    train_teacher.main("small")
    teacher = ModelId("teacher", "small")
    predict.main(str(teacher))
    plain = predictions.read(teacher.predictions("val")).probabilities
    change_params(project, {"predict.flips": True})
    predict.main(str(teacher))
    assert not np.allclose(predictions.read(teacher.predictions("val")).probabilities, plain, atol=1e-5)
    images, network = torch.rand(2, 3, 32, 48), load_model(teacher)
    assert torch.allclose(load_model(teacher, True)(images), Ensemble(list(network.members), True)(images))
    control.main("smaller", "0")
    pupil = ModelId("control", "smaller", 0)
    assert torch.equal(load_model(pupil, True)(images), load_model(pupil)(images))

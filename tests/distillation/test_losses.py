"""The methods of distillation against values worked out by hand, and what each promises; each trains a student."""

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import yaml
from helpers import REPOSITORY, SMALL, change_params
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dermdistill import params
from dermdistill.blocks import Method
from dermdistill.core.classes import MELANOMA
from dermdistill.distillation import feature_losses, losses
from dermdistill.distillation.ensemble import Ensemble
from dermdistill.errors import UserError
from dermdistill.params import Model
from dermdistill.training import models
from dermdistill.training.losses import cross_entropy
from stages import distill, ensemble, teacher_targets, train_teacher

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
METHODS = ("kd", "ls", "dkd", "dist")
seeds = st.integers(0, 10_000)


def logits(seed: int, n: int = 6) -> Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def soft(method: str, student: Tensor, teacher: Tensor, temperature: float = 2.0, beta: float = 8.0) -> float:
    labels = torch.arange(len(student)) % student.shape[1]
    return losses.logits_loss(method, temperature, beta)(student, teacher, labels).item()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum()


# --- by hand ----------------------------------------------------------------------------------------------------

STUDENT, TEACHER = np.array([1.0, 0.0, -1.0]), np.array([3.0, 1.0, -1.0])


def tensors() -> tuple[Tensor, Tensor]:
    return torch.tensor(STUDENT)[None], torch.tensor(TEACHER)[None]


def test_alpha_is_the_weight_of_the_teacher() -> None:
    def task_loss(student: Tensor, labels: Tensor, teacher: Tensor | None) -> dict[str, Tensor]:
        return {"loss": torch.tensor(8.0)}

    logits, labels = torch.zeros(2, 7), torch.zeros(2, dtype=torch.long)
    loss = losses.distillation(task_loss, lambda student, teacher, labels: torch.tensor(4.0), alpha=0.25)
    assert {name: term.item() for name, term in loss(logits, labels, logits).items()} == {
        "loss": 0.75 * 8 + 0.25 * 4,
        "task_loss": 8.0,
        "kd_loss": 4.0,
    }


def test_standardised_logits_by_hand() -> None:
    sd = np.sqrt(2 / 3)  # of (1, 0, −1); the teacher's (3, 1, −1) has twice that
    z = np.array([1, 0, -1]) / sd
    assert losses.logit_standardization_loss(*tensors(), 2.0).item() == pytest.approx(
        4 * kl(softmax(z / 2), softmax(z / 2)), abs=1e-12
    )
    student, teacher = torch.tensor([[0.0, 0.0, 3.0]]), tensors()[1]
    other = np.array([-1, -1, 2]) / np.sqrt(2)
    expected = 4 * kl(softmax(z / 2), softmax(other / 2))
    assert losses.logit_standardization_loss(student.double(), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_decoupled_by_hand() -> None:
    p, q = softmax(TEACHER / 2), softmax(STUDENT / 2)
    target = kl(np.array([p[1], 1 - p[1]]), np.array([q[1], 1 - q[1]]))
    rest = kl(softmax(TEACHER[[0, 2]] / 2), softmax(STUDENT[[0, 2]] / 2))
    found = losses.dkd_loss(*tensors(), torch.tensor([1]), 2.0, 8.0).item()
    assert found == pytest.approx(4 * (target + 8 * rest), rel=1e-9)


def test_decoupled_with_the_teachers_doubt_as_weight_is_the_classic_loss() -> None:
    p = softmax(TEACHER / 2)
    found = losses.dkd_loss(*tensors(), torch.tensor([1]), 2.0, 1 - p[1]).item()
    assert found == pytest.approx(losses.kl_loss(*tensors(), 2.0).item(), rel=1e-9)


def test_relational_by_hand() -> None:
    student, teacher = logits(0, 5), logits(1, 5)
    q, p = (F.softmax(one / 4, dim=1).numpy() for one in (student, teacher))
    inter = np.mean([1 - np.corrcoef(q[i], p[i])[0, 1] for i in range(5)])
    intra = np.mean([1 - np.corrcoef(q[:, c], p[:, c])[0, 1] for c in range(7)])
    assert losses.dist_loss(student, teacher, 4.0, 0.5).item() == pytest.approx(16 * (inter + intra / 2), rel=1e-5)


def test_attention_by_hand() -> None:
    a = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2): energies 9 and 16
    b = torch.tensor([[[[1.0, 1.0]]]])
    first, second = np.array([9.0, 16.0]) / np.hypot(9, 16), np.array([1.0, 1.0]) / np.sqrt(2)
    found = feature_losses._attention_distance(a, b).item()
    assert found == pytest.approx(((first - second) ** 2).mean(), rel=1e-6)
    larger = b.repeat_interleave(2, 2).repeat_interleave(2, 3)  # (1, 1, 2, 4), of the same mean
    assert feature_losses._attention_distance(a, larger).item() == pytest.approx(found, rel=1e-6)


# --- properties -------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from(METHODS), st.sampled_from([1.0, 2.0, 4.0]))
def test_a_student_like_its_teacher_has_nothing_to_learn(seed: int, method: str, temperature: float) -> None:
    student, other = logits(seed), logits(seed + 1)
    assert soft(method, student, student, temperature) == pytest.approx(0, abs=1e-6)
    assert soft(method, student + 5, student, temperature) == pytest.approx(0, abs=1e-6)  # softmax ignores a shift
    assert soft(method, student, other, temperature) > 1e-3


@given(seeds)
def test_only_standardised_logits_ignore_the_scale(seed: int) -> None:
    student, teacher = logits(seed), logits(seed + 1)
    assert soft("ls", student * 7, teacher) == pytest.approx(soft("ls", student, teacher), rel=1e-5)
    for method in ("kd", "dkd", "dist"):
        assert soft(method, student * 7, teacher) != pytest.approx(soft(method, student, teacher), rel=1e-6)


@given(seeds)
def test_the_loss_of_a_batch_is_the_mean_over_its_images_and_only_relations_see_the_batch(seed: int) -> None:
    student, teacher = logits(seed, 7), logits(seed + 1, 7)
    for method in ("kd", "ls", "dkd"):
        labels = torch.arange(7)
        loss = losses.logits_loss(method, 2.0, 8.0)
        each = [loss(student[[i]], teacher[[i]], labels[[i]]).item() for i in range(7)]
        assert loss(student, teacher, labels).item() == pytest.approx(np.mean(each), rel=1e-9)
    inter = [losses.dist_loss(student[[i]], teacher[[i]], 2.0, 0.0).item() for i in range(7)]
    assert losses.dist_loss(student, teacher, 2.0, 0.0).item() == pytest.approx(np.mean(inter), rel=1e-9)


# --- feature maps -----------------------------------------------------------------------------------------------


def pair() -> tuple[models.Classifier, Ensemble]:
    spec = Model(**SMALL, epochs=1, lr=1e-3, dropout=0.0, keep="best")  # type: ignore[arg-type]
    torch.manual_seed(0)
    student, one, two = (models.build(spec)[0].eval() for _ in range(3))
    return student, Ensemble([one, two])


def backward(term: Callable[[], Tensor], student: nn.Module, teacher: nn.Module, images: Tensor) -> Tensor:
    """The loss of one forward pass of both, after its backward pass."""
    student(images), teacher(images)
    loss = term()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def test_maps_are_those_of_the_last_pass_and_match_by_size() -> None:
    student, teacher = pair()
    term, images = feature_losses.attention(student, teacher, (32, 48)), torch.rand(2, 3, 32, 48)
    first = backward(term, student, teacher, images)
    assert first.item() > 0 and any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())
    student.load_state_dict(teacher.members[0].state_dict())
    alike = Ensemble([teacher.members[0]])  # type: ignore[list-item]
    term = feature_losses.attention(student, alike, (32, 48))
    student(images), alike(images)
    assert term().item() == pytest.approx(0, abs=1e-9)
    student(images * 0.5), alike(images)
    assert term().item() > 1e-9


def test_a_teacher_that_sees_larger_images_is_averaged_down_to_the_student() -> None:
    """Maps of a teacher at 1.5 times the size, averaged by hand; at twice it, the next stage's fit as they are."""
    student, teacher = pair()
    images = torch.rand(2, 3, 32, 48)
    for size, sizes in (([48, 72], [((16, 24), (24, 36)), ((8, 12), (12, 18))]), ([64, 96], [((16, 24), (16, 24))])):
        large = teacher.members[0]
        large.size = size  # type: ignore[assignment]
        term = feature_losses.attention(student, Ensemble([large]), (32, 48))  # type: ignore[list-item]
        mine, theirs = feature_losses.Maps(student), feature_losses.Maps(large)
        student(images), large(images)

        def attention(maps: Tensor) -> Tensor:
            return F.normalize(maps.square().sum(1).flatten(1), dim=1)

        by_hand = sum(
            (attention(mine.by_size[a]) - attention(F.adaptive_avg_pool2d(theirs.by_size[b], a))).square().mean()
            for a, b in sizes
        )
        assert set(mine.by_size) == {(16, 24), (8, 12)} and term().item() == pytest.approx(
            float(by_hand.detach()), rel=1e-5
        )
        regression = feature_losses.regression(student, Ensemble([large]), (32, 48))  # type: ignore[list-item]
        student(images), large(images)
        assert regression().item() > 0


def test_regression_compares_the_deepest_map_through_a_trained_convolution() -> None:
    student, teacher = pair()
    term, images = feature_losses.regression(student, teacher, (32, 48)), torch.rand(2, 3, 32, 48)
    backward(term, student, teacher, images)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.projections.parameters())
    assert len(student.projections) == 2  # one for each teacher


def test_regression_by_hand() -> None:
    """mean (W · student + b − teacher)², the 1×1 convolution written as a product; mean over two teachers."""
    student, teacher = pair()
    members = [Ensemble([member]).members[0] for member in teacher.members]
    mine, theirs = feature_losses.Maps(student), [feature_losses.Maps(member) for member in members]
    term = feature_losses.regression(student, teacher, (32, 48))
    images = torch.rand(2, 3, 32, 48)
    student(images), teacher(images)
    at = min(mine.by_size)
    each = []
    for other, fit in zip(theirs, student.projections, strict=True):
        product = torch.einsum("oc,nchw->nohw", fit.weight[:, :, 0, 0], mine.by_size[at]) + fit.bias[:, None, None]
        each.append(float(((product - other.by_size[at]) ** 2).mean().detach()))
    assert len(each) == 2 and term().item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_networks_without_a_common_size_are_refused() -> None:
    student, _ = pair()

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(7))

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images)
            return logits

    with pytest.raises(UserError, match="no feature maps of about the same height and width"):
        feature_losses.attention(student, Ensemble([Flat()]), (32, 48))


# --- the whole --------------------------------------------------------------------------------------------------


def test_features_are_added_with_their_weight_and_the_rest_stays() -> None:
    task_loss, kd_loss = cross_entropy(torch.ones(7)), losses.logits_loss("kd", 2.0, 0.0)
    given = logits(0).float(), torch.zeros(6, dtype=torch.long), logits(1).float()
    plain = losses.distillation(task_loss, kd_loss, 0.7)(*given)
    more = losses.distillation(task_loss, kd_loss, 0.7, lambda: torch.tensor(0.5), 3.0)(*given)
    assert more["loss"].item() == pytest.approx(plain["loss"].item() + 1.5)
    assert more["kd_loss"] == plain["kd_loss"] and more["feature_loss"].item() == 0.5


def test_of_two_classes_only_their_two_probabilities_are_compared() -> None:
    """T² · Σ p log(p / q) over melanoma and the rest; how a teacher divides the rest among six is no matter."""
    student, teacher = logits(0), logits(1)

    def at_two(found: Tensor) -> Tensor:
        p = found.softmax(1)[:, MELANOMA]
        return torch.stack([1 - p, p], 1) ** 0.5 / (torch.stack([1 - p, p], 1) ** 0.5).sum(1, keepdim=True)

    p, q = at_two(teacher), at_two(student)
    chosen = params.load(REPOSITORY / "params.yaml").kd.model_copy(update={"method": "kd", "temperature": 2.0})
    loss = losses.make_loss(chosen, cross_entropy(torch.ones(7)), task="melanoma")
    labels = torch.zeros(6, dtype=torch.long)
    found = loss(student, labels, teacher)["kd_loss"]
    assert found.item() == pytest.approx(float((4 * (p * (p / q).log()).sum(1)).mean()), rel=1e-5)
    rest = [index for index in range(7) if index != MELANOMA]
    teacher[:, rest] = teacher[:, rest[1:] + rest[:1]]
    assert loss(student, labels, teacher)["kd_loss"].item() == pytest.approx(found.item(), rel=1e-5)
    seven = losses.make_loss(chosen, cross_entropy(torch.ones(7)))
    assert seven(student, labels, teacher)["kd_loss"].item() != pytest.approx(found.item(), rel=1e-2)


@pytest.mark.parametrize("method", get_args(Method))
def test_the_readme_s_flags_choose_every_method_with_the_committed_parameters(method: str) -> None:
    """README and docs/distillation.md: ``-S kd.method=…``, for methods of features ``-S kd.num_views=0`` too."""
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    content["kd"] |= {"method": method} | ({"num_views": 0} if method in ("at", "feature") else {})
    assert params.check(content, "params.yaml").kd.method == method


def test_every_method_trains_a_student_of_its_own(project: Path) -> None:
    """With teachers in the loop ``-S kd.method=…`` alone is enough; the saved student carries nothing but itself."""
    change_params(project, {"students.smaller.epochs": 1, "teachers.small.epochs": 1})
    train_teacher.main("small")
    teacher_targets.main("small")
    ensemble.main()
    found, losses = {}, {}
    for method in get_args(Method):
        change_params(project, {"kd.method": method})
        distill.main("smaller", "0")
        folder = Path("models/students/student_smaller_s0")
        models.load(folder)  # refuses tensors that the network does not have
        found[method] = (folder / "model.safetensors").read_bytes()
        history = pd.read_csv("models/students/student_smaller_s0/history.csv")
        losses[method] = history["train_loss"][0]
        assert ("train_feature_loss" in history) == (method in ("at", "feature"))
    assert len(set(found.values())) == len(found)
    change_params(project, {"kd.method": "at", "kd.methods.at.beta": 0.0})
    distill.main("smaller", "0")
    history = pd.read_csv("models/students/student_smaller_s0/history.csv")
    assert history["train_loss"][0] == pytest.approx(losses["kd"], rel=1e-3)
    assert losses["at"] != pytest.approx(losses["kd"], rel=1e-3)
    alone = []
    for task in ("diagnosis", "melanoma"):  # without the hard loss, only what is compared can differ
        change_params(project, {"kd.method": "kd", "kd.alpha": 1.0, "train.task": task})
        distill.main("smaller", "0")
        alone.append((folder / "model.safetensors").read_bytes())
    assert alone[0] != alone[1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kd.method": "at", "kd.num_views": 2}, "method at compares feature maps, .* set kd.num_views to 0"),
        ({"kd.method": "feature", "kd.flips": True}, "method feature compares .* kd.flips to false"),
        *(
            (
                {"kd.method": name, "train.task": "melanoma"},
                f"{name} degenerates with two classes: .*; set kd.method to kd",
            )
            for name in ("ls", "dkd", "dist")
        ),
        ({"kd.method": "dkd", "students.smaller.mixup": 0.2}, "one true class an image; set mixup of student smaller"),
        ({"kd.method": "feature", "train.layer_decay": 0.8}, "set train.layer_decay to 1"),
        ({"kd.methods.kd.beta": 1.0}, r"unknown parameter kd\.methods\.kd\.beta"),
        ({"kd.methods.at.gamma": 1.0}, r"unknown parameter kd\.methods\.at\.gamma"),
        ({"kd.beta": 1.0}, r"unknown parameter kd\.beta"),
        ({"kd.method": "magic"}, r"kd\.method: input should be .*, not 'magic'"),
    ],
)
def test_what_means_nothing_to_a_method_is_refused(project: Path, changes: dict[str, object], says: str) -> None:
    change_params(project, changes)
    with pytest.raises(UserError, match=says):
        params.load()

"""The losses against values worked out by hand, and what distillation promises about α, T and the teacher."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dermdistill.distillation import losses
from dermdistill.distillation.ensemble import in_the_loop
from dermdistill.distillation.losses import kl_loss as kd_loss
from dermdistill.training.loop import Batch
from dermdistill.training.losses import Loss, class_weights, cross_entropy

ONES = torch.ones(7)


class Affine(nn.Module):
    """A teacher whose logits depend on the images, on learnt weights and on its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(12, 7)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(images).flatten(1))
        return logits


def distillation(task_loss: Loss, temperature: float, alpha: float) -> Loss:
    return losses.distillation(task_loss, losses.logits_loss("kd", temperature, 0.0), alpha)


def random_logits(seed: int, n: int = 4) -> Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


def test_kd_loss_is_t_squared_kl_of_teacher_from_student_by_hand() -> None:
    # Two classes at T = 2: teacher logits (2 ln 3, 0) soften to (3/4, 1/4), the student's (0, 0) to (1/2, 1/2).
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(4 * kl, rel=1e-6)
    # The other direction is another number, so the order of the arguments is tested too.
    other = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kd_loss(teacher, student, 2.0).item() == pytest.approx(4 * other, rel=1e-6)
    assert abs(kl - other) > 0.01


@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_kd_loss_is_zero_for_equal_logits_and_positive_else(seed: int, temperature: float) -> None:
    logits = random_logits(seed)
    assert kd_loss(logits, logits, temperature).item() == pytest.approx(0, abs=1e-12)
    assert kd_loss(logits, logits + 5, temperature).item() == pytest.approx(0, abs=1e-9)  # softmax ignores a shift
    assert kd_loss(logits, logits.flip(1), temperature).item() > 0


@given(st.integers(0, 1000), st.integers(2, 5))
def test_kd_loss_does_not_depend_on_how_often_the_batch_is_repeated(seed: int, times: int) -> None:
    student, teacher = random_logits(seed), random_logits(seed + 1)
    once, often = kd_loss(student, teacher, 3.0), kd_loss(student.repeat(times, 1), teacher.repeat(times, 1), 3.0)
    assert often.item() == pytest.approx(once.item(), rel=1e-9)


def test_kd_loss_does_not_shrink_as_impossible_classes_are_added() -> None:
    student, teacher = random_logits(0), random_logits(1)
    impossible = torch.full((4, 20), -1e4, dtype=torch.float64)
    wide = kd_loss(torch.cat([student, impossible], 1), torch.cat([teacher, impossible], 1), 2.0)
    assert wide.item() == pytest.approx(kd_loss(student, teacher, 2.0).item(), rel=1e-9)


def gradient(temperature: float) -> float:
    student = random_logits(0).requires_grad_()
    kd_loss(student, random_logits(1), temperature).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    return float(student.grad.norm())


def test_t_squared_keeps_the_gradients_size_for_large_t() -> None:
    assert gradient(200.0) == pytest.approx(gradient(50.0), rel=0.05)
    # In the limit it is (student − teacher, each centred) / (n · classes).
    difference = random_logits(0) - random_logits(1)
    limit = (difference - difference.mean(1, keepdim=True)).norm().item() / (4 * 7)
    assert gradient(5000.0) == pytest.approx(limit, rel=0.01)


# --- the mixture ------------------------------------------------------------------------------------------------


def test_the_mixture_by_hand() -> None:
    student, teacher = random_logits(0).float(), random_logits(1).float()
    labels = torch.tensor([0, 1, 2, 3])
    terms = distillation(cross_entropy(ONES), 2.0, 0.7)(student, labels, teacher)
    task = nn.functional.cross_entropy(student, labels)
    assert terms["task_loss"].item() == pytest.approx(task.item(), rel=1e-6)
    assert terms["kd_loss"].item() == pytest.approx(kd_loss(student, teacher, 2.0).item(), rel=1e-6)
    mixed = 0.3 * terms["task_loss"].item() + 0.7 * terms["kd_loss"].item()
    assert terms["loss"].item() == pytest.approx(mixed, rel=1e-6)


def loss_and_gradient(alpha: float | None, labels: list[int]) -> tuple[float, Tensor]:
    """With ``alpha`` None, the plain loss a control is trained with."""
    weights = torch.tensor([0.5, 2.0, 1.0, 1.0, 1.0, 3.0, 1.0])
    task_loss = cross_entropy(weights, 0.1)
    loss = task_loss if alpha is None else distillation(task_loss, 2.0, alpha)
    logits = random_logits(3).float().requires_grad_()
    value = loss(logits, torch.tensor(labels), random_logits(4).float())["loss"]
    value.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    return value.item(), logits.grad


def test_alpha_0_is_the_control_to_the_bit() -> None:
    value, slope = loss_and_gradient(0.0, [0, 1, 5, 3])
    control_value, control_slope = loss_and_gradient(None, [0, 1, 5, 3])
    assert value == control_value and torch.equal(slope, control_slope)


def test_alpha_1_ignores_labels_and_others_do_not() -> None:
    one, other = loss_and_gradient(1.0, [0, 1, 5, 3]), loss_and_gradient(1.0, [6, 6, 2, 2])
    assert one[0] == other[0] and torch.equal(one[1], other[1])
    assert loss_and_gradient(0.9, [0, 1, 5, 3])[0] != loss_and_gradient(0.9, [6, 6, 2, 2])[0]


def test_the_teacher_learns_nothing_and_stays_in_evaluation_mode() -> None:
    teacher = Affine().train()
    loss, ask = distillation(cross_entropy(ONES), 2.0, 0.7), in_the_loop(teacher)
    before = copy.deepcopy(teacher.state_dict())
    student = Affine().train()
    images = torch.rand(4, 3, 2, 2) * 9  # would move running statistics if the teacher were in training mode
    batch = Batch(images, torch.tensor([0, 1, 2, 3]), np.arange(4), epoch=0)
    loss(student(images), batch.labels, ask(batch))["loss"].backward()  # type: ignore[no-untyped-call]
    assert not any(module.training for module in teacher.modules())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is not None for p in student.parameters())


def test_the_teacher_sees_the_students_images() -> None:
    teacher, images = Affine(), torch.rand(4, 3, 2, 2)
    batch = Batch(images, torch.zeros(4, dtype=torch.long), np.arange(4), epoch=0)
    assert torch.equal(in_the_loop(teacher)(batch), teacher.eval()(images))


def test_without_a_teacher_distillation_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a teacher"):
        distillation(cross_entropy(ONES), 2.0, 0.7)(random_logits(0), torch.zeros(4, dtype=torch.long), None)


# --- class weights ----------------------------------------------------------------------------------------------

LABELS = np.array([0] * 16 + [1] * 4 + [2])  # 16 : 4 : 1 of 21


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", [1, 1, 1, 0]),
        ("sqrt", [21 / 7 / 4, 21 / 7 / 2, 21 / 7, 0]),  # ∝ 1/4, 1/2, 1; images sum to 4 + 2 + 1 = 7
        ("balanced", [21 / 3 / 16, 21 / 3 / 4, 21 / 3, 0]),  # ∝ 1/16, 1/4, 1; each class sums to 1
    ],
)
def test_class_weights_by_hand(kind: str, expected: list[float]) -> None:
    weights = class_weights(LABELS, 4, kind)
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)
    assert weights[LABELS].mean().item() == pytest.approx(1, rel=1e-6)


def test_weighted_cross_entropy_divides_by_the_batch_size() -> None:
    weights, logits = torch.tensor([1.0, 5.0]), torch.zeros(2, 2)
    value = cross_entropy(weights)(logits, torch.tensor([0, 1]), None)["loss"].item()
    assert value == pytest.approx((1 + 5) * math.log(2) / 2, rel=1e-6)  # not / (1 + 5)
    rare = cross_entropy(weights)(logits, torch.tensor([1, 1]), None)["loss"].item()
    assert rare == pytest.approx(5 * math.log(2), rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0]])  # probabilities 3/4 and 1/4; smoothed target 0.9 and 0.1
    value = cross_entropy(torch.ones(2), 0.2)(logits, torch.tensor([0]), None)["loss"].item()
    assert value == pytest.approx(-0.9 * math.log(0.75) - 0.1 * math.log(0.25), rel=1e-6)


def test_the_focal_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0] + [-1e9] * 5])  # probabilities ¾ and ¼
    weights = torch.tensor([2.0, 1.0] + [1.0] * 5)
    first = cross_entropy(weights, focal_gamma=2.0)(logits, torch.tensor([0]), None)["loss"].item()
    assert first == pytest.approx(2 * 0.25**2 * -math.log(0.75), rel=1e-5)
    second = cross_entropy(weights, focal_gamma=2.0)(logits, torch.tensor([1]), None)["loss"].item()
    assert second == pytest.approx(0.75**2 * -math.log(0.25), rel=1e-5)


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.1]), st.sampled_from([0.0, 1.5]))
def test_shares_of_classes_average_the_losses_of_each(seed: int, smoothing: float, gamma: float) -> None:
    logits, weights = random_logits(seed), torch.rand(7, generator=torch.Generator().manual_seed(seed)) + 0.1
    one, other = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 4, 2, 6])
    loss = cross_entropy(weights, smoothing, gamma)
    single = [loss(logits, labels, None)["loss"].item() for labels in (one, other)]
    shares = 0.3 * nn.functional.one_hot(one, 7) + 0.7 * nn.functional.one_hot(other, 7)
    mixed = loss(logits, shares, None)["loss"].item()
    assert mixed == pytest.approx(0.3 * single[0] + 0.7 * single[1], rel=1e-6)


def test_the_effective_number_of_a_class_by_hand() -> None:
    labels = np.repeat([0, 1], [1, 5000])
    weights = class_weights(labels, 3, "effective").double()
    ratio = (1 - 0.999**5000) / (1 - 0.999)  # effective number of the second class; of the first it is 1
    assert (weights[0] / weights[1]).item() == pytest.approx(ratio, rel=1e-4) and weights[2] == 0
    assert (weights[torch.from_numpy(labels)]).mean().item() == pytest.approx(1, rel=1e-5)

"""The task of two classes, melanoma or not, taught to a model of seven."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import REPOSITORY, change_params
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dermdistill import params
from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.errors import UserError
from dermdistill.params import Train
from dermdistill.training import losses
from stages import train_teacher

WEIGHTS = Path("models/teachers/teacher_small/model.safetensors")


def random_logits(seed: int, n: int) -> Tensor:
    return torch.randn(n, len(CLASSES), generator=torch.Generator().manual_seed(seed)) * 3


def settings(**changes: object) -> Train:
    return params.load(REPOSITORY / "params.yaml").train.model_copy(update={"task": "melanoma", **changes})


@given(st.integers(0, 2**32 - 1))
def test_the_binary_loss_is_that_of_the_softmax_entry(seed: int) -> None:
    logits, labels = random_logits(seed, 6), torch.tensor([0, 1, 2, 1, 6, 5])
    p = logits.softmax(1)[:, MELANOMA]
    truth = (labels == MELANOMA).float()
    by_hand = -(truth * p.log() + (1 - truth) * torch.log1p(-p)).mean()
    loss = losses.task_loss(np.array([0, 1]), settings(class_weights="none"))
    assert loss(logits, labels, None)["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    shares = torch.nn.functional.one_hot(labels, len(CLASSES)).float()
    assert loss(logits, shares, None)["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_binary_focal_loss_by_hand() -> None:
    """− α_t (1 − p_t)^γ log p_t, of Lin et al. (2017), section 3: at p = ¾ for a melanoma and for another image."""
    logits = torch.zeros(2, len(CLASSES))
    logits[:, MELANOMA] = math.log(3 * (len(CLASSES) - 1))  # odds of 3 to 1 against six of weight 1
    loss = losses.task_loss(np.array([0, 1]), settings(focal_gamma=2.0, focal_alpha=0.75))
    terms = [loss(logits[i : i + 1], torch.tensor([label]), None)["loss"].item() for i, label in ((0, 1), (1, 3))]
    assert terms == pytest.approx([0.75 * 0.25**2 * -math.log(0.75), 0.25 * 0.75**2 * -math.log(0.25)], rel=1e-5)


def test_binary_weights_are_counted_from_melanoma_and_the_rest() -> None:
    labels = np.array([1, 0, 2, 3, 4, 5, 6, 0, 0])  # 1 in 9
    loss = losses.task_loss(labels, settings(class_weights="balanced"))
    logits = torch.zeros(1, len(CLASSES))
    logits[:, MELANOMA] = math.log(len(CLASSES) - 1)  # even odds
    terms = [loss(logits, torch.tensor([label]), None)["loss"].item() for label in (1, 4)]
    assert terms == pytest.approx([4.5 * math.log(2), 9 / 16 * math.log(2)], rel=1e-5)


def test_only_the_melanoma_logit_pulls_against_the_others() -> None:
    logits = random_logits(1, 4).requires_grad_()
    losses.task_loss(np.array([0, 1]), settings())(logits, torch.tensor([0, 1, 4, 1]), None)["loss"].backward()
    others = [i for i in range(len(CLASSES)) if i != MELANOMA]
    shares = logits[:, others].softmax(1)
    assert torch.allclose(logits.grad[:, others], -logits.grad[:, [MELANOMA]] * shares, atol=1e-6)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_task_reaches_the_weights_and_alpha_needs_it(project: Path) -> None:
    train_teacher.main("small")
    before = WEIGHTS.read_bytes()
    change_params(project, {"train.task": "melanoma", "train.focal_gamma": 2.0, "train.focal_alpha": 0.75})
    train_teacher.main("small")
    assert WEIGHTS.read_bytes() != before
    change_params(project, {"train.task": "diagnosis"})
    with pytest.raises(UserError, match=r"focal_alpha weighs melanoma against the rest; set it to null or task to mel"):
        train_teacher.main("small")

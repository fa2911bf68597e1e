"""How weights move: which learn at what rate, how the rate changes, their moving average, when to stop."""

import math
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from timm.models import group_parameters
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import nn

from dermdistill.errors import UserError
from dermdistill.params import Train
from dermdistill.training.models import OURS, Classifier


def parameter_groups(model: Classifier, settings: Train) -> list[dict[str, Any]]:
    """Which weights decay, and with ``layer_decay`` < 1 at what share of the rate each layer learns.

    Decay leaves biases and normalisation alone, and what timm excepts: class token, position embedding or bias.
    With ``layer_decay`` d, the k-th layer below the head learns at dᵏ of its rate (discriminative rates). Of a vision
    transformer a block is a layer; class token, position and patch embedding are the lowest.
    """
    excepted: set[str] = getattr(model.network, "no_weight_decay", set)()
    if settings.layer_decay < 1:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model.network, settings.weight_decay, excepted, layer_decay=settings.layer_decay
        )
        return groups
    decaying: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        kept = any(fnmatch(name.removeprefix(OURS), pattern) for pattern in excepted)  # timm gives names and patterns
        (exempt if kept or parameter.ndim <= 1 else decaying).append(parameter)
    return [{"params": decaying, "weight_decay": settings.weight_decay}, {"params": exempt, "weight_decay": 0.0}]


def lr_factor(epoch: float, warmup: float, epochs: float) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine down to 0. ``epoch`` may be fractional."""
    if epoch < warmup:
        return min(1.0, (epoch + 1e-3) / warmup)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))


def freeze(model: Classifier, stages: int) -> None:
    """Leave the stem and the first ``stages`` stages as they are; without gradients they cost no backward pass.

    The stages of a vision transformer are its blocks, its stem the embeddings.

    Raises:
        UserError: the network has fewer stages.
    """
    if not stages:
        return
    matcher = model.network.group_matcher(coarse=True)  # type: ignore[operator]
    order = group_parameters(model.network, matcher, reverse=True)  # name → 0 for the stem, 1 for the first stage, …
    if stages >= max(order.values()):  # the head's
        raise UserError(f"train.frozen_stages is {stages}, but there are only {max(order.values()) - 1}; lower it")
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(order[name] > stages)


def train_mode(model: nn.Module, freeze_batch_norm: bool) -> None:
    """Training mode, but for the batch norm that keeps its statistics: all of it, or that of frozen stages.

    ReLU6, SiLU and the like leave their input as it is: in place they would copy it first, as their gradients need it.
    """
    model.train()
    for module in model.modules():
        if getattr(module, "inplace", False) and not isinstance(module, nn.ReLU | nn.Dropout):
            module.inplace = False  # type: ignore[assignment]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            frozen = any(not parameter.requires_grad for parameter in module.parameters())
            module.train(not (freeze_batch_norm or frozen))


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay · average + (1 − decay) · model, for weights and batch-norm statistics alike.

    The decay begins small (Tarvainen & Valpola (2017), arXiv:1703.01780, keep it smaller in the ramp-up
    too), so that the starting weights are soon forgotten. 0 makes the average the model itself.
    """
    theirs = model.state_dict()
    for name, mine in average.state_dict().items():
        if mine.is_floating_point():
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])


def should_stop_early(scores: list[float], patience: int) -> bool:
    """Whether the best score is ``patience`` epochs old; never if that is 0."""
    return bool(patience and scores) and len(scores) - 1 - int(np.argmax(scores)) >= patience

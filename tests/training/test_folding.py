"""Frozen batch norm within the convolution: the same outputs and gradients, in fewer calls."""

from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dermdistill import params
from dermdistill.params import Devices
from dermdistill.training import depthwise, folding


class Calls(TorchFunctionMode):
    """Counts what is left of batch norm beneath a context inside this one."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[Any] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[func] += 1
        return func(*args, **(kwargs or {}))


def frozen(network: nn.Module) -> nn.Module:
    """In training mode but for batch norm, whose statistics are no longer those of an untrained network."""
    torch.manual_seed(0)
    for module in network.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return network.to(memory_format=torch.channels_last)


def step(network: nn.Module, images: Tensor, context: Any) -> tuple[list[Tensor], int]:
    """The output and all gradients of one step, and how often batch norm was called."""
    network.zero_grad()
    images = images.clone().requires_grad_()
    with Calls() as calls, context:
        output = network(images)
    output.square().mean().backward()
    parts = [output, images.grad, *(p.grad for p in network.parameters() if p.grad is not None)]
    return [part for part in parts if part is not None], calls.count[F.batch_norm]


@pytest.mark.parametrize("arch", ["tf_efficientnet_lite0", "resnet18", "mobilenetv3_small_050"])
def test_outputs_and_gradients_are_those_of_two_layers(arch: str) -> None:
    network = frozen(timm.create_model(arch, num_classes=7, drop_rate=0.0)).double()
    images = torch.rand(2, 3, 40, 56, dtype=torch.float64)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    (plain, calls), fold = step(network, images, nullcontext()), folding.Fold()
    assert calls == norms > 0
    for passes, expected in enumerate((norms, 0, 0)):
        found, calls = step(network, images, fold)
        assert calls == expected and len(found) == len(plain), passes  # the first pass watches
        for a, b in zip(plain, found, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10)


def test_frozen_stages_alone_are_folded() -> None:
    network = frozen(timm.create_model("resnet18", num_classes=7))
    assert isinstance(network.layer4, nn.Module)
    learning = [module.train() for module in network.layer4.modules() if isinstance(module, nn.BatchNorm2d)]
    images, fold = torch.rand(2, 3, 40, 56), folding.Fold()
    step(network, images, fold)
    assert step(network, images, fold)[1] == len(learning) == 5


class Shared(nn.Module):
    """A convolution whose output, before batch norm, is used once more."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv, self.norm, self.way = nn.Conv2d(3, 3, 3, padding=1, bias=way == "bias"), nn.BatchNorm2d(3), way

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.conv(images)
        if self.way == "shortcut":
            return output + self.norm(output)
        if self.way == "list":
            return torch.cat([self.norm(output), output])
        if self.way == "twice":
            return self.norm(self.conv(self.norm(output)))
        return self.norm(output) * output.shape[1]


@pytest.mark.parametrize(("way", "left"), [("bias", 0), ("alone", 0), ("shortcut", 1), ("list", 1), ("twice", 2)])
def test_what_is_used_elsewhere_too_is_left_as_it_is(way: str, left: int) -> None:
    network, images, fold = frozen(Shared(way)), torch.rand(2, 3, 6, 5), folding.Fold()
    plain, _ = step(network, images, nullcontext())
    step(network, images, fold)
    found, calls = step(network, images, fold)
    assert calls == left
    for a, b in zip(plain, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "precision", "folds"),
    [
        ({"freeze_batch_norm": True}, "bf16-mixed", True),
        ({"frozen_stages": 1}, "bf16-mixed", True),
        ({}, "bf16-mixed", False),
        ({"freeze_batch_norm": True}, "32-true", False),  # keeps its bits
    ],
)
def test_where_something_is_frozen_in_bfloat16(changes: dict[str, Any], precision: str, folds: bool) -> None:
    devices = Devices(precision=precision, compile=False)  # type: ignore[arg-type]
    settings = params.load().train.model_copy(update={**changes, "devices": devices})
    assert isinstance(folding.where_it_pays(settings, torch.device("cpu")), folding.Fold) == folds


def test_both_contexts_together() -> None:
    network = frozen(timm.create_model("tf_efficientnet_lite0", num_classes=7, drop_rate=0.0))
    images, fold = torch.rand(2, 3, 40, 56), folding.Fold()
    exact, _ = step(network, images, nullcontext())
    for _ in range(2):
        with depthwise.FastDepthwise(), torch.autocast("cpu", torch.bfloat16):
            found, calls = step(network, images, fold)
    assert calls == 0
    assert (exact[0] - found[0].float()).norm() / exact[0].norm() < 0.05

"""Gradients of depthwise convolutions against those of PyTorch in float32."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from dermdistill.params import Devices
from dermdistill.training import depthwise

CPU = torch.device("cpu")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize(
    ("size", "padded"), [((9, 13), True), ((8, 14), True), ((5, 1), True), ((9, 13), False), ((8, 14), False)]
)
def test_gradients_are_those_of_pytorch(stride: int, kernel: int, size: tuple[int, int], padded: bool) -> None:
    """In float32, where both compute the same sums in another order."""
    padding = (kernel // 2, kernel // 2) if padded else (0, 0)
    torch.manual_seed(0)
    images = torch.randn(3, 4, *size).to(memory_format=torch.channels_last)
    operands = images, torch.randn(4, 1, kernel, kernel), torch.randn(4)
    output = F.conv2d(*operands, stride, padding, 1, 4)
    gradient = torch.randn_like(output)
    for given in ([True, True, True], [False, True, False], [True, False, False], [False, True, True]):
        wanted, found = ([t.clone().requires_grad_(g) for t, g in zip(operands, given, strict=True)] for _ in range(2))
        F.conv2d(*wanted, stride, padding, 1, 4).backward(gradient)
        ours = depthwise.DepthwiseConv.apply(*found, stride, padding)
        assert torch.equal(ours, output)
        ours.backward(gradient)
        for theirs, mine in zip(wanted, found, strict=True):
            if theirs.requires_grad:
                assert mine.grad is not None
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
            else:
                assert mine.grad is None


def gradients(layer: nn.Module, images: Tensor, fast: bool) -> list[Tensor]:
    images, layer = images.clone().requires_grad_(), layer.requires_grad_()
    layer.zero_grad()
    with depthwise.FastDepthwise() if fast else nullcontext():
        output = layer(images)
    assert output.dtype == (torch.bfloat16 if fast else torch.float32)
    output.float().square().sum().backward()
    return [output, *(tensor.grad for tensor in (images, *layer.parameters()) if tensor.grad is not None)]


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(15, 20), (16, 19)])
def test_in_bfloat16_they_are_those_of_float32_but_for_its_rounding(
    kind: type[nn.Conv2d], kernel: int, size: tuple[int, int]
) -> None:
    """Also with the padding of TensorFlow, which depends on the size and may be one-sided."""
    torch.manual_seed(0)
    layer = kind(32, 32, kernel, stride=2, groups=32, padding=0 if kind is Conv2dSame else kernel // 2)
    images = torch.randn(4, 32, *size).to(memory_format=torch.channels_last)
    exact, rounded = gradients(layer, images, False), gradients(layer, images, True)
    assert len(exact) == len(rounded) == 4  # output, images, weights, bias
    for a, b in zip(exact, rounded, strict=True):
        assert b.shape == a.shape and 0 < (a - b.float()).norm() / a.norm() < 0.01


def test_all_other_convolutions_are_left_alone() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 4, 8, 8)
    for layer in (
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, stride=(1, 2)),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
    ):
        with depthwise.FastDepthwise():
            output = layer(images)
        assert torch.equal(output, layer(images)) and output.dtype == torch.float32


@pytest.mark.parametrize(
    ("precision", "device", "compiled", "pays"),
    [
        ("bf16-mixed", "cpu", False, True),
        ("32-true", "cpu", False, False),  # committed trainings keep their bits
        ("bf16-mixed", "cuda", False, False),
        ("bf16-mixed", "cpu", True, False),
    ],
)
def test_it_is_for_bfloat16_on_a_cpu(precision: str, device: str, compiled: bool, pays: bool) -> None:
    context = depthwise.where_it_pays(Devices(precision=precision, compile=compiled), torch.device(device))  # type: ignore[arg-type]
    assert isinstance(context, depthwise.FastDepthwise) == pays

"""Depthwise convolutions whose gradients are fast in bfloat16 on a CPU.

oneDNN, as in PyTorch 2.14, computes two of them by kernels for dense convolutions, which multiply sixteen channels with
each other: the gradient of the input where the stride is not 1, and that of weights more than 3 wide, ten to thirty
times slower than the rest. Both can be expressed by what has a kernel of its own:

- the gradient of the input is the one for stride 1 of the output's gradient with zeros in between;
- the gradient of wide weights consists of those of strips 3 wide, for the input moved aside.

What this gains: ``docs/performance.md``. A context manager and not a change of the model, so what is saved and exported
knows nothing of it. Deliberately absent: float32, where only the second would gain, and other bits would follow; GPUs.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dermdistill.params import Devices

WIDEST = 3  # columns of the weights whose gradient has a kernel of its own

Pair = tuple[int, int]


def pays(settings: Devices, device: torch.device) -> bool:
    """Whether a training computes in bfloat16 on a CPU, by kernels that PyTorch chooses and does not compile."""
    return settings.precision == "bf16-mixed" and device.type == "cpu" and not settings.compile


def where_it_pays(settings: Devices, device: torch.device) -> AbstractContextManager[Any]:
    """The context for the forward pass of a network in training; the gradients follow from it."""
    return FastDepthwise() if pays(settings, device) else nullcontext()


class FastDepthwise(TorchFunctionMode):
    """Within it ``conv2d``, where it is depthwise, computes in bfloat16 and with the gradients of this module."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d and len(args) == 7 and _is_ours(*args):
            images, weight, bias, stride, padding, _, _ = args
            low = [None if tensor is None else tensor.bfloat16() for tensor in (images, weight, bias)]
            return DepthwiseConv.apply(*low, stride[0], tuple(padding))
        return func(*args, **(kwargs or {}))


def _is_ours(images: Tensor, weight: Tensor, _: Any, stride: Pair, padding: Any, dilation: Pair, groups: int) -> bool:
    depthwise = groups == images.shape[1] == len(weight) > 1
    return depthwise and stride[0] == stride[1] and tuple(dilation) == (1, 1) and not isinstance(padding, str)


class DepthwiseConv(torch.autograd.Function):
    """``conv2d`` of images (n, C, H, W), weights (C, 1, h, w) and a bias (C,) or None, in C groups."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Pair) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(images, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wants_images, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        operands = gradients[0].contiguous(memory_format=torch.channels_last), images, weight, ctx.stride, ctx.padding
        for_images = images_gradient(*operands) if wants_images else None
        for_weight, for_bias = weight_gradient(*operands, wants_bias) if wants_weight else (None, None)
        return for_images, for_weight, for_bias, None, None


def images_gradient(gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: Pair) -> Tensor:
    """Of ``images``, (n, C, H, W), from the ``gradient`` (n, C, H', W') of the output."""
    if stride > 1:
        count, channels, *size = images.shape
        dense = [n + 2 * p - k + 1 for n, p, k in zip(size, padding, weight.shape[2:], strict=True)]
        spread = gradient.new_zeros(count, *dense, channels).permute(0, 3, 1, 2)  # channels last in memory
        spread[:, :, ::stride, ::stride] = gradient
        gradient = spread
    return _backward(gradient, images, weight, 1, padding, (True, False, False))[0]


def weight_gradient(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: Pair, bias: bool
) -> tuple[Tensor, Tensor | None]:
    """Of ``weight``, (C, 1, h, w), and if there is one of the bias, (C,), from the ``gradient`` of the output."""
    if weight.shape[3] <= WIDEST:
        return _backward(gradient, images, weight, stride, padding, (False, True, bias))[1:]
    last, found = (gradient.shape[3] - 1) * stride, []
    for first in range(0, weight.shape[3], WIDEST):
        strip = weight[..., first : first + WIDEST]
        left, met = max(padding[1] - first, 0), images[..., max(first - padding[1], 0) :]
        met = F.pad(met, (left, last + strip.shape[3] - left - met.shape[3], 0, 0))  # the columns this strip meets
        wanted = (False, True, bias and first == 0)
        found.append(_backward(gradient, met, strip, stride, (padding[0], 0), wanted)[1:])
    return torch.cat([strip for strip, _ in found], 3), found[0][1]


def _backward(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: int, padding: Pair, wanted: tuple[bool, bool, bool]
) -> Any:
    """Gradients of (images, weight, bias), those that are wanted."""
    channels = len(weight)
    sizes = [channels] if wanted[2] else None
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, sizes, [stride, stride], padding, [1, 1], False, [0, 0], channels, wanted
    )

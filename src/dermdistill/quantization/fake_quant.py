"""INT8's rounding in float arithmetic: batch norm folded, weights and activations of convolutions on their grids.

Weights are rounded per channel on the grid of the static schemes (``quantization/int8``), activations per tensor to 8
bits where the exported graph has its pairs of QuantizeLinear and DequantizeLinear: in front of each convolution, and
behind it unless a ReLU follows. Left in float, unlike there: what only other operations read, such as the factors of
squeeze-and-excitation. Gradients pass straight through (Jacob et al., 2018, arXiv:1712.05877, section 3).

PyTorch's two operators of fake quantization do the arithmetic; where they stand is decided here, because
``torch.ao.quantization`` is deprecated, and torchao's graph mode is another dependency and trained 0.9 images a second
on two CPU cores.
"""

import contextlib
import copy
import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dermdistill.errors import UserError
from dermdistill.training.models import Classifier

LARGEST = 64  # whole weights lie within ± 64, as ONNX Runtime rounds them with reduce_range
MOMENTUM = 0.01  # share of the newest batch in the range of an activation
FOLDED = 1e-3  # of the largest logit: what folding may change; observed is 1e-6


def fold(model: Classifier, sample: Tensor) -> Classifier:
    """A copy in which each batch norm that follows a convolution is part of it; ``sample`` (n, 3, H, W) in [0, 1].

    Raises:
        UserError: the copy does not compute what the model does.
    """
    folded = copy.deepcopy(model).eval()
    names: dict[Any, str] = {module: name for name, module in folded.named_modules()}
    for norm, convolution in _followers(folded, sample, _BatchNorm):
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        convolution.weight, convolution.bias = fuse_conv_bn_weights(convolution.weight, convolution.bias, *statistics)
        rest = [part for part in norm.children() if not isinstance(part, nn.Identity)]  # timm's carries its activation
        folded.set_submodule(names[norm], nn.Sequential(*rest).eval())
    with torch.no_grad():
        before, after = model(sample), folded(sample)
    if not (after - before).abs().max() <= FOLDED * before.abs().max():
        raise UserError(
            "batch norm of this student cannot be folded into convolutions; take qat_N out of quantize.candidates"
        )
    return folded


@contextlib.contextmanager
def fake_quantized(model: nn.Module, sample: Tensor) -> Iterator[None]:
    """Within: weights and activations of convolutions are fake-quantized. After: the weights stay rounded.

    Biases are first corrected for rounding the weights, on ``sample`` (n, 3, H, W): where the static schemes end,
    training begins.
    """
    _correct_biases(model, sample)
    clipped = {convolution for _, convolution in _followers(model, sample, (nn.ReLU, nn.ReLU6))}
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    hooks = []
    for convolution in convolutions:
        parametrize.register_parametrization(convolution, "weight", FakeQuantWeight())
        hooks.append(convolution.register_forward_pre_hook(functools.partial(_before, FakeQuantActivation(sample))))
        if convolution not in clipped:
            hooks.append(convolution.register_forward_hook(functools.partial(_after, FakeQuantActivation(sample))))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for convolution in convolutions:
            parametrize.remove_parametrizations(convolution, "weight")


class FakeQuantWeight(nn.Module):
    """A convolution's weight on the grid of static quantization: per channel, symmetric, 7 of 8 bits."""

    def forward(self, weight: Tensor) -> Tensor:
        scale = weight.detach().abs().amax((1, 2, 3)).div(LARGEST).clamp_min(torch.finfo(weight.dtype).tiny)
        return torch.fake_quantize_per_channel_affine(
            weight, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -LARGEST, LARGEST
        )


class FakeQuantActivation:
    """An activation in 256 steps between moving averages of its extremes; the gradient passes where it is not cut."""

    def __init__(self, like: Tensor) -> None:
        """``like``: any tensor of the device."""
        self.low, self.high = (torch.full((), value, device=like.device) for value in (math.inf, -math.inf))
        self.scale, self.zero = torch.ones(1, device=like.device), torch.zeros(1, dtype=torch.int32, device=like.device)
        self.on = torch.ones(1, dtype=torch.long, device=like.device)

    def __call__(self, values: Tensor) -> Tensor:
        state = self.low, self.high, self.scale, self.zero
        return torch.fused_moving_avg_obs_fake_quant(values, self.on, self.on, *state, MOMENTUM, 0, 255, 0)


@torch.no_grad()
def _correct_biases(model: nn.Module, sample: Tensor) -> None:
    """Give each output channel back the mean that rounding takes (Nagel et al., 2019, arXiv:1906.04721, 4.2)."""
    lost: dict[nn.Conv2d, Tensor] = {}

    def compare(convolution: nn.Conv2d, inputs: tuple[Tensor], output: Tensor) -> None:
        exact = convolution.weight.data
        convolution.weight.data = FakeQuantWeight()(exact)
        lost[convolution] = (output - convolution.forward(inputs[0])).mean((0, 2, 3))
        convolution.weight.data = exact

    hooks = [
        m.register_forward_hook(compare) for m in model.modules() if isinstance(m, nn.Conv2d) and m.bias is not None
    ]
    model(sample)
    for hook in hooks:
        hook.remove()
    for convolution, mean in lost.items():
        convolution.bias += mean  # type: ignore[operator]


def _before(rounding: FakeQuantActivation, _: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (rounding(inputs[0]),)


def _after(rounding: FakeQuantActivation, _: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor:
    return rounding(output)


def _followers(model: nn.Module, sample: Tensor, kind: type | tuple[type, ...]) -> list[tuple[Any, nn.Conv2d]]:
    """Each module of a ``kind`` that is given the very tensor a convolution returned, with that convolution.

    Found by running, because a network's modules do not say in which order they are called.
    """
    made: list[tuple[Tensor, nn.Conv2d]] = []
    pairs: list[tuple[Any, nn.Conv2d]] = []

    def returned(module: nn.Conv2d, _: tuple[Tensor], output: Tensor) -> None:
        made.append((output, module))

    def received(module: nn.Module, inputs: tuple[Tensor]) -> None:
        pairs.extend((module, convolution) for output, convolution in made if output is inputs[0])

    convolutions = [
        module.register_forward_hook(returned) for module in model.modules() if isinstance(module, nn.Conv2d)
    ]
    others = [module.register_forward_pre_hook(received) for module in model.modules() if isinstance(module, kind)]
    with torch.no_grad():
        model(sample)
    for hook in convolutions + others:
        hook.remove()
    return pairs

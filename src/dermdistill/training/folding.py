"""Frozen batch norm as part of the convolution in front of it, without a pass over the activations of its own.

A batch norm that keeps its statistics multiplies each channel and adds to it, as a convolution does: in each step its
factor goes into the weights and its summand into the bias, by operations that gradients flow through to all of them.
The first forward pass under a :class:`Fold` only watches which convolutions feed such a batch norm and nothing else.
What this gains: ``docs/performance.md``. A context manager, as in ``depthwise``, and as there for bfloat16 on a CPU: in
float32 the gain is not sure. Deliberately absent: batch norm that learns its statistics, which needs its own input.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from dermdistill.params import Train
from dermdistill.training import depthwise

Norm = tuple[Tensor, Tensor, Tensor, Tensor, float]  # running mean, running variance, weight, bias, ε


def where_it_pays(settings: Train, device: torch.device) -> AbstractContextManager[Any]:
    """The context for the forward passes of an epoch."""
    frozen = settings.freeze_batch_norm or settings.frozen_stages
    return Fold() if frozen and depthwise.pays(settings.devices, device) else nullcontext()


class Fold(TorchFunctionMode):
    """For forward passes of one network, in which the same batch norms are frozen each time."""

    def __init__(self) -> None:
        super().__init__()
        self._watches = True
        self._uses: Counter[int] = Counter()  # of each tensor, parameter and buffer, by its id
        self._made: dict[int, tuple[Tensor, Tensor]] = {}  # output of a convolution, by its id, and the weights used
        self._fed: list[tuple[int, Norm]] = []  # id of the input of a frozen batch norm
        self._norms: dict[int, Norm] = {}  # what is folded into which weights, by their id
        self._folded: set[int] = set()  # ids of the running means of those

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.conv2d and len(args) == 7 and id(args[1]) in self._norms:
            return folded(args, self._norms[id(args[1])])
        if func is F.batch_norm and id(args[1]) in self._folded:
            return args[0]
        result = func(*args, **(kwargs or {}))
        if self._watches and _tensors(result):  # a question for the shape is no use
            self._watch(func, args, kwargs, result)
        return result

    def _watch(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, result: Any) -> None:
        self._uses.update(id(tensor) for tensor in _tensors((args, kwargs)))
        if func is F.conv2d and len(args) == 7:
            self._made[id(result)] = result, args[1]  # kept, so that its id stays its own …
            self._uses[id(result)] = 0  # … which may have been that of a tensor now gone
        elif func is F.batch_norm and not kwargs["training"] and kwargs["weight"] is not None:
            self._fed.append((id(args[0]), (*args[1:3], kwargs["weight"], kwargs["bias"], kwargs["eps"])))

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for fed, norm in self._fed:
            output, weight = self._made.get(fed, (None, None))
            if output is not None and all(self._uses[id(t)] == 1 for t in (output, weight, norm[0])):
                self._norms[id(weight)] = norm
                self._folded.add(id(norm[0]))
        self._watches, self._made, self._fed = False, {}, []


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def folded(convolution: tuple[Any, ...], norm: Norm) -> Tensor:
    """``conv2d`` of its seven arguments, followed by ``norm``."""
    images, weight, bias, *geometry = convolution
    mean, variance, scale, shift, epsilon = norm
    factor = scale * torch.rsqrt(variance + epsilon)
    summand = shift - factor * (mean if bias is None else mean - bias)
    return F.conv2d(images, weight * factor[:, None, None, None], summand, *geometry)

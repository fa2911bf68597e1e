"""What a layer gives, as feature maps: those of convolutions as they are, the tokens of a transformer in their places.

Methods that look at places (Grad-CAM, attention transfer) thereby need not know the kind of network. Deliberately
absent: networks whose layers give channels last (Swin).
"""

from typing import Any, NamedTuple

from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn

from dermdistill.errors import UserError


class Patches(NamedTuple):
    """How a transformer cuts an image: one token a patch, row by row, behind ``prefix`` tokens that have no place."""

    rows: int
    columns: int
    prefix: int  # class and register tokens


def patches(network: nn.Module) -> Patches | None:
    """Those of a transformer; None of a convolutional network.

    Raises:
        UserError: the layers give channels last.
    """
    parts = list(network.modules())
    embeddings: list[Any] = [part for part in parts if isinstance(part, PatchEmbed)]  # these always say channels last
    if any(getattr(part, "output_fmt", "") == "NHWC" for part in parts if part not in embeddings):
        raise UserError(
            "a network that puts channels last, such as Swin, has no feature maps here, neither for kd.method at and "
            "feature nor for explain; choose a ViT or a convolutional arch"
        )
    prefixes: list[Any] = [part.num_prefix_tokens for part in parts if hasattr(part, "num_prefix_tokens")]
    if not embeddings:
        return None
    rows, columns = embeddings[0].grid_size
    return Patches(rows, columns, prefixes[0] if prefixes else 0)


def feature_map(output: Any, cut: Patches | None) -> Tensor | None:
    """``output`` of a layer as (n, c, h, w) with more than one place; None if it is no such map.

    ``cut`` of a transformer: its tokens (n, t, c) are the map. None: maps are what has four dimensions.
    """
    if not isinstance(output, Tensor):
        return None
    if cut is None:
        return output if output.ndim == 4 and output.shape[2] * output.shape[3] > 1 else None
    count = cut.rows * cut.columns
    if output.ndim != 3 or output.shape[1] not in (count, cut.prefix + count):
        return None
    return output[:, -count:].transpose(1, 2).reshape(len(output), -1, cut.rows, cut.columns)

"""Where in a picture a network found its evidence, and which training pictures it takes for the nearest.

Grad-CAM (Selvaraju et al., arXiv:1610.02391) by captum: the last feature map that still has a place for every part of
the picture, weighted by how much each channel moves the logit of interest. Neighbours are those of the features just
before the last layer, by the angle between them. Both describe the network, not the lesion: a map is as coarse as that
feature map (5 × 7 for 150 × 200 pixels), and a plausible one proves nothing. A vision transformer's map are its tokens,
one a patch.

Deliberately absent: pictures (``reporting`` draws) and explanations of the INT8 file, whose graph has no gradients; the
student it was made from stands in for it.
"""

import re
from typing import Any

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from dermdistill.errors import UserError
from dermdistill.training.augment import to_float
from dermdistill.training.maps import Patches, feature_map, patches
from dermdistill.training.models import Classifier


def grad_cam(model: Classifier, images: np.ndarray, target: int) -> np.ndarray:
    """What speaks for class ``target``: (n, H, W) float32 for (n, H, W, 3) uint8, each map scaled to a maximum of 1.

    A map of zeros means that nothing in the picture speaks for it.

    Raises:
        UserError: the network is a transformer whose layers give no tokens, one a patch.
    """
    batch = to_float(images)
    if cut := patches(model):
        maps = _token_cam(model, batch, target, cut)
    else:
        maps = LayerGradCam(model, last_map(model, batch[:1])).attribute(batch, target=target, relu_attributions=True)
    grown = LayerAttribution.interpolate(maps, tuple(batch.shape[2:]), interpolate_mode="bilinear")
    maps = grown.detach()[:, 0].numpy()
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def last_map(model: nn.Module, image: Tensor) -> nn.Module:
    """The last module of the forward pass whose output, (1, C, h, w), still has more than one place."""
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if feature_map(output, None) is not None:
            seen.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model(image)
    for hook in hooks:
        hook.remove()
    return seen[-1]


def _token_cam(model: nn.Module, batch: Tensor, target: int, cut: Patches) -> Tensor:
    """Grad-CAM (n, 1, h, w) of a transformer: of the last normalised tokens on which the logit depends.

    A class token reads the patches in front of the last attention; what comes out of it at their places moves no logit.
    captum's takes the first dimension for channels, which tokens have in the last.
    """
    outputs: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output: outputs.append(output))
        for name, module in model.named_modules()
        if re.search(r"(^|\.)norm\d*$", name) and not re.search(r"\.(attn|mlp)\.", name)
    ]
    logits = model(batch)
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(logits[:, target].sum(), outputs, allow_unused=True) if outputs else ()
    pairs = [(feature_map(a, cut), feature_map(g, cut)) for a, g in zip(outputs, gradients, strict=True)]
    moving = [(maps, slopes) for maps, slopes in pairs if maps is not None and slopes is not None and slopes.any()]
    if not moving:
        raise UserError("Grad-CAM finds no tokens in this transformer that stand for one patch each; choose a ViT")
    maps, slopes = moving[-1]
    return (maps * slopes.mean((2, 3), keepdim=True)).sum(1, keepdim=True).relu()


def features(model: Classifier, images: np.ndarray, rows: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """What the last layer sees of ``images[rows]``: (n, C) float32."""

    def one(batch: np.ndarray) -> Tensor:
        network: Any = model.network
        maps = network.forward_features(model.resize((to_float(batch) - model.mean) / model.std))
        return network.forward_head(maps, pre_logits=True)

    with torch.inference_mode():
        parts = [one(images[rows[i : i + batch_size]]) for i in range(0, len(rows), batch_size)]
    return torch.cat(parts).numpy()


def neighbours(bank: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each query (m, C) the nearest rows of ``bank`` (n, C): cosine distances (m, k) and indices (m, k)."""
    index = NearestNeighbors(n_neighbors=min(count, len(bank)), metric="cosine").fit(bank)
    distances, rows = index.kneighbors(queries)
    return distances, rows

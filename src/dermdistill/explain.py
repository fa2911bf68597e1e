"""Where in a picture a network found its evidence, and which training pictures it takes for the nearest.

Grad-CAM (Selvaraju et al., arXiv:1610.02391) by captum: the last feature map that still has a place for every part of
the picture, weighted by how much each channel moves the logit of interest. Neighbours are those of the features just
before the last layer, by the angle between them. Both describe the network, not the lesion: a map is as coarse as that
feature map (5 × 7 for 150 × 200 pixels), and a plausible one proves nothing.

Deliberately absent: pictures (``reporting`` draws) and explanations of the INT8 file, whose graph has no gradients; the
student it was made from stands in for it.
"""

from typing import Any

import numpy as np
import torch
from captum.attr import LayerAttribution, LayerGradCam
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from dermdistill.training.augment import to_float
from dermdistill.training.models import Classifier


def grad_cam(model: Classifier, images: np.ndarray, target: int) -> np.ndarray:
    """What speaks for class ``target``: (n, H, W) float32 for (n, H, W, 3) uint8, each map scaled to a maximum of 1.

    A map of zeros means that nothing in the picture speaks for it.
    """
    batch = to_float(images)
    maps = LayerGradCam(model, last_map(model, batch[:1])).attribute(batch, target=target, relu_attributions=True)
    grown = LayerAttribution.interpolate(maps, tuple(batch.shape[2:]), interpolate_mode="bilinear")
    maps = grown.detach()[:, 0].numpy()
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def last_map(model: nn.Module, image: Tensor) -> nn.Module:
    """The last module of the forward pass whose output, (1, C, h, w), still has more than one place."""
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            seen.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    with torch.inference_mode():
        model(image)
    for hook in hooks:
        hook.remove()
    return seen[-1]


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

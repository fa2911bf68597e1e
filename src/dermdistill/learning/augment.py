"""Random views of a batch of dermatoscopic images: geometry, light and colour, one resampling.

Every image draws from its own counter-based generator, keyed by (seed, epoch, image): its view does
not depend on batch, worker or what was drawn before, so a resumed training sees the very same
views, and teacher and student see the same one. A lesion has no up and no mirror side, hence full
rotation and flips. Deliberately absent: anything that could hide the border or invent structure.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dermdistill.classes import CLASSES
from dermdistill.params import Augment

DRAWS = 12
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601


def to_float(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(n, H, W, 3) uint8 → (n, 3, H, W) float32 in [0, 1], channels last in memory."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float().div_(255)


def augment(images: Tensor, rows: np.ndarray, settings: Augment, seed: int, epoch: int) -> Tensor:
    """One random view of each image.

    Args:
        images: (n, 3, H, W) in [0, 1].
        rows: (n,) what identifies each image: its row in the image array.
    """
    draws = torch.from_numpy(np.stack([_draw(seed, epoch, int(row)) for row in rows])).float().to(images.device)
    return _colour(_geometry(images, draws[:, :6], settings), draws[:, 6:], settings)


def _draw(seed: int, epoch: int, row: int) -> np.ndarray:
    """(DRAWS,) uniform in [−1, 1)."""
    key = np.array([(seed << 32) | epoch, row], dtype=np.uint64)  # a list may become float64 and lose the epoch
    return np.random.Generator(np.random.Philox(key=key)).random(DRAWS) * 2 - 1


def _geometry(images: Tensor, draws: Tensor, settings: Augment) -> Tensor:
    height, width = images.shape[-2:]
    angle = torch.deg2rad(draws[:, 0] * settings.rotate)
    zoom = 1 / (1 + draws[:, 1] * settings.scale)
    flip = torch.where(draws[:, 2] < 0, -1.0, 1.0)
    cos, sin, aspect = torch.cos(angle) * zoom, torch.sin(angle) * zoom, width / height
    shift = draws[:, 3:5] * settings.shift * 2  # grid coordinates span 2
    rows = [
        torch.stack([cos * flip, -sin / aspect, shift[:, 0]], 1),
        torch.stack([sin * flip * aspect, cos, shift[:, 1]], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    # Reflection: a black corner would tell the network how far the image was turned.
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _colour(images: Tensor, draws: Tensor, settings: Augment) -> Tensor:
    factors = draws[:, :, None, None, None]
    gain = (1 + factors[:, 0] * settings.brightness) * (1 + draws[:, 3:6, None, None] * settings.color_cast)
    images = images * gain
    grey = (images * LUMA.to(images.device)).sum(1, keepdim=True)
    images = grey + (images - grey) * (1 + factors[:, 1] * settings.saturation)
    mean = grey.mean((2, 3), keepdim=True)
    images = mean + (images - mean) * (1 + factors[:, 2] * settings.contrast)
    return images.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def mixup(images: Tensor, labels: Tensor, alpha: float, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Each image mixed with another of the batch: images of the same shape, labels as (n, classes) shares.

    One share λ ~ Beta(α, α) a batch. Source: Zhang et al. (2018), arXiv:1710.09412.
    """
    generator = np.random.default_rng(key)
    share, partner = float(generator.beta(alpha, alpha)), torch.from_numpy(generator.permutation(len(labels)))
    targets = F.one_hot(labels, len(CLASSES)).float()
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)

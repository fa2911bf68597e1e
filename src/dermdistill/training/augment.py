"""Random views of a batch of dermatoscopic images: geometry, light, colour, hairs, optics, a patch left out, JPEG.

Every image draws from its own counter-based generator, keyed by (seed, epoch, image): its view does
not depend on batch, worker or what was drawn before, so a resumed training sees the very same
views, and teacher and student see the same one. A lesion has no up and no mirror side, hence full
rotation and flips. Deliberately absent: elastic distortion, which would invent borders.
"""

import functools
import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.params import Augment

FIXED = 12  # draws of geometry and colour; what follows them cannot change them
PER_HAIR = 5
LAST = 8  # draws after those of hairs: stretch, gamma, vignette (5), JPEG
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)  # ITU-R BT.601


def to_float(images: np.ndarray, device: torch.device | str = "cpu", size: list[int] | None = None) -> Tensor:
    """(n, H, W, 3) uint8 → (n, 3, H, W) float32 in [0, 1], channels last in memory.

    ``size`` [height, width]: scaled to it first, antialiased as inside the network (``Classifier.resize``) but rounded
    to bytes: views of small images take a fraction of the time.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    if size is not None and list(pixels.shape[2:]) != size:
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    return pixels.to(device).float().div_(255)


def augment(images: Tensor, rows: np.ndarray, settings: Augment, seed: int, epoch: int) -> Tensor:
    """One random view of each image.

    Args:
        images: (n, 3, H, W) in [0, 1].
        rows: (n,) what identifies each image: its row in the image array.
    """
    count = FIXED + 5 + PER_HAIR * settings.hair + LAST
    draws = torch.from_numpy(np.stack([_draw(seed, epoch, int(row), count) for row in rows])).float().to(images.device)
    last = draws[:, -LAST:]
    images = _colour(_geometry(images, draws[:, :6], last[:, 0], settings), draws[:, 6:FIXED], settings)
    if settings.gamma:
        images = images.pow((1 + settings.gamma) ** last[:, 1, None, None, None])
    if settings.hair:
        images = _hair(images, draws[:, FIXED + 5 : -LAST].reshape(len(rows), settings.hair, PER_HAIR))
    if settings.blur:  # after the hairs, which the lens blurs too
        images = _blur(images, draws[:, FIXED], settings.blur)
    if settings.vignette:
        images = _vignette(images, last[:, 2:7], settings.vignette)
    if settings.jpeg:
        images = _jpeg(images, last[:, 7], settings.jpeg)
    if settings.erase:
        images = _erase(images, draws[:, FIXED + 1 : FIXED + 5], settings.erase)
    return images.contiguous(memory_format=torch.channels_last)


def _draw(seed: int, epoch: int, row: int, count: int) -> np.ndarray:
    """(count,) uniform in [−1, 1)."""
    key = np.array([(seed << 32) | epoch, row], dtype=np.uint64)  # a list may become float64 and lose the epoch
    return np.random.Generator(np.random.Philox(key=key)).random(count) * 2 - 1


def _geometry(images: Tensor, draws: Tensor, stretch: Tensor, settings: Augment) -> Tensor:
    height, width = images.shape[-2:]
    angle = torch.deg2rad(draws[:, 0] * settings.rotate)
    zoom = 1 / (1 + draws[:, 1] * settings.scale)
    flip = torch.where(draws[:, 2] < 0, -1.0, 1.0)
    cos, sin, aspect = torch.cos(angle) * zoom, torch.sin(angle) * zoom, width / height
    shift = draws[:, 3:5] * settings.shift * 2  # grid coordinates span 2
    wide = (1 + settings.stretch) ** (stretch / 2)  # across; as much down, so that areas stay
    rows = [
        torch.stack([cos * flip * wide, -sin / aspect / wide, shift[:, 0]], 1),
        torch.stack([sin * flip * aspect * wide, cos / wide, shift[:, 1]], 1),
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
    return images.clamp_(0, 1)


def _hair(images: Tensor, draws: Tensor) -> Tensor:
    """Dark, slightly bent lines from edge to edge, one to three hundredths of the height wide; each in half of the
    views. ``draws``: (n, hairs, PER_HAIR).
    """
    height, (y, x) = images.shape[-2], _grid(images)
    cover = torch.zeros(len(images), 1, *images.shape[-2:], device=images.device)
    for hair in draws.unbind(1):
        turn, offset, bend, width, there = hair[:, :, None, None, None].unbind(1)
        angle = turn * torch.pi / 2
        along, across = x * torch.cos(angle) + y * torch.sin(angle), y * torch.cos(angle) - x * torch.sin(angle)
        pixels = (across - offset - 0.3 * bend * along**2).abs() * height / 2
        line = (height * (2 + width) / 200 + 0.5 - pixels).clamp(0, 1)  # half a width, and a soft edge
        cover = torch.maximum(cover, line * (there > 0))
    return images * (1 - 0.8 * cover)


def _blur(images: Tensor, draws: Tensor, largest: float) -> Tensor:
    """Gaussian, σ uniform from 0 to ``largest`` hundredths of the height."""
    widest = largest * images.shape[-2] / 100  # pixels
    radius = math.ceil(3 * widest)
    if radius >= min(images.shape[-2:]):
        raise UserError(f"train.augment.blur {largest} is too much for images {min(images.shape[-2:])} high; lower it")
    sigma = ((draws + 1) / 2 * widest).clamp_min(1e-3)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=draws.device) / sigma[:, None]) ** 2)
    kernel /= kernel.sum(1, keepdim=True)
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded, size = F.pad(images, pad, mode="reflect"), images.shape[axis]
        parts = (padded.narrow(axis, i, size) * kernel[:, i, None, None, None] for i in range(2 * radius + 1))
        images = functools.reduce(Tensor.add_, parts)  # by hand: a convolution's bits may depend on the batch
    return images.clamp_(0, 1)


def _vignette(images: Tensor, draws: Tensor, share: float) -> Tensor:
    """The round field of view of a dermatoscope in a ``share`` of the views: dark outside, the edge sharp or soft.

    Its radius is 0.8 to 1.3 times half the image's height, so that corners or more are dark. ``draws``: (n, 5).
    """
    height, (y, x) = images.shape[-2], _grid(images)
    there, size, soft, cy, cx = draws[:, :, None, None, None].unbind(1)
    aspect = images.shape[-1] / height
    distance = ((y - 0.1 * cy) ** 2 + ((x - 0.1 * cx) * aspect) ** 2).sqrt()
    light = ((1.05 + 0.25 * size - distance) / (0.16 + 0.15 * soft) + 0.5).clamp(0.03, 1)
    return torch.where((there + 1) / 2 < share, images * light, images)


def _jpeg(images: Tensor, draws: Tensor, lowest: int) -> Tensor:
    """Half of the views saved as JPEG and read again, at a quality from ``lowest`` to 95."""
    pixels = (images.permute(0, 2, 3, 1) * 255 + 0.5).byte().cpu().numpy()
    views = list(images)
    for i in torch.nonzero(draws >= 0)[:, 0].tolist():
        stream = io.BytesIO()
        Image.fromarray(pixels[i]).save(stream, "JPEG", quality=round(lowest + (95 - lowest) * float(draws[i])))
        views[i] = to_float(np.array(Image.open(stream))[None], images.device)[0]
    return torch.stack(views)


def _erase(images: Tensor, draws: Tensor, largest: float) -> Tensor:
    """A rectangle anywhere takes the image's mean colour; its sides are up to ``largest`` of the image's.

    Source: DeVries and Taylor (2017), arXiv:1708.04552, with the varying size of Zhong et al. (2017), arXiv:1708.04896.
    """
    y, x = _grid(images)
    cy, cx, sy, sx = draws[:, :, None, None, None].unbind(1)
    inside = ((y - cy).abs() < sy.abs() * largest) & ((x - cx).abs() < sx.abs() * largest)
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def _grid(images: Tensor) -> tuple[Tensor, Tensor]:
    """y (H, 1) and x (1, W) of pixel centres, from −1 to 1 across the image."""
    y, x = ((2 * torch.arange(n, device=images.device) + 1) / n - 1 for n in images.shape[-2:])
    return y[:, None], x[None, :]


def mixup(images: Tensor, labels: Tensor, alpha: float, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Each image mixed with another of the batch: images of the same shape, labels as (n, classes) shares.

    One share λ ~ Beta(α, α) a batch. Source: Zhang et al. (2018), arXiv:1710.09412.
    """
    generator = np.random.default_rng(key)
    share, partner = float(generator.beta(alpha, alpha)), torch.from_numpy(generator.permutation(len(labels)))
    targets = F.one_hot(labels, len(CLASSES)).float()
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)

"""Photographs a phantom's lesion: position, light, hairs and lens, which differ between images of one lesion."""

import math

import numpy as np
from PIL import Image, ImageDraw


def photograph(rng: np.random.Generator, ground: np.ndarray, height: int, width: int) -> np.ndarray:
    """One photograph of ``ground`` (from ``tissue.paint`` with the same height): (height, width, 3) uint8 RGB."""
    image = _hairs(rng, _frame(rng, ground, height, width))
    y, x = (axis.astype(np.float32) for axis in np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j])
    light = 1 + 0.06 * (rng.normal() * x + rng.normal() * y)  # the lamp is never quite centred
    radius = np.hypot(x * width, y * height) / math.hypot(width, height)
    light = light * (1 - rng.uniform(0, 0.35) * radius**3)
    if rng.random() < 0.2:  # the round field of view of an older lens
        light = light * np.clip((rng.uniform(0.82, 0.97) - radius) * 25 + 0.5, 0.02, 1)
    gain = rng.normal(1, 0.03, 3) * rng.normal(1, 0.05)
    pixels = np.asarray(image, np.float32) / 255 * (light[..., None] * gain.astype(np.float32))
    if rng.random() < 0.15:
        _bubbles(rng, pixels)
    pixels += 0.008 * rng.standard_normal((height, width, 1), np.float32)
    return to_bytes(pixels)


def _frame(rng: np.random.Generator, ground: np.ndarray, height: int, width: int) -> Image.Image:
    """Turn, shift and zoom the camera over the tissue."""
    angle, zoom = rng.normal(0, 0.3), rng.uniform(0.95, 1.25)
    dx, dy = np.clip(rng.normal(0, 0.05, 2), -0.1, 0.1).tolist()
    a, b = math.cos(angle) / zoom, math.sin(angle) / zoom
    middle = ground.shape[0] / 2
    x0 = middle + height * dx - a * width / 2 - b * height / 2
    y0 = middle + height * dy + b * width / 2 - a * height / 2
    coefficients = (a, b, x0, -b, a, y0)
    source = Image.fromarray(ground)
    return source.transform((width, height), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def _hairs(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Draw dark (rarely white) bent hairs over the image: none in most, many in a few."""
    width, height = image.size
    count = int(rng.choice((0, 3, 10, 25), p=(0.55, 0.25, 0.14, 0.06)))
    canvas = Image.new("L", (2 * width, 2 * height))
    pen = ImageDraw.Draw(canvas)
    lie = rng.uniform(0, 2 * math.pi)  # hairs of one patch grow one way
    for _ in range(count):
        heading, bend = lie + rng.normal(0, 0.5), rng.normal(0, 0.5)
        t = np.linspace(-0.5, 0.5, 12) * rng.uniform(0.3, 1.2) * 2 * height
        turn = heading + bend * t / (2 * height)
        px, py = rng.uniform(0, 2 * width) + t * np.cos(turn), rng.uniform(0, 2 * height) + t * np.sin(turn)
        points = list(zip(px.tolist(), py.tolist(), strict=True))
        thick = max(1, round(height * rng.uniform(0.006, 0.016)))
        pen.line(points, fill=int(rng.integers(110, 230)), width=thick)
    colour = (225, 215, 215) if rng.random() < 0.12 else (45, 32, 30)
    return Image.composite(Image.new("RGB", image.size, colour), image, canvas.reduce(2))


def _bubbles(rng: np.random.Generator, pixels: np.ndarray) -> None:
    """Add air bubbles of the contact gel, bright rings, in place to ``pixels`` (H, W, 3) float."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(rng.integers(1, 4)):
        distance = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        ring = np.exp(-(((distance - height * rng.uniform(0.01, 0.06)) / (0.008 * height)) ** 2))
        pixels += (rng.uniform(0.04, 0.15) * ring)[..., None]


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Floats from 0 to 1 as uint8, rounded and clipped."""
    rounded: np.ndarray = np.clip(pixels, 0, 1) * 255 + 0.5
    return rounded.astype(np.uint8)

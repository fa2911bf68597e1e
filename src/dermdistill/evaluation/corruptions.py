"""Image corruptions in five severities, for the robustness metrics.

After Hendrycks & Dietterich, ICLR 2019, with the faults of dermatoscopic photographs: focus, sensor noise,
compression, light, another device's colour, few pixels, hairs, a ruler, a rotated camera. Every strength is relative
to the image's size or range, so it means the same at any resolution. The mildest severity must change predictions,
since a corruption that changes nothing proves nothing. A test runs the deployed model on each.

Deterministic: what is random (noise, position of hairs) depends on the seed, the corruption and the image id alone.
The same image therefore gets the same hairs for every model, and more of them at a higher severity. Images are
generated on the fly and never stored. Deliberately absent: anything learned, and severities tuned to a model.
"""

import hashlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Callable[[Image.Image, int, np.random.Generator], Image.Image]


def corrupt(image: np.ndarray, name: str, severity: int, image_id: str, seed: int) -> np.ndarray:
    """``image`` (H, W, 3) uint8 with corruption ``name`` of CORRUPTIONS at ``severity`` 1 to 5; same shape and type."""
    digest = hashlib.sha256(f"{seed}:{name}:{image_id}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8]))
    changed = CORRUPTIONS[name](Image.fromarray(np.asarray(image)), severity - 1, random)
    return np.asarray(changed)


def _blur(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    sigma = (0.006, 0.010, 0.015, 0.022, 0.032)[level] * image.height
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _noise(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    sd = (0.03, 0.05, 0.08, 0.12, 0.18)[level] * 255
    noisy = np.asarray(image) + sd * random.standard_normal((image.height, image.width, 3))
    return _from(noisy)


def _jpeg(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=(40, 25, 15, 8, 4)[level])
    return Image.open(buffer).convert("RGB")


def _contrast(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance((0.75, 0.6, 0.45, 0.3, 0.2)[level])


def _bright(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance((1.15, 1.3, 1.5, 1.75, 2.0)[level])


def _dark(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance((0.8, 0.65, 0.5, 0.35, 0.25)[level])


def _colour_cast(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """Towards yellow or blue, as under another lamp; which one depends on the image."""
    gain = (0.08, 0.14, 0.2, 0.28, 0.38)[level] * random.choice([-1, 1])
    return _from(np.asarray(image) * (1 + gain, 1.0, 1 - gain))


def _pixels(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    factor = (0.5, 0.35, 0.25, 0.18, 0.12)[level]
    small = (max(round(image.width * factor), 2), max(round(image.height * factor), 2))
    return image.resize(small, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)


def _hair(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """Curved dark lines from edge to edge; a higher severity adds hairs to those of the lower."""
    scale, side = 4, max(image.size)  # drawn larger, so that a hair may be thinner than a pixel
    mask = Image.new("L", (image.width * scale, image.height * scale))
    pen, position = ImageDraw.Draw(mask), np.linspace(0, 1, 20)[:, None]
    for start, end, bend, width in _strands(random)[: (3, 6, 12, 20, 32)[level]]:
        middle = (start + end) / 2 + bend * np.array([end[1] - start[1], start[0] - end[0]])
        curve = (1 - position) ** 2 * start + 2 * position * (1 - position) * middle + position**2 * end
        points = [(x * mask.width, y * mask.height) for x, y in curve.tolist()]
        pen.line(points, fill=255, width=max(round(width * side * scale), 1), joint="curve")
    soft = mask.resize(image.size, Image.Resampling.BOX)
    return Image.composite(Image.new("RGB", image.size, (45, 32, 26)), image, soft)


def _strands(random: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Start and end (fractions of the image), bend and width of all 32 possible hairs."""
    strands = []
    for _ in range(32):
        angle, centre = random.uniform(0, np.pi), random.uniform(0.1, 0.9, 2)
        reach = 0.9 * np.array([np.cos(angle), np.sin(angle)])
        strands.append((centre - reach, centre + reach, random.uniform(-0.15, 0.15), random.uniform(0.004, 0.009)))
    return strands


def _ruler(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """A white strip with ticks along the lower edge, as in pictures of many clinics; wider at a higher severity."""
    changed, height = image.copy(), round((0.08, 0.14, 0.2, 0.28, 0.38)[level] * image.height)
    pen, top = ImageDraw.Draw(changed), image.height - height
    pen.rectangle((0, top, image.width, image.height), fill=(236, 234, 228))
    for k in range(41):
        x = round(k * image.width / 40)
        pen.line((x, top, x, top + height * (0.6 if k % 5 == 0 else 0.35)), fill=(30, 30, 30))
    return changed


def _rotation(image: Image.Image, level: int, random: np.random.Generator) -> Image.Image:
    """About the centre, either way; the corners are filled by reflection, since no photograph has black ones."""
    angle = (10, 25, 45, 70, 90)[level] * random.choice([-1, 1])
    height, width = image.height, image.width
    border = np.pad(np.asarray(image), ((height // 2,) * 2, (width // 2,) * 2, (0, 0)), mode="reflect")
    turned = Image.fromarray(border).rotate(float(angle), Image.Resampling.BILINEAR)
    left, top = width // 2, height // 2
    return turned.crop((left, top, left + width, top + height))


def _from(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.round(values), 0, 255).astype(np.uint8))


CORRUPTIONS: dict[str, Corruption] = {
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "contrast": _contrast,
    "bright": _bright,
    "dark": _dark,
    "colour cast": _colour_cast,
    "few pixels": _pixels,
    "hair": _hair,
    "ruler": _ruler,
    "rotation": _rotation,
}

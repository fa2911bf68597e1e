"""Turns an image file into the array that every model sees; the phone's runtime calls the same function.

Images may have any size and aspect. The whole picture is scaled to fit inside the model's input, so that no lesion is
stretched or cut, and mirrored into the margins. HAM10000 is 4:3 throughout, as the model's input is, and has none.
``benchmarks/aspect.py`` measured this against cropping, squeezing and other margins.

Colours are sRGB's, as HAM10000's are: numbers that an ICC profile declares to be Display P3, Adobe RGB, ProPhoto or
another space are converted. Numbers without a profile are taken as sRGB, as every viewer does.
"""

import io
import struct
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from dermdistill.errors import UserError

ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of an ICC profile → Pillow's mode
ALREADY_SRGB = 2  # levels of 255 by which a profile may move a colour and count as sRGB: its makers round differently
SMALLEST = 16  # pixels of the shorter side; below it is a placeholder, not a photograph
LARGEST = 200_000_000  # pixels; such photographs are real, larger ones are taken for decompression bombs
Image.MAX_IMAGE_PIXELS = None  # checked here, because Pillow's warning is no error and not safe among threads


def read(content: bytes | str | Path, name: str, height: int, width: int, margins: bool = True) -> np.ndarray:
    """Decode one image (a path or a file's bytes) and fit it to ``(height, width, 3)`` uint8.

    Without ``margins`` it is the picture alone (:func:`scaled`), which :func:`framed` gives its margins.

    Raises:
        UserError: there is no such file, or its content is no readable image, too large, or too small to show
            anything; the message names ``name``.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.width * image.height > LARGEST:
                raise UserError(f"image {name} has more than {LARGEST:,} pixels; scale it down")
            if min(image.size) < SMALLEST:
                size = f"{image.width} × {image.height}"
                raise UserError(f"image {name} is {size} pixels, which shows nothing; replace the file")
            side = max(height, width)  # whichever way up the photograph is
            image.draft("RGB", (side, side))  # JPEG: decode at the smallest scale that suffices
            return fit(image, height, width) if margins else scaled(image, height, width)
    except FileNotFoundError:
        raise UserError(f"image {name} does not exist; check the path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"image {name} cannot be read ({reason}); replace the file") from None


def fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Turn upright (EXIF), convert to sRGB, scale to fit inside, mirror into the margins; (height, width, 3) uint8.

    Raises:
        ValueError: the grey values are 32-bit numbers, whose range is unknown.
    """
    return framed(scaled(image, height, width), height, width)


def scaled(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The picture upright, in sRGB, as large as fits inside ``height`` and ``width``; uint8 with three channels.

    It has one side of the frame in full; the other keeps the aspect, rounded to whole pixels (half to even), at least
    one. The filter is bicubic and antialiasing.

    Raises:
        ValueError: as :func:`fit`.
    """
    if image.mode in ("I", "F"):
        raise ValueError("grey values of unknown range, not 8 bits or a PNG of 16")
    turn, profile = _turn(image), image.info.get("icc_profile")
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
    upright = _srgb(image if turn is None else image.transpose(turn), profile)
    return np.asarray(upright.resize(_inside(upright.width, upright.height, height, width), Image.Resampling.BICUBIC))


def framed(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture that fits inside, mirrored into the margins: (height, width, 3) uint8.

    It lies in the middle, an odd pixel of margin to the right or below. Margins mirror it about its outermost pixels,
    which are not repeated, forth and back as often as it takes: pixel i of n is pixel min(k, 2(n - 1) - k) with
    k = i mod 2(n - 1); one pixel is repeated.
    """
    rows, columns = height - picture.shape[0], width - picture.shape[1]
    margins = (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)
    return np.pad(picture, margins, "reflect")


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """``image`` in mode RGB, its colours converted from those of the ICC ``profile``."""
    grey, cmyk = image.mode in ("1", "L", "LA"), image.mode == "CMYK"
    mode = "L" if grey else "CMYK" if cmyk else "RGB"
    transform = _transform(profile, mode) if profile else None
    return image.convert("RGB") if transform is None else transform.apply(image.convert(mode))


@lru_cache(maxsize=16)  # the photographs of one camera carry one profile
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From ``profile`` to sRGB; None where there is nothing to convert.

    That is so for sRGB itself, whose pixels keep their bits, and for a profile that is damaged or made for pixels of
    another ``mode``: viewers ignore these too.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if MODES.get(source.profile.xcolor_space.strip()) != mode:
            return None
        # Relative colorimetric: the perceptual tables of some profiles restyle a picture.
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
    except (ImageCms.PyCMSError, OSError):
        return None
    colours = Image.fromarray(np.indices((9, 9, 9), np.uint8).reshape(3, -1, 9).T * 31).convert(mode)
    moved = np.asarray(transform.apply(colours), int) - np.asarray(colours.convert("RGB"), int)
    return transform if np.abs(moved).max() > ALREADY_SRGB else None


def _inside(across: int, down: int, height: int, width: int) -> tuple[int, int]:
    """(width, height) of a picture of ``across`` × ``down`` scaled to fit; whole numbers until the one division."""
    if across * height >= down * width:
        return width, max(round(down * width / across), 1)
    return max(round(across * height / down), 1), height


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that EXIF asks for. Unreadable EXIF is no reason to refuse: a lesion has no upper side."""
    image.load()  # Pillow turns TIFF itself then, and takes the tag out
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except (struct.error, SyntaxError):
        return None

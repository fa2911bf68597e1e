"""From an image file to the one array every model sees; the phone's runtime calls the same function.

Any size and aspect: the centre is cropped to the model's aspect, so that a lesion is never
stretched, then resampled with an antialiasing filter. HAM10000 is 4:3 throughout and loses nothing.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dermdistill.errors import UserError

LARGEST = 200_000_000  # pixels; such photographs are real, larger ones are taken for decompression bombs
Image.MAX_IMAGE_PIXELS = None  # checked here, because Pillow's warning is no error and not safe among threads


def read(content: bytes | str | Path, name: str, height: int, width: int) -> np.ndarray:
    """Decode one image (a path or a file's bytes) and fit it to ``(height, width, 3)`` uint8.

    Raises:
        UserError: naming ``name``, when there is no such file or its content is no readable image.
    """
    try:
        with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as image:
            if image.width * image.height > LARGEST:
                raise UserError(f"image {name} has more than {LARGEST:,} pixels; scale it down")
            side = max(height, width)  # not (width, height): the photograph may lie on its side
            image.draft("RGB", (side, side))  # JPEG: decode at the smallest scale that suffices
            return fit(image, height, width)
    except FileNotFoundError:
        raise UserError(f"image {name} does not exist; check the path") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"image {name} cannot be read ({reason}); replace the file") from None


def fit(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Upright, RGB, centre crop to ``width / height``, antialiased resampling; (height, width, 3) uint8."""
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits at 255
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC))

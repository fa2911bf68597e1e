"""Was the model made with this picture? A perceptual hash of each image of train and val, kept in git.

An outside set that shares images with them (HAM10000 is part of several public archives) would flatter every figure.
The hash is the sign pattern of the lowest 16 × 16 frequencies of the grey image (pHash: Zauner, 2010, with 256 bits
instead of 64, which confuse different lesions of the same composition). On HAM10000 a copy at a fifth of the pixels or
saved as JPEG of quality 20 to 30 differs in at most 32 bits. Of all its 50 million pairs with different lesion ids,
five differ in at most 40, two of them confirmed twins.

Deliberately absent: mirrored, turned or cropped copies, and other photographs of the same lesion, which a hash cannot
tell from similar lesions (:mod:`dermdistill.splitting.overlap` looks for those).
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from dermdistill.core.files import read_table
from dermdistill.errors import UserError

SIDE, GRID = 16, 64  # frequencies kept, pixels they are computed from, per side
LIMIT = 40  # bits of 256 that may differ between copies of one picture
CHUNK = 256


def image_hash(image: np.ndarray) -> bytes:
    """32 bytes for one image (H, W, 3) uint8 of any size."""
    grey = Image.fromarray(np.asarray(image)).convert("L").resize((GRID, GRID), Image.Resampling.BOX)
    low = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).tobytes()


def table(image_id: Iterable[str], images: Iterable[np.ndarray]) -> pd.DataFrame:
    """``image_id, fingerprint`` (hex), what :func:`read` reads back."""
    return pd.DataFrame({"image_id": list(image_id), "fingerprint": [image_hash(image).hex() for image in images]})


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids (n,) and fingerprints (n, 32) uint8; UserError if the file is missing or no such table."""
    known = read_table(path)
    try:
        bits = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in known["fingerprint"]]
        return known["image_id"].to_numpy(dtype=str), np.stack(bits).reshape(-1, SIDE * SIDE // 8)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} is no table of fingerprints; restore it from git") from None


def nearest(unknown: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``unknown`` (m, 32) the index of the nearest of ``known`` (n, 32), and how many bits differ."""
    index, distance = np.zeros(len(unknown), int), np.zeros(len(unknown), int)
    for start in range(0, len(unknown), CHUNK):
        part = slice(start, start + CHUNK)
        # |a − b| = |a| + |b| − 2·a·b on bits, as one matrix product
        a, b = (np.unpackbits(one, axis=1).astype(np.float32) for one in (unknown[part], known))
        bits = a.sum(axis=1)[:, None] + b.sum(axis=1) - 2 * a @ b.T
        index[part] = bits.argmin(axis=1)
        distance[part] = np.round(bits.min(axis=1)).astype(int)
    return index, distance


def shared(image_id: list[str], unknown: np.ndarray, path: str | Path) -> list[tuple[str, str]]:
    """(image, known image) of every one of ``image_id`` whose fingerprint is one of the file's, near enough."""
    names, known = read(path)
    index, distance = nearest(unknown, known)
    return [(image_id[i], str(names[index[i]])) for i in np.flatnonzero(distance <= LIMIT)]

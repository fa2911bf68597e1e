"""Perceptual hashes of the images of train and val, kept in git, so that copies of them in an external set are refused.

An external set that shares images with train or val would flatter every metric, and HAM10000 is part of several public
archives. The hash has 256 bits: which of the lowest 16 × 16 frequencies of the grey image exceed their median. 64 bits,
as is usual, confuse different lesions of the same composition. On HAM10000 a copy with a fifth of the pixels, or saved
as JPEG of quality 20 to 30, differs in at most 32 bits. Of all 50 million pairs of its images with different lesion
ids, five differ in at most 40 bits, and two of these five are confirmed duplicates.

Deliberately absent: mirrored, turned or cropped copies, and other photographs of the same lesion. A hash cannot tell
the latter from similar lesions; :mod:`dermdistill.splitting.overlap` looks for them.

Source: pHash, in Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from dermdistill.core.dataset import Split
from dermdistill.core.files import read_table
from dermdistill.errors import UserError

SIDE, GRID = 16, 64  # frequencies kept, pixels they are computed from, per side
LIMIT = 40  # bits of 256 in which copies of one image may differ


def image_hash(image: np.ndarray) -> bytes:
    """32 bytes for one image (H, W, 3) uint8 of any size."""
    grey = Image.fromarray(np.asarray(image)).convert("L").resize((GRID, GRID), Image.Resampling.BOX)
    low = dctn(np.asarray(grey, dtype=np.float64), norm="ortho")[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).tobytes()


def table(image_id: Iterable[str], images: Iterable[np.ndarray]) -> pd.DataFrame:
    """``image_id, image_hash`` (hex), which :func:`read` reads back."""
    return pd.DataFrame({"image_id": list(image_id), "image_hash": [image_hash(image).hex() for image in images]})


def table_of_parts(images: np.ndarray, parts: Mapping[str, Split]) -> pd.DataFrame:
    """``image_id, image_hash, part`` of the rows of ``images`` (N, H, W, 3) uint8 that ``parts`` name."""
    return pd.concat(
        table(split.image_id, (images[row] for row in split.rows)).assign(part=part) for part, split in parts.items()
    )


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Image ids (n,) and hashes (n, 32) uint8.

    Raises:
        UserError: the file is missing or no such table.
    """
    rows = read_table(path)
    try:
        hashes = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in rows["image_hash"]]
        return rows["image_id"].to_numpy(dtype=str), np.stack(hashes).reshape(-1, SIDE * SIDE // 8)
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path} is no table of image hashes; restore it from git") from None


def nearest(queries: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of ``hashes`` (n, 32) to each of ``queries`` (m, 32), uint8: indices (m,), different bits (m,).

    Of several equally near ones it is the first. faiss's binary index promises no order among these, so it is not used.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)
    index, distance = np.zeros(len(queries), int), np.zeros(len(queries), int)
    for row, query in enumerate(np.ascontiguousarray(queries).view(np.uint64)):
        bits = np.bitwise_count(words ^ query).sum(axis=1)
        index[row] = bits.argmin()
        distance[row] = bits[index[row]]
    return index, distance


def copies(image_id: list[str], hashes: np.ndarray, path: str | Path) -> dict[str, str]:
    """Image → the image in the table at ``path`` that it is a copy of, for those that are copies.

    Args:
        image_id: ids of m images.
        hashes: their hashes, (m, 32) uint8.
        path: a table that :func:`read` can read.
    """
    names, table_hashes = read(path)
    index, distance = nearest(hashes, table_hashes)
    return {image_id[i]: str(names[index[i]]) for i in np.flatnonzero(distance <= LIMIT)}

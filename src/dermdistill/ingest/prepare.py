"""Turns the raw download into one array and one clean table, in one pass and bounded memory.

:mod:`dermdistill.ingest.forms` recognises the form of the raw data. All cores decode the images, a few dozen at a time,
and each image once. The pixels are written in order into a ``.npy`` file that later stages map into memory, so the peak
does not grow with the number of images.

Deliberately absent: anything that looks at the label while touching pixels, and any JPEG decoder but Pillow's
(``benchmarks/README.md`` says what others would gain, and that their pixels of larger images differ).
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm import tqdm

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic
from dermdistill.errors import UserError
from dermdistill.ingest import forms, pixels, schema
from dermdistill.ingest.vocabulary import COLUMNS, REST

CHUNK = 64  # images in memory at once


@dataclass(frozen=True)
class Raw:
    """The validated metadata table, one row per image, and a reader of each row's file."""

    form: str
    table: pd.DataFrame
    readers: Sequence[Callable[[], bytes]]
    unlisted: int  # image files without a row; ignored
    lesions_known: bool  # otherwise each image counts as a lesion, and leakage cannot be excluded


class Source(NamedTuple):
    """What a decoded file was: size in pixels, colour mode and bytes; and the SHA-256 of its prepared pixels."""

    pixels_sha256: str
    width: int
    height: int
    mode: str
    bytes: int


def open_raw(folder: str | Path) -> Raw:
    """Read the table in ``folder`` and check that every row has an image.

    Raises:
        UserError: the folder or table is missing, the table faulty, a zip damaged, or an image missing.
    """
    dataset = forms.detect(folder)
    table = schema.checked(dataset.table[COLUMNS], dataset.source)
    if (table["dx"] == REST).any():
        raise UserError(
            f"{dataset.source} says melanoma or not, which nobody can train on; `dermdistill evaluate` can use it"
        )
    keys = table["image_id"].str.casefold()
    missing = list(table["image_id"][~keys.isin(list(dataset.images))])
    if missing:
        some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(
            f"{folder} lacks the files of {len(missing)} of {len(table)} images in the table ({some}); "
            "bring in the complete data with `make data`"
        )
    readers = [dataset.images[key] for key in keys]
    return Raw(dataset.form, table, readers, len(dataset.images) - len(table), dataset.lesions_known)


def prepare(raw: Raw, folder: str | Path, height: int, width: int) -> dict[str, Any]:
    """Write ``images.npy`` (N, height, width, 3) uint8, ``metadata.csv`` and ``sources.csv``; return the counts.

    ``metadata.csv`` is the table with ``pixels_sha256`` added, the first 16 hex digits of the SHA-256 of each prepared
    image. ``sources.csv`` has each file's size in pixels, colour mode and bytes. Nothing takes its final name before
    everything has succeeded.

    Raises:
        UserError: a file is no readable image.
    """
    folder = Path(folder)
    with atomic(folder / "images.npy") as temporary:
        sources = pd.DataFrame(list(_write(raw, temporary, height, width))).assign(image_id=raw.table["image_id"])
        table = raw.table.assign(pixels_sha256=sources.pop("pixels_sha256"))
        with atomic(folder / "metadata.csv") as metadata, atomic(folder / "sources.csv") as path:
            sources[["image_id", "width", "height", "mode", "bytes"]].to_csv(path, index=False, lineterminator="\n")
            table.to_csv(metadata, index=False)
    return counts(table, raw.unlisted, (height, width)) | {"form": raw.form, "lesions_known": raw.lesions_known}


def _write(raw: Raw, path: Path, height: int, width: int) -> Iterator[Source]:
    """Decode chunk by chunk. The array is written, not mapped, so that none of its pages count as our memory."""
    count = len(raw.table)
    array = open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, height, width, 3))
    offset, size = array.offset, array.offset + array.nbytes
    chunk = np.empty((CHUNK, height, width, 3), np.uint8)

    def decode(place: tuple[int, int]) -> Source:
        slot, row = place
        chunk[slot], source = decoded(raw.readers[row](), raw.table["image_id"][row], height, width)
        return source

    workers = min(32, os.cpu_count() or 1)
    with path.open("r+b") as stream, ThreadPoolExecutor(workers) as pool, tqdm(total=count, desc="prepare") as bar:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(stream.fileno(), 0, size)  # a full disk fails now, not after minutes of decoding
        stream.seek(offset)
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            yield from pool.map(decode, enumerate(rows))  # Pillow decodes outside the interpreter's lock
            stream.write(chunk[: len(rows)].data)
            bar.update(len(rows))


def decoded(content: bytes, name: str, height: int, width: int) -> tuple[np.ndarray, Source]:
    """One image fitted to ``(height, width, 3)`` uint8, and what its file was.

    Raises:
        UserError: as :func:`dermdistill.ingest.pixels.read`.
    """
    fitted = pixels.read(content, name, height, width)
    with Image.open(io.BytesIO(content)) as image:  # the header only
        mode, size = image.mode, image.size
    return fitted, Source(hashlib.sha256(fitted.tobytes()).hexdigest()[:16], *size, mode, len(content))


def counts(table: pd.DataFrame, unlisted: int, size: tuple[int, int]) -> dict[str, Any]:
    """What a reader wants to know first: images by class, lesion and kind of ground truth, and what is missing."""
    per_lesion = table.groupby("lesion_id").size()
    return {
        "images": len(table),
        "lesions": int(table["lesion_id"].nunique()),
        "lesions_with_several_images": int((per_lesion > 1).sum()),
        "images_by_diagnosis": {name: int((table["dx"] == name).sum()) for name in CLASSES},
        "images_by_ground_truth": {str(k): int(v) for k, v in sorted(table["dx_type"].value_counts().items())},
        "ages_missing": int(table["age"].isna().sum()),
        "sex_unknown": int((~table["sex"].isin(["male", "female"])).sum()),
        "identical_pixels": int(table["pixels_sha256"].duplicated().sum()),
        "files_without_a_row": unlisted,
        "height": size[0],
        "width": size[1],
    }

"""Reads HAM10000 as MedMNIST publishes it: one ``.npz`` of small square images in three parts, without any ids.

DermaMNIST *is* HAM10000, so it can never be an external test set. It has no lesion ids, so nobody can tell which of
its images show one lesion. Its own three parts share lesions for that reason, and are not used here. The square
images are squeezed 4:3 photographs; they are stretched back. Labels are in the order of MedMNIST.

Source: Yang et al., "MedMNIST v2", Sci. Data 10:41 (2023).
"""

import io
import tempfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dermdistill.errors import UserError
from dermdistill.ingest.archives import Reader

PARTS = ("train", "val", "test")
LABELS = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def read(path: Path) -> tuple[pd.DataFrame, dict[str, Reader]]:
    """Table ``image_id, dx`` and readers by image id. The images stay on disk, in a temporary folder.

    Raises:
        UserError: if the file is damaged or another data set of MedMNIST.
    """
    folder = tempfile.TemporaryDirectory(prefix="dermamnist-")  # lives as long as the readers hold it
    try:
        with zipfile.ZipFile(path) as archive:
            names = [f"{part}_{kind}.npy" for part in PARTS for kind in ("images", "labels")]
            for name in names:
                archive.extract(name, folder.name)
        arrays = {name: np.load(Path(folder.name) / name, mmap_mode="r", allow_pickle=False) for name in names}
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, OSError) as error:
        raise UserError(f"{path} is no readable DermaMNIST file ({error}); replace it") from None
    rows: list[tuple[str, str]] = []
    readers: dict[str, Reader] = {}
    for part in PARTS:
        images, labels = arrays[f"{part}_images.npy"], np.asarray(arrays[f"{part}_labels.npy"]).ravel()
        if images.ndim != 4 or images.shape[3] != 3 or len(images) != len(labels) or labels.max(initial=0) > 6:
            raise UserError(f"{path} is not DermaMNIST: {part} has images {images.shape} and labels {labels.shape}")
        for i, label in enumerate(labels.tolist()):
            image_id = f"dermamnist_{part}_{i:05d}"
            rows.append((image_id, LABELS[label]))
            readers[image_id] = partial(_image_file, images, i, folder)
    return pd.DataFrame(rows, columns=["image_id", "dx"]), readers


def _image_file(images: np.ndarray, i: int, folder: object) -> bytes:
    """One image, stretched back to 4:3, as the bytes of a PPM file."""
    side = images.shape[1]
    buffer = io.BytesIO()
    Image.fromarray(images[i]).resize((4 * side // 3, side), Image.Resampling.BICUBIC).save(buffer, "PPM")
    return buffer.getvalue()

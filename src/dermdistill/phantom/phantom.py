"""Writes the embedded data set: procedurally drawn dermoscopy in exactly the raw form of HAM10000.

The demo and the tests run the code that reads the real archive, which cannot be shipped (CC BY-NC, 2.6 GB). A phantom
shows that the pipeline works; it says nothing about skin.

:mod:`dermdistill.phantom.tissue` paints a lesion and :mod:`dermdistill.phantom.camera` photographs it. Some lesions are
photographed several times, as in HAM10000, so that a split has to keep their images together. This module draws the
numbers of lesions and photographs, and writes table and archives. The classes overlap on purpose (see ``tissue``), so
an AUC on phantoms is a setting, not a result.
"""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic, write_text
from dermdistill.errors import UserError
from dermdistill.phantom import camera, tissue

PARTS = ("HAM10000_images_part_1.zip", "HAM10000_images_part_2.zip")
TABLE = "HAM10000_metadata.csv"
HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"
FIRST_ID = 9_000_001  # far above every real id, so that nobody mistakes a phantom for a patient

# Share of lesions: HAM10000's order, the rare diagnoses raised so that every part of a split has some.
_SHARES = {"nv": 0.60, "mel": 0.14, "bkl": 0.11, "bcc": 0.06, "akiec": 0.04, "vasc": 0.025, "df": 0.025}
# Share of lesions with one, two, three, four photographs, as counted in HAM10000's table.
_VIEWS = {"nv": (0.817, 0.129, 0.050, 0.004), "mel": (0.375, 0.453, 0.163, 0.009)}
_VIEWS_OTHER = (0.57, 0.33, 0.09, 0.01)
_AGES = {"nv": (46, 15), "mel": (61, 15), "bkl": (64, 14), "bcc": (67, 13), "akiec": (67, 11),
         "vasc": (51, 21), "df": (53, 13)}  # mean, standard deviation in years  # fmt: skip
_TYPES = {"nv": {"follow_up": 0.55, "histo": 0.37, "consensus": 0.08},
          "bkl": {"histo": 0.69, "consensus": 0.25, "confocal": 0.06},
          "vasc": {"histo": 0.5, "consensus": 0.5}, "df": {"histo": 0.5, "consensus": 0.5}}  # fmt: skip
_SITES = {"back": 0.26, "lower extremity": 0.25, "trunk": 0.14, "upper extremity": 0.12, "abdomen": 0.09,
          "face": 0.08, "chest": 0.04, "unknown": 0.02}  # fmt: skip


def write(
    directory: str | Path,
    lesions: int = 700,
    seed: int = 0,
    height: int = 150,
    width: int = 200,
    progress: bool = True,
) -> None:
    """Write two archives of JPEGs and the metadata table, named and shaped as HAM10000's.

    The same arguments give the same bytes with the same Pillow and numpy: every lesion has its own random stream.

    Args:
        directory: made if missing; a phantom in it is replaced.
        lesions: their number; there are about 1.4 images per lesion.
        seed: of all random numbers.
        height, width: of the images, in pixels.
        progress: show a progress bar.

    Raises:
        UserError: fewer lesions than diagnoses, a negative seed, a frame below 32 x 24 or wider than 4:3, or
            ``directory`` holds a data set that is no phantom.
    """
    directory = Path(directory)
    _check(lesions, seed, height, width)
    _refuse_real(directory)
    first, *streams = np.random.SeedSequence(seed).spawn(lesions + 1)
    rng = np.random.default_rng(first)
    diagnoses = _diagnoses(rng, lesions)
    records = [_record(np.random.default_rng(s), dx) for s, dx in zip(streams, diagnoses, strict=True)]
    # Photographs of one lesion get unrelated ids and fall into both archives, as in HAM10000.
    ids = iter(rng.permutation(sum(count for _, count in records)) + FIRST_ID)
    rows, files = [], {}
    for n, (fields, count) in enumerate(tqdm(records, "phantom", unit="lesion", disable=not progress)):
        painter, *cameras = (np.random.default_rng(child) for child in streams[n].spawn(1 + count))
        ground = tissue.paint(painter, diagnoses[n], height)
        for lens in cameras:
            name = f"ISIC_{next(ids)}"
            files[name] = jpeg(camera.photograph(lens, ground, height, width))
            rows.append(f"HAM_{FIRST_ID + n},{name},{fields}")
    _store(directory, rows, files)


def draw(rng: np.random.Generator, dx: str, height: int, width: int) -> np.ndarray:
    """One photograph of a new lesion of diagnosis ``dx``: (height, width, 3) uint8 RGB."""
    return camera.photograph(rng, tissue.paint(rng, dx, height), height, width)


def jpeg(pixels: np.ndarray) -> bytes:
    """Pixels (H, W, 3) uint8 as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _check(lesions: int, seed: int, height: int, width: int) -> None:
    minima = {"lesions": (lesions, len(CLASSES)), "seed": (seed, 0), "height": (height, 24), "width": (width, 32)}
    for name, (value, minimum) in minima.items():
        if value < minimum:
            raise UserError(f"phantom: {name} is {value}; give at least {minimum}")
    if 3 * width > 4 * height:
        raise UserError(f"phantom: {width}x{height} pixels is wider than 4:3; lower width or raise height")


def _diagnoses(rng: np.random.Generator, lesions: int) -> list[str]:
    """A diagnosis for each lesion, shuffled: in the shares of ``_SHARES``, at least one of each."""
    counts = {dx: max(1, math.floor(share * lesions)) for dx, share in _SHARES.items()}
    counts["nv"] += lesions - sum(counts.values())  # nevi take the rounding, as they can spare it
    ordered = [dx for dx in CLASSES for _ in range(counts[dx])]
    return [ordered[i] for i in rng.permutation(lesions)]


def _record(rng: np.random.Generator, dx: str) -> tuple[str, int]:
    """The table's columns from ``dx`` on, and the number of photographs."""
    types = _TYPES.get(dx, {"histo": 1.0})
    kind = rng.choice(list(types), p=list(types.values()))
    mean, deviation = _AGES[dx]
    age = f"{5 * round(float(np.clip(rng.normal(mean, deviation), 5, 85)) / 5)}.0"
    age = "" if rng.random() < 0.02 else age
    sex = "unknown" if rng.random() < 0.01 else rng.choice(("male", "female"), p=(0.54, 0.46))
    site = rng.choice(list(_SITES), p=list(_SITES.values()))
    count = int(rng.choice((1, 2, 3, 4), p=_VIEWS.get(dx, _VIEWS_OTHER)))
    return f"{dx},{kind},{age},{sex},{site}", count


def _store(directory: Path, rows: list[str], files: dict[str, bytes]) -> None:
    """Write the table, sorted by image id, and half of the files into each archive."""
    # The table goes first: it marks an interrupted folder as a phantom, which may be rewritten.
    rows = sorted(rows, key=lambda row: row.split(",")[1])
    write_text(directory / TABLE, "\n".join([HEADER, *rows]) + "\n")
    names = sorted(files)
    for part, members in zip(PARTS, (names[: len(names) // 2], names[len(names) // 2 :]), strict=True):
        _archive(directory / part, {name: files[name] for name in members})


def _archive(path: Path, files: dict[str, bytes]) -> None:
    """Store ``files`` uncompressed, with a fixed date and system, so that equal content gives equal bytes."""
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(f"{name}.jpg", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix, also when written on Windows
            archive.writestr(info, content)


def _refuse_real(directory: Path) -> None:
    """A phantom may replace a phantom, never a downloaded HAM10000."""
    table = directory / TABLE
    present = [name for name in (*PARTS, TABLE) if (directory / name).exists()]
    phantom = table.exists() and f",ISIC_{FIRST_ID}," in table.read_text(encoding="utf-8", errors="replace")
    if present and not phantom:
        raise UserError(f"{directory} holds {present[0]}, which is no phantom; choose another directory")

"""The raw download becomes one array and one clean table.

HAM10000 comes as two zips (or their unpacked folders) and a metadata table that is comma-separated
from one source and tab-separated without an extension from the other; both are recognised. Images
are decoded once, in parallel, straight into a memory-mapped file: peak memory does not grow with N.
Deliberately absent: anything that looks at the label while touching pixels.
"""

import csv
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.format import open_memmap
from tqdm import tqdm

from dermdistill.classes import CLASSES
from dermdistill.data import pixels
from dermdistill.errors import UserError
from dermdistill.files import atomic

COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
LARGEST = 100_000_000  # bytes a member of a zip may unpack to
SUFFIXES = (".jpg", ".jpeg", ".png")
ABSENT = (
    "{folder} holds no HAM10000: run `make data SOURCE=DIR` to bring in a local copy, `make data` to download the "
    "originals, `dvc checkout data/raw` if this machine had them before, or `make demo` for the embedded data set"
)


@dataclass(frozen=True)
class Raw:
    """The checked metadata table, one row an image, and how to read each row's file."""

    table: pd.DataFrame
    readers: Sequence[Callable[[], bytes]]
    unlisted: int  # images without a row; ignored


def open_raw(folder: str | Path) -> Raw:
    """Find table and images in ``folder`` and check that they fit together.

    Raises:
        UserError: folder absent, table absent or faulty, zip damaged, or images missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(ABSENT.format(folder=folder))
    table = read_table(find_table(folder))
    images = find_images(folder)
    missing = [name for name in table["image_id"] if name not in images]
    if missing:
        some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise UserError(
            f"{folder} lacks the files of {len(missing)} of {len(table)} images in the table ({some}); "
            "bring in the complete data with `make data`"
        )
    return Raw(table, [images[name] for name in table["image_id"]], len(images) - len(table))


def find_table(folder: Path) -> Path:
    """The one metadata table: HAM10000_metadata, with or without .csv, .tab, .tsv, .txt."""
    found = [
        path
        for path in sorted(folder.glob("HAM10000_metadata*"))
        if path.suffix in ("", ".csv", ".tab", ".tsv", ".txt")
    ]
    if not found:
        raise UserError(ABSENT.format(folder=folder))
    if len(found) > 1:
        raise UserError(f"{folder} holds several metadata tables ({', '.join(p.name for p in found)}); keep one")
    return found[0]


def read_table(path: Path) -> pd.DataFrame:
    """The metadata sorted by image_id, so that the order of rows in the raw file changes nothing."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        separator = "\t" if "\t" in text.partition("\n")[0] else ","
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", quoting=csv.QUOTE_MINIMAL
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{path} is no readable table ({' '.join(str(error).split())}); replace it") from None
    absent = [name for name in COLUMNS if name not in table.columns]
    if absent:
        raise UserError(f"{path} lacks the column(s) {', '.join(absent)}; it has {', '.join(table.columns)}")
    table = table[COLUMNS].apply(lambda column: column.str.strip()).sort_values("image_id", ignore_index=True)
    _check(table, path)
    table["age"] = pd.to_numeric(table["age"].replace("", None))
    return table


def _check(table: pd.DataFrame, path: Path) -> None:
    unknown = sorted(set(table["dx"]) - set(CLASSES))
    twice = table["image_id"][table["image_id"].duplicated()]
    nameless = (table[["image_id", "lesion_id"]] == "").any(axis=1)
    ages = pd.to_numeric(table["age"].replace("", None), errors="coerce")
    odd = table["age"][(table["age"] != "") & ~ages.between(0, 120)]
    problems = []
    if table.empty:
        problems.append("has no rows")
    if unknown:
        problems.append(f"has unknown dx {', '.join(map(repr, unknown))} (known: {', '.join(CLASSES)})")
    if len(twice):
        problems.append(f"lists {twice.iloc[0]} more than once ({len(twice)} repeated image_id in all)")
    if nameless.any():
        problems.append(f"has {int(nameless.sum())} rows without image_id or lesion_id")
    if len(odd):
        problems.append(f"has ages that are no number from 0 to 120, such as {odd.iloc[0]!r}")
    if problems:
        raise UserError(f"{path} {' and '.join(problems)}; correct the table")


def find_images(folder: Path) -> dict[str, Callable[[], bytes]]:
    """Image id → a function that reads its bytes, over all zips and all folders below ``folder``."""
    readers: dict[str, Callable[[], bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            _add(readers, path.stem, _file_reader(path), path)
        elif path.suffix.lower() == ".zip":
            archive = _open_zip(path)
            for member in archive.namelist():
                if member.lower().endswith(SUFFIXES):
                    _add(readers, Path(member).stem, _member_reader(archive, member, path), f"{path}:{member}")
    return readers


def _add(readers: dict[str, Callable[[], bytes]], name: str, reader: Callable[[], bytes], where: object) -> None:
    if name in readers:
        raise UserError(f"image {name} is there more than once, the second time as {where}; remove one")
    readers[name] = reader


def _file_reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); replace it or run `make data` again") from None

    return read


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise UserError(f"{path} is no complete zip (a broken download?); run `make data` again") from None


def _member_reader(archive: zipfile.ZipFile, member: str, path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if archive.getinfo(member).file_size > LARGEST:
            raise UserError(
                f"{member} in {path} unpacks to more than {LARGEST:,} bytes; it is no image of this data set"
            )
        try:
            return archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise UserError(f"{member} in {path} is damaged ({error}); run `make data` again") from None

    return read


def prepare(raw: Raw, folder: str | Path, height: int, width: int) -> dict[str, Any]:
    """Write ``images.npy`` (N, height, width, 3) uint8 and ``metadata.csv``; return the data report.

    ``metadata.csv`` gains ``pixels_sha256``, the fingerprint of each prepared image. Nothing takes its
    final name before everything has succeeded.
    """
    folder, count = Path(folder), len(raw.table)
    with atomic(folder / "images.npy") as temporary:
        array = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(count, height, width, 3))
        with temporary.open("r+b") as file:  # a full disk is an error here; writing to the mapping it would be SIGBUS
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)

        def decode(row: int) -> str:
            array[row] = pixels.read(raw.readers[row](), raw.table["image_id"][row], height, width)
            return hashlib.sha256(array[row].tobytes()).hexdigest()[:16]

        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter's lock
            try:
                fingerprints = list(tqdm(pool.map(decode, range(count)), "prepare", count, unit="image"))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        array.flush()
        table = raw.table.assign(pixels_sha256=fingerprints)
        with atomic(folder / "metadata.csv") as metadata:
            table.to_csv(metadata, index=False)
    return describe(table, raw.unlisted, (height, width))


def describe(table: pd.DataFrame, unlisted: int, size: tuple[int, int]) -> dict[str, Any]:
    """Counts a reader wants before trusting anything: by class, lesion, ground truth, and what is missing."""
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

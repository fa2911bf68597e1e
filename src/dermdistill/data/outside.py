"""Somebody else's images and labels: what `dermdistill evaluate` reads.

A folder (with subfolders) or one zip of images of any size, and a table of diagnoses: HAM10000's or ISIC's one-hot one.
Age, sex and body site are read where the table has them, for the slices. Deliberately absent: guessing. A row without a
single known diagnosis, a missing image or a name that stands for two files is refused by name.
"""

import csv
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from dermdistill.classes import CLASSES
from dermdistill.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
TRAITS = ("dx_type", "sex", "age", "localization")
ISIC = {"age_approx": "age", "anatom_site_general": "localization"}  # the archive's names of the same


def read_labels(path: Path) -> list[dict[str, str]]:
    """Rows ``image_id, lesion_id, dx`` and TRAITS, sorted by image, from HAM10000's table or ISIC's one-hot one.

    An image without lesion_id is its own lesion; what follows the diagnosis may be empty.

    Raises:
        UserError: if the file is missing or no such table, or rows have no single known diagnosis.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            table = list(csv.DictReader(stream, delimiter="\t" if "\t" in header else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"labels {path} cannot be read ({error}); give a CSV table") from None
    columns = set(table[0]) if table else set()
    one_hot = {"image", *map(str.upper, CLASSES)} <= columns
    if not one_hot and not {"image_id", "dx"} <= columns:
        expected = f"image_id and dx, or image and {', '.join(map(str.upper, CLASSES))}"
        raise UserError(f"labels {path} has no rows or lacks columns; it needs {expected}")
    rows = sorted((_row(raw, one_hot) for raw in table), key=lambda row: row["image_id"])
    unknown = [row["image_id"] for row in rows if row["dx"] not in CLASSES]
    if unknown:
        known = ", ".join(CLASSES)
        raise UserError(f"labels {path}: {_some(unknown)} have no single diagnosis among {known}; correct them")
    twice = _repeated([row["image_id"] for row in rows])
    if twice:
        raise UserError(f"labels {path} list {_some(twice)} more than once; keep one row each")
    return rows


def find_images(path: Path) -> dict[str, Callable[[], bytes]]:
    """Image id (file name without suffix) → reader of its bytes, over a folder's subfolders or one zip."""
    if path.is_dir():
        files = [(file.name, file.read_bytes) for file in sorted(path.rglob("*")) if file.is_file()]
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"images {path} are neither a folder nor a readable zip ({error})") from None
        files = [(Path(member).name, partial(_member, archive, member)) for member in archive.namelist()]
    images = [
        (Path(name).stem, reader)
        for name, reader in files
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")  # macOS adds ._NAME.jpg to its zips
    ]
    twice = _repeated([name for name, _ in images])
    if twice:
        raise UserError(f"images {path} hold {_some(twice)} more than once; keep one file each")
    return dict(images)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        where = f"{name} in {archive.filename}"
        raise UserError(f"{where} cannot be unpacked ({error}); replace the zip") from None


def _row(raw: dict[str, str], one_hot: bool) -> dict[str, str]:
    image = (raw["image" if one_hot else "image_id"] or "").strip()
    if one_hot:
        marked = [name for name in CLASSES if _is_one(raw[name.upper()])]
        dx = marked[0] if len(marked) == 1 else ""
    else:
        dx = (raw["dx"] or "").strip()
    lesion = (raw.get("lesion_id") or "").strip()
    traits = dict.fromkeys(TRAITS, "")
    for column, name in (ISIC | {name: name for name in TRAITS}).items():
        traits[name] = (raw.get(column) or "").strip() or traits[name]
    return {"image_id": image, "lesion_id": lesion or image, "dx": dx, **traits}


def _is_one(value: str | None) -> bool:
    try:
        return float(value or 0) == 1
    except ValueError:
        return False


def match(rows: list[dict[str, str]], images: Iterable[str], labels: Path, folder: Path) -> None:
    """Every labelled image must be there; images without a label are named and left out."""
    labelled, present = {row["image_id"] for row in rows}, set(images)
    missing, extra = sorted(labelled - present), sorted(present - labelled)
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} images labelled in {labels} ({_some(missing)}); add them")
    if extra:
        print(f"note: {len(extra)} images without a label are left out ({_some(extra)})", file=sys.stderr)


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _some(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

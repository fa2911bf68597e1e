"""Somebody else's images and labels: what `dermdistill evaluate` reads.

Labels come in any form the pipeline reads (:mod:`dermdistill.ingest.forms`: HAM10000's table, ISIC's one-hot one, other
column names and words), images in a folder or zip, and the same rules refuse faulty ones. Age, sex and body site
are kept where the table has them, for the slices. Deliberately absent: guessing. A row without a single known
diagnosis, a missing image or a name that stands for two files is refused by name.
"""

import sys
from pathlib import Path

import pandas as pd

from dermdistill.errors import UserError
from dermdistill.ingest import forms, schema
from dermdistill.ingest.archives import Reader, find_images

NO_LESION = ("", "na", "n/a", "nan", "none", "null")  # ways to write that no lesion_id is known


def read_labels(path: Path) -> pd.DataFrame:
    """``image_id, lesion_id, dx, dx_type, age, sex, localization``, sorted by image; what is unknown is empty.

    An image without lesion_id, or with one of NO_LESION, is its own lesion: else all unknown ones would be one.

    Raises:
        UserError: if the file is missing or no such table, or rows have no single known diagnosis.
    """
    table = forms.labels(path)
    known = ~table["lesion_id"].str.strip().str.casefold().isin(NO_LESION)
    return schema.checked(table.assign(lesion_id=table["lesion_id"].where(known, table["image_id"])), f"labels {path}")


def match(table: pd.DataFrame, folder: Path, labels: Path) -> list[Reader]:
    """The reader of each row's image; images without a label are named and left out.

    Raises:
        UserError: if ``folder`` is no folder or zip, or lacks a labelled image.
    """
    images = find_images(folder)
    keys = table["image_id"].str.casefold()
    missing = list(table["image_id"][~keys.isin(list(images))])
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} images labelled in {labels} ({_some(missing)}); add them")
    extra = sorted(images.keys() - set(keys))
    if extra:
        print(f"note: {len(extra)} images without a label are left out ({_some(extra)})", file=sys.stderr)
    return [images[key] for key in keys]


def _some(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

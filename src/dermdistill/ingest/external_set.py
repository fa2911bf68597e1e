"""Reads an external set, somebody else's images and labels, for ``dermdistill evaluate``.

Labels come in any form that the pipeline reads (:mod:`dermdistill.ingest.forms`: HAM10000's table, ISIC's one-hot
table, other column names and words), images in a folder or zip. The rules that refuse faulty tables are the pipeline's
own. Age, sex and body site are kept where the table has them, for the subgroups.

Deliberately absent: guessing. A row without exactly one known diagnosis, a missing image, or a name that stands for
two files is refused by name.
"""

import sys
from pathlib import Path

import pandas as pd

from dermdistill.errors import UserError
from dermdistill.ingest import forms, schema
from dermdistill.ingest.archives import Reader, find_images

NO_LESION = ("", "na", "n/a", "nan", "none", "null")  # ways to write that the lesion_id is unknown


def read_labels(path: Path) -> pd.DataFrame:
    """``lesion_id, image_id, dx, dx_type, age, sex, localization``, ``patient_id`` if given; sorted by image_id.

    Unknown values are as HAM10000 writes them: no ``dx_type``, no age (NaN), ``unknown`` sex and site.
    An image whose lesion_id is one of NO_LESION is its own lesion; otherwise all of these would be one lesion.

    Raises:
        UserError: the file is missing or no such table, or a row has not exactly one known diagnosis.
    """
    table = forms.read_labels(path)
    lesion_id = table["lesion_id"].where(_known(table["lesion_id"]), table["image_id"])
    if "patient_id" in table:
        table = table.assign(patient_id=table["patient_id"].where(_known(table["patient_id"]), ""))
    return schema.checked(table.assign(lesion_id=lesion_id), f"labels {path}")


def _known(ids: pd.Series) -> pd.Series:
    return ~ids.str.strip().str.casefold().isin(NO_LESION)


def match(table: pd.DataFrame, folder: Path, labels: Path) -> list[Reader]:
    """The reader of each row's image. Prints a note that names the images without a label; they are left out.

    Args:
        table: the result of :func:`read_labels`.
        folder: folder or zip of images.
        labels: where ``table`` came from, for messages.

    Raises:
        UserError: ``folder`` is no folder or zip, or lacks a labelled image.
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

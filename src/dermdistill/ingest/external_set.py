"""Reads an external set, somebody else's images and labels, for ``dermdistill evaluate``.

Labels come in any form that the pipeline reads (:mod:`dermdistill.ingest.forms`: HAM10000's table, ISIC's, other
column names and words), images in a folder or zip. The rules that refuse faulty tables are the pipeline's own. Age, sex
and body site are kept where the table has them, for the subgroups.

Deliberately absent: guessing. A row without exactly one known diagnosis, a missing image, or a name that stands for
two files is refused by name.
"""

import sys
from pathlib import Path

import pandas as pd

from dermdistill.errors import UserError
from dermdistill.ingest import forms, schema, truth
from dermdistill.ingest.archives import Reader, find_images


def read_labels(path: Path, other: str = truth.REFUSE) -> pd.DataFrame:
    """``lesion_id, image_id, dx, dx_type, age, sex, localization``, and ``patient_id`` if given; sorted by image_id.

    Unknown values are as HAM10000 writes them: no ``dx_type``, no age (NaN), ``unknown`` sex and site. An image whose
    lesion_id is unknown is its own lesion. ``dx`` is ``rest`` where no more is known than that it is no melanoma.

    Args:
        other: what becomes of rows outside our seven: refuse, drop or rest (:func:`truth.settle`).

    Raises:
        UserError: the file is missing or no such table, or a row has not exactly one known diagnosis.
    """
    return schema.checked(forms.read_labels(path, other), f"labels {path}")


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

"""Another source of images, such as Derm7pt, in two fixed halves.

``other_val`` may guide a person's choice of recipe, ``other_test`` only judges. No stage that trains, calibrates or
chooses reads either. A hash of the lesion's id decides, so that no list, seed or table is needed and no image ever
changes sides. A lesion that HAM10000 shows too is in neither half.

Deliberately absent: stratification by diagnosis. It would need the labels of the half that only judges.
"""

import hashlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.parts import OTHER
from dermdistill.splitting import duplicates, overlap

AGAIN = "bis"  # ends the id of a second photograph of a lesion


def lesion_of(image_id: str) -> str:
    """The id that all photographs of a lesion share: ``A1l_Aal002bis`` shows the lesion of ``A1l_Aal002``."""
    return image_id.removesuffix(AGAIN)


def part_of(image_id: str) -> str:
    """``other_val`` or ``other_test``: whether the SHA-256 of the lesion's id, as a number, is even or odd."""
    return OTHER[hashlib.sha256(lesion_of(image_id).encode()).digest()[-1] % 2]


def halves(table: pd.DataFrame, shared: Iterable[str]) -> dict[str, pd.DataFrame]:
    """The tables of both halves, with the columns of ``table``.

    Args:
        table: with ``image_id, lesion_id``; lesions without an id of their own have that of their image.
        shared: ids of images that HAM10000 has too; their lesions are left out.
    """
    table = table.assign(lesion_id=table["lesion_id"].map(lesion_of))
    seen = table["lesion_id"][table["image_id"].isin(list(shared))]
    table = table[~table["lesion_id"].isin(seen)]
    parts = table["lesion_id"].map(part_of)
    return {part: table[parts == part] for part in OTHER}


def find_shared(
    images: np.ndarray, image_id: list[str], ham: np.ndarray, thresholds: duplicates.Thresholds
) -> dict[str, int]:
    """Image of the other source → row of the HAM10000 image that shows the same lesion.

    Found and confirmed as duplicate lesions within HAM10000 are, by geometry or equal pixels.

    Args:
        images: (m, H, W, 3) uint8 of the other source.
        image_id: their m ids.
        ham: (n, H, W, 3) uint8, all of HAM10000.
    """
    external = [partial(images.__getitem__, row) for row in range(len(images))]
    both = overlap.ConcatImages(ham, np.arange(len(ham)), external)
    return {image_id[j - len(ham)]: i for i, j in overlap.confirmed_across(both, thresholds)}


def counts(tables: dict[str, pd.DataFrame], shared: dict[str, str]) -> dict[str, Any]:
    """What a reader wants to know of the source: images and lesions by half, and what HAM10000 has too."""
    return {"shared_with_ham10000": shared} | {
        part: {"images": len(table), "lesions": int(table["lesion_id"].nunique())}
        | {"images_by_diagnosis": {str(dx): int(n) for dx, n in table["dx"].value_counts().sort_index().items()}}
        for part, table in tables.items()
    }

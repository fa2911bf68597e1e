"""Audits a split as its files record it: counts, and everything that could have leaked.

The parts are read back from the written tables, so that the audit covers what a training will read.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_table
from dermdistill.errors import UserError
from dermdistill.splitting.splits import PARTS, order_key


def read_parts(folder: Path) -> pd.Series:
    """Part of each image, indexed by image id, from the tables ``train.csv``, ``val.csv``, ``holdout.csv``.

    Raises:
        UserError: a table is missing, or an image is in two parts.
    """
    tables = {part: read_table(folder / f"{part}.csv") for part in PARTS}
    parts = pd.concat([pd.Series(part, index=table["image_id"]) for part, table in tables.items()])
    if parts.index.has_duplicates:
        raise UserError(f"{folder} has an image in two parts: the metadata name it twice; run `dvc repro prepare`")
    return parts


def audit(
    table: pd.DataFrame, part: pd.Series, shares: Mapping[str, float], duplicates: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Counts by part and diagnosis, leaks, and what a split by image would have leaked.

    Args:
        table: ``image_id, lesion_id, dx, pixels_sha256``, one row per image.
        part: of each image, indexed by image id, as :func:`read_parts` returns it.
        shares: part → share of lesions, for the split by image.
        duplicates: confirmed pairs ``lesion_a, lesion_b``; None leaves their counts out.
    """
    part = table["image_id"].map(part)
    by_image = table["image_id"].map(lambda name: _part_by_image(name, shares))
    assignment = sorted(zip(table["image_id"], part, strict=True))
    return {
        "images": {name: int((part == name).sum()) for name in PARTS},
        "lesions": {name: int(table["lesion_id"][part == name].nunique()) for name in PARTS},
        "images_by_diagnosis": {name: _counts(table["dx"][part == name]) for name in PARTS},
        "images_in_no_part": int(part.isna().sum()),
        "lesions_in_several_parts": _crossing(part, table["lesion_id"]),
        "identical_images_in_several_parts": _crossing(part, table["pixels_sha256"]),
        "lesions_with_conflicting_labels": _crossing(table["dx"], table["lesion_id"]),
        **_duplicates(table.assign(part=part), duplicates),
        "leaked_lesions_if_split_by_image": _crossing(by_image, table["lesion_id"]),
        "holdout_images_with_lesion_in_train_if_split_by_image": _seen_in_train(table, by_image),
        "sha256": hashlib.sha256("\n".join(f"{image} {name}" for image, name in assignment).encode()).hexdigest(),
    }


def _duplicates(table: pd.DataFrame, pairs: pd.DataFrame | None) -> dict[str, Any]:
    """Pairs of duplicate lesions, and those in several parts, which only a frozen split may have."""
    if pairs is None:
        return {}
    part = table.drop_duplicates("lesion_id").set_index("lesion_id")["part"]
    sides = sorted({(min(pair), max(pair)) for pair in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True)})
    crossing = [f"{a} {part[a]} / {b} {part[b]}" for a, b in sides if part[a] != part[b]]
    return {
        "duplicate_lesions": len(sides),
        "duplicate_lesions_in_several_parts": len(crossing),
        "crossing_duplicate_lesions": crossing,
    }


def _seen_in_train(table: pd.DataFrame, part: pd.Series) -> dict[str, float]:
    """Share of holdout images, of all and of melanomas, whose lesion is also in train."""
    holdout = part == "holdout"
    seen = table["lesion_id"].isin(table["lesion_id"][part == "train"])
    subsets = {"all": holdout, "mel": holdout & (table["dx"] == "mel")}
    return {name: round(float(seen[rows].mean()), 4) if rows.any() else 0.0 for name, rows in subsets.items()}


def _crossing(values: pd.Series, groups: pd.Series) -> int:
    """The number of groups in which more than one value occurs."""
    return int((values.groupby(groups).nunique() > 1).sum())


def _part_by_image(name: str, shares: Mapping[str, float]) -> str:
    """The part of an image in a split by image."""
    uniform = int.from_bytes(order_key(0, name)[:8]) / 2**64
    return "train" if uniform < shares["train"] else "val" if uniform < shares["train"] + shares["val"] else "holdout"


def _counts(dx: pd.Series) -> dict[str, int]:
    return {name: int((dx == name).sum()) for name in CLASSES}

"""Which lesion is trained on, which one chooses, which one judges.

A lesion is photographed up to six times and melanomas most often, so a split by image would leak
the positive class first; here a lesion falls into one part with all its images. Within each
diagnosis lesions are ordered by a seeded hash of their id and cut by largest remainder: the result
depends on nothing but ids, labels, seed and shares, not on row order or library versions.
An assignment made before is kept, so that growing data never moves a lesion between parts.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dermdistill.classes import CLASSES

PARTS = ("train", "val", "holdout")


def assign(
    table: pd.DataFrame, shares: Mapping[str, float], seed: int, previous: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Lesion id → part.

    Args:
        table: ``image_id, lesion_id, dx``, one row an image.
        shares: part → share of lesions, summing to 1.
        seed: changes the order of lesions.
        previous: lesion id → part of an earlier assignment; lesions in it stay where they are, new
            ones fill the part that is emptiest against its share within their diagnosis.
    """
    previous = previous or {}
    assignment: dict[str, str] = {}
    for lesions in lesions_by_diagnosis(table).values():
        kept = {lesion: previous[lesion] for lesion in lesions if lesion in previous}
        new = sorted((lesion for lesion in lesions if lesion not in previous), key=lambda lesion: _order(seed, lesion))
        assignment |= kept | (_extend(kept, new, shares) if kept else _cut(new, shares))
    return assignment


def lesions_by_diagnosis(table: pd.DataFrame) -> dict[str, list[str]]:
    """Diagnosis → its lesions. A lesion with conflicting labels counts under the most frequent one."""
    counts = (
        table.groupby("lesion_id")["dx"]
        .value_counts()
        .unstack(fill_value=0)
        .reindex(columns=list(CLASSES), fill_value=0)
    )
    diagnosis = counts.idxmax(axis=1)  # ties: the earlier class
    return {name: sorted(diagnosis.index[diagnosis == name]) for name in CLASSES}


def _order(seed: int, lesion: str) -> bytes:
    return hashlib.sha256(f"{seed}:{lesion}".encode()).digest()


def _cut(lesions: list[str], shares: Mapping[str, float]) -> dict[str, str]:
    exact = {part: shares[part] * len(lesions) for part in PARTS}
    sizes = {part: int(exact[part]) for part in PARTS}
    by_remainder = sorted(PARTS, key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: len(lesions) - sum(sizes.values())]:
        sizes[part] += 1
    labels = [part for part in PARTS for _ in range(sizes[part])]
    return dict(zip(lesions, labels, strict=True))


def _extend(kept: Mapping[str, str], new: list[str], shares: Mapping[str, float]) -> dict[str, str]:
    sizes = {part: sum(value == part for value in kept.values()) for part in PARTS}
    added = {}
    for lesion in new:
        total = sum(sizes.values()) + 1
        added[lesion] = emptiest = max(PARTS, key=lambda part: shares[part] * total - sizes[part])
        sizes[emptiest] += 1
    return added


def audit(table: pd.DataFrame, part: pd.Series, shares: Mapping[str, float]) -> dict[str, Any]:
    """Counts by part and diagnosis, and everything that could have leaked.

    Args:
        table: ``image_id, lesion_id, dx, pixels_sha256``.
        part: of each image, by image id, as read back from the files written: what they say, not what was meant.
        shares: part → share, for what a split by image would have leaked.
    """
    part = table["image_id"].map(part)
    by_image = table["image_id"].map(lambda name: _drawn_alone(name, shares))
    assignment = sorted(zip(table["image_id"], part, strict=True))
    return {
        "images": {name: int((part == name).sum()) for name in PARTS},
        "lesions": {name: int(table["lesion_id"][part == name].nunique()) for name in PARTS},
        "images_by_diagnosis": {name: _counts(table["dx"][part == name]) for name in PARTS},
        "images_in_no_part": int(part.isna().sum()),
        "lesions_in_several_parts": _crossing(part, table["lesion_id"]),
        "identical_images_in_several_parts": _crossing(part, table["pixels_sha256"]),
        "lesions_with_conflicting_labels": _crossing(table["dx"], table["lesion_id"]),
        "leaked_lesions_if_split_by_image": _crossing(by_image, table["lesion_id"]),
        "sha256": hashlib.sha256("\n".join(f"{image} {name}" for image, name in assignment).encode()).hexdigest(),
    }


def _crossing(values: pd.Series, groups: pd.Series) -> int:
    """In how many groups more than one value occurs."""
    return int((values.groupby(groups).nunique() > 1).sum())


def _drawn_alone(name: str, shares: Mapping[str, float]) -> str:
    """The part an image would fall into if each image were drawn for itself."""
    draw = int.from_bytes(_order(0, name)[:8]) / 2**64
    return "train" if draw < shares["train"] else "val" if draw < shares["train"] + shares["val"] else "holdout"


def _counts(dx: pd.Series) -> dict[str, int]:
    return {name: int((dx == name).sum()) for name in CLASSES}

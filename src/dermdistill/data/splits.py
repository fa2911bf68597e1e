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


def audit(table: pd.DataFrame, assignment: Mapping[str, str]) -> dict[str, Any]:
    """Counts by part and diagnosis, and everything that could have leaked.

    Args:
        table: ``image_id, lesion_id, dx, pixels_sha256``.
        assignment: lesion id → part.
    """
    part = table["lesion_id"].map(assignment)
    per_fingerprint = part.groupby(table["pixels_sha256"]).nunique()
    per_image = table["image_id"].map(lambda name: _cut_one(name))
    return {
        "images": {name: int((part == name).sum()) for name in PARTS},
        "lesions": {name: int(table["lesion_id"][part == name].nunique()) for name in PARTS},
        "images_by_diagnosis": {name: _counts(table["dx"][part == name]) for name in PARTS},
        "lesions_in_several_parts": int((part.groupby(table["lesion_id"]).nunique() > 1).sum()),
        "identical_images_in_several_parts": int((per_fingerprint > 1).sum()),
        "lesions_with_conflicting_labels": int((table.groupby("lesion_id")["dx"].nunique() > 1).sum()),
        "leaked_lesions_if_split_by_image": int((per_image.groupby(table["lesion_id"]).nunique() > 1).sum()),
        "sha256": hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(assignment.items())).encode()).hexdigest(),
    }


def _cut_one(name: str) -> str:
    """The part an image would fall into if each image were drawn for itself, 70/15/15."""
    draw = int.from_bytes(_order(0, name)[:8]) / 2**64
    return "train" if draw < 0.7 else "val" if draw < 0.85 else "holdout"


def _counts(dx: pd.Series) -> dict[str, int]:
    return {name: int((dx == name).sum()) for name in CLASSES}

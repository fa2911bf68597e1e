"""Which lesion is trained on, which one chooses, which one judges.

A lesion is photographed up to six times and melanomas most often, so a split by image would leak
the positive class first; here a lesion falls into one part with all its images. Within each
diagnosis lesions are ordered by a seeded hash of their id and cut by largest remainder: the result
depends on nothing but ids, labels, seed and shares, not on row order or library versions.

An assignment made before is kept, so that growing data never moves a lesion between parts. Lesions that the
audit found to be one ("twins") are drawn as one. If an earlier assignment has them in several parts, they go to
the most exposed of these (train before val before holdout): what judges never gains a lesion that was seen.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError

PARTS = ("train", "val", "holdout")  # the most exposed first


def assign(
    table: pd.DataFrame,
    shares: Mapping[str, float],
    seed: int,
    previous: Mapping[str, str] | None = None,
    twins: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Lesion id → part.

    Args:
        table: ``image_id, lesion_id, dx``, one row an image.
        shares: part → share of lesions, summing to 1.
        seed: changes the order of lesions.
        previous: lesion id → part of an earlier assignment; lesions in it stay where they are (but for
            twins), new ones fill the part that is emptiest against its share within their diagnosis.
        twins: lesion id → name of its group, from :func:`twin_groups`; a group falls into one part whole:
            that of ``previous``, the most exposed one if there are several.
    """
    previous, twins = previous or {}, twins or {}
    before: dict[str, str] = {}  # group → part
    for lesion, part in previous.items():
        group = twins.get(lesion, lesion)
        before[group] = min(part, before.get(group, part), key=PARTS.index)
    assignment: dict[str, str] = {}
    for names in lesions_by_diagnosis(_grouped(table, twins)).values():
        kept = {name: before[name] for name in names if name in before}
        new = sorted((name for name in names if name not in before), key=lambda name: _order(seed, name))
        assignment |= kept | (_extend(kept, new, shares) if kept else _cut(new, shares))
    return {lesion: assignment[twins.get(lesion, lesion)] for lesion in sorted(table["lesion_id"].unique())}


def kept(before: Mapping[str, Any], settings: Mapping[str, float], lesions: pd.Series) -> dict[str, str]:
    """Lesion id → part as a committed assignment says; nothing if that was made with other parameters.

    A given split is kept whatever the parameters, and must have all ``lesions``.

    Raises:
        UserError: when a given split lacks some.
    """
    if not before.get("frozen"):
        return dict(before["lesions"]) if before.get("settings") == settings else {}
    new = sorted(set(lesions) - set(before["lesions"]))
    if new:
        raise UserError(
            f"the given split in data/splits/assignment.json lacks {len(new)} lesions ({_some(new)}); give one that "
            "has them with `dermdistill split TABLE`, or delete that file for a split of our own"
        )
    return dict(before["lesions"])


def folds(table: pd.DataFrame, count: int, seed: int, twins: Mapping[str, str] | None = None) -> dict[str, int]:
    """Lesion id → fold from 0 to ``count - 1``, each diagnosis dealt evenly; for cross-validation on ``table``.

    Unlike parts, folds are dealt anew when data are added.
    """
    twins = twins or {}
    dealt: dict[str, int] = {}
    for names in lesions_by_diagnosis(_grouped(table, twins)).values():
        for name in sorted(names, key=lambda name: _order(seed, name)):
            dealt[name] = len(dealt) % count
    return {lesion: dealt[twins.get(lesion, lesion)] for lesion in sorted(table["lesion_id"].unique())}


def twin_groups(pairs: pd.DataFrame) -> dict[str, str]:
    """Lesion → first lesion, by name, of the group that the rows ``lesion_a, lesion_b`` join it to."""
    first: dict[str, str] = {}

    def root(lesion: str) -> str:
        while first.setdefault(lesion, lesion) != lesion:
            lesion = first[lesion]
        return lesion

    for a, b in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True):
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return {lesion: root(lesion) for lesion in sorted(first)}


def given(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, str]:
    """Lesion id → part, from somebody's own split by image or by lesion.

    Args:
        rows: ``part`` and either ``lesion_id`` or ``image_id``.
        table: ``image_id, lesion_id`` of the data.

    Raises:
        ValueError: when a part or id is unknown, a lesion would cross, or one is left out; says which.
    """
    unknown = sorted(set(rows["part"].fillna("")) - set(PARTS))
    if unknown:
        raise ValueError(f"knows the parts {', '.join(map(repr, unknown))}, which are none of {', '.join(PARTS)}")
    key = "lesion_id" if "lesion_id" in rows else "image_id"
    if strangers := sorted(set(rows[key].fillna("")) - set(table[key])):
        raise ValueError(f"names {len(strangers)} {key}s that the data lack ({_some(strangers)})")
    merged = table[["image_id", "lesion_id"]].merge(rows[[key, "part"]].drop_duplicates(), on=key, how="left")
    crossing = sorted(str(name) for name, parts in merged.groupby("lesion_id")["part"] if parts.nunique() > 1)
    if crossing:
        raise ValueError(f"puts images of one lesion into several parts ({_some(crossing)})")
    without = sorted(merged["lesion_id"][merged.groupby("lesion_id")["part"].transform("count") == 0].unique())
    if without:
        raise ValueError(f"leaves out {len(without)} lesions of the data ({_some(without)})")
    known = merged.dropna(subset="part").drop_duplicates("lesion_id")
    return dict(sorted(zip(known["lesion_id"], known["part"], strict=True)))


def _grouped(table: pd.DataFrame, twins: Mapping[str, str]) -> pd.DataFrame:
    """``table`` with the group's name for its lesions."""
    return table.assign(lesion_id=table["lesion_id"].map(lambda lesion: twins.get(lesion, lesion)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


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


def audit(
    table: pd.DataFrame, part: pd.Series, shares: Mapping[str, float], twins: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Counts by part and diagnosis, and everything that could have leaked.

    Args:
        table: ``image_id, lesion_id, dx, pixels_sha256``.
        part: of each image, by image id, as read back from the files written: what they say, not what was meant.
        shares: part → share, for what a split by image would have leaked.
        twins: confirmed pairs ``image_a, image_b, lesion_a, lesion_b`` of the leakage audit.
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
        **_twins(table.assign(part=part), twins),
        "leaked_lesions_if_split_by_image": _crossing(by_image, table["lesion_id"]),
        "holdout_images_with_lesion_in_train_if_split_by_image": _seen_before(table, by_image),
        "sha256": hashlib.sha256("\n".join(f"{image} {name}" for image, name in assignment).encode()).hexdigest(),
    }


def _twins(table: pd.DataFrame, pairs: pd.DataFrame | None) -> dict[str, Any]:
    """Confirmed twins and those that stand in several parts, which a given split may have."""
    if pairs is None:
        return {}
    part = table.drop_duplicates("lesion_id").set_index("lesion_id")["part"]
    sides = sorted({(min(pair), max(pair)) for pair in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True)})
    crossing = [f"{a} {part[a]} / {b} {part[b]}" for a, b in sides if part[a] != part[b]]
    return {
        "twin_lesions": len(sides),
        "twin_lesions_in_several_parts": len(crossing),
        "crossing_twin_lesions": crossing,
    }


def _seen_before(table: pd.DataFrame, part: pd.Series) -> dict[str, float]:
    """Share of holdout images, of all and of melanomas, whose lesion is also in train."""
    holdout = part == "holdout"
    seen = table["lesion_id"].isin(table["lesion_id"][part == "train"])
    kinds = {"all": holdout, "mel": holdout & (table["dx"] == "mel")}
    return {name: round(float(seen[rows].mean()), 4) if rows.any() else 0.0 for name, rows in kinds.items()}


def _crossing(values: pd.Series, groups: pd.Series) -> int:
    """In how many groups more than one value occurs."""
    return int((values.groupby(groups).nunique() > 1).sum())


def _drawn_alone(name: str, shares: Mapping[str, float]) -> str:
    """The part an image would fall into if each image were drawn for itself."""
    draw = int.from_bytes(_order(0, name)[:8]) / 2**64
    return "train" if draw < shares["train"] else "val" if draw < shares["train"] + shares["val"] else "holdout"


def _counts(dx: pd.Series) -> dict[str, int]:
    return {name: int((dx == name).sum()) for name in CLASSES}

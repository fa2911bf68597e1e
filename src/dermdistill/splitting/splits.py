"""Assigns every lesion to train, val or holdout.

A lesion is photographed up to six times, and melanomas most often. A split by image would therefore leak the positive
class first; here a lesion goes into one part with all its images. Within each diagnosis the lesions are ordered by a
seeded hash of their id and cut by largest remainder. The result depends on ids, labels, seed and shares alone, not on
the order of rows or the version of a library.

An earlier assignment is kept, so that growing data never moves a lesion between parts. The lesions of a group of
duplicates (:mod:`dermdistill.splitting.duplicates`) are drawn as one. If an earlier assignment has them in several
parts, all go to the most exposed of these (train before val before holdout): no part that judges gains a lesion that
was trained on.

Deliberately absent: stratification by anything but the diagnosis.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError

PARTS = ("train", "val", "holdout")  # the most exposed first
COLUMNS = ["image_id", "lesion_id", "dx", "dx_type"]  # of the table of a part


class Splits(NamedTuple):
    """A split of the data, and how it came about."""

    assignment: dict[str, Any]  # to be committed: settings, and the part of every lesion ever assigned with them
    tables: dict[str, pd.DataFrame]  # part → its images, :data:`COLUMNS` and perhaps ``fold``
    lesions: int
    newly_assigned: int
    moved: int  # lesions that joined a duplicate in a more exposed part


def make_splits(
    table: pd.DataFrame,
    duplicates: pd.DataFrame,
    settings: Mapping[str, float],
    num_folds: int,
    committed: Mapping[str, Any],
) -> Splits:
    """Split ``table``, keeping the ``committed`` assignment.

    Args:
        table: ``image_id, lesion_id, dx, dx_type``, one row per image.
        duplicates: confirmed pairs, ``lesion_a, lesion_b``.
        settings: ``seed``, and the shares ``val`` and ``holdout``.
        num_folds: of train and val, for cross-validation; 0 for none.
        committed: ``Splits.assignment`` of an earlier run; empty if there is none.

    Raises:
        UserError: the committed assignment is frozen and lacks a lesion.
    """
    groups, seed = duplicate_groups(duplicates), int(settings["seed"])
    previous = previous_assignment(committed, settings, table["lesion_id"])
    frozen = {"frozen": True} if committed.get("frozen") else {}  # somebody's own split is kept as it is
    lesions = assign(table, shares(settings), seed, previous, {} if frozen else groups)
    return Splits(
        {"settings": dict(settings)} | frozen | {"lesions": dict(sorted((previous | lesions).items()))},
        part_tables(table, lesions, num_folds, seed, groups),
        len(lesions),
        len(lesions.keys() - previous.keys()),
        sum(previous.get(lesion, part) != part for lesion, part in lesions.items()),
    )


def shares(settings: Mapping[str, float]) -> dict[str, float]:
    """Part → its share of lesions, summing to 1."""
    return {"train": 1 - settings["val"] - settings["holdout"]} | {part: settings[part] for part in PARTS[1:]}


def part_tables(
    table: pd.DataFrame, lesions: Mapping[str, str], num_folds: int, seed: int, groups: Mapping[str, str]
) -> dict[str, pd.DataFrame]:
    """Part → its rows of ``table``, in order; train and val get a column ``fold`` if ``num_folds`` is not 0."""
    part = table["lesion_id"].map(lesions)
    if num_folds:
        fold = folds(table[part != "holdout"], num_folds, seed, groups)
        table = table.assign(fold=table["lesion_id"].map(fold))
    with_fold = [*COLUMNS, "fold"]
    return {name: table[part == name][with_fold if num_folds and name != "holdout" else COLUMNS] for name in PARTS}


def assign(
    table: pd.DataFrame,
    shares: Mapping[str, float],
    seed: int,
    previous: Mapping[str, str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Lesion id → part.

    Args:
        table: ``image_id, lesion_id, dx``, one row per image.
        shares: part → share of lesions, summing to 1.
        seed: changes the order of lesions.
        previous: lesion id → part of an earlier assignment. Its lesions stay where they are, except for duplicates;
            new lesions fill the part of their diagnosis that lacks most of its share.
        groups: lesion id → its group, from :func:`duplicate_groups`. A group goes into one part: that of
            ``previous``, the most exposed one if there are several.
    """
    previous, groups = previous or {}, groups or {}
    before: dict[str, str] = {}  # group → part
    for lesion, part in previous.items():
        group = groups.get(lesion, lesion)
        before[group] = min(part, before.get(group, part), key=PARTS.index)
    assignment: dict[str, str] = {}
    for names in lesions_by_diagnosis(_grouped(table, groups)).values():
        kept = {name: before[name] for name in names if name in before}
        new = sorted((name for name in names if name not in before), key=lambda name: order_key(seed, name))
        assignment |= kept | (_extend(kept, new, shares) if kept else _cut(new, shares))
    return {lesion: assignment[groups.get(lesion, lesion)] for lesion in sorted(table["lesion_id"].unique())}


def previous_assignment(
    committed: Mapping[str, Any], settings: Mapping[str, float], lesions: pd.Series
) -> dict[str, str]:
    """Lesion id → part of the ``committed`` assignment; empty if that was made with other settings.

    A frozen assignment is kept whatever the settings.

    Raises:
        UserError: a frozen assignment lacks some of ``lesions``.
    """
    if not committed.get("frozen"):
        return dict(committed["lesions"]) if committed.get("settings") == settings else {}
    new = sorted(set(lesions) - set(committed["lesions"]))
    if new:
        raise UserError(
            f"the given split in data/splits/assignment.json lacks {len(new)} lesions ({_some(new)}); give one that "
            "has them with `dermdistill split TABLE`, or delete that file for a split of our own"
        )
    return dict(committed["lesions"])


def folds(table: pd.DataFrame, count: int, seed: int, groups: Mapping[str, str] | None = None) -> dict[str, int]:
    """Lesion id → fold from 0 to ``count - 1``, for cross-validation on ``table``.

    Each diagnosis is dealt evenly. Unlike parts, folds are dealt anew when data are added.
    """
    groups = groups or {}
    dealt: dict[str, int] = {}
    for names in lesions_by_diagnosis(_grouped(table, groups)).values():
        for name in sorted(names, key=lambda name: order_key(seed, name)):
            dealt[name] = len(dealt) % count
    return {lesion: dealt[groups.get(lesion, lesion)] for lesion in sorted(table["lesion_id"].unique())}


def duplicate_groups(pairs: pd.DataFrame) -> dict[str, str]:
    """Lesion id → its group, which is the first of its lesion ids; the rows ``lesion_a, lesion_b`` join the groups."""
    first: dict[str, str] = {}

    def root(lesion: str) -> str:
        while first.setdefault(lesion, lesion) != lesion:
            lesion = first[lesion]
        return lesion

    for a, b in zip(pairs["lesion_a"], pairs["lesion_b"], strict=True):
        low, high = sorted((root(a), root(b)))
        first[high] = low
    return {lesion: root(lesion) for lesion in sorted(first)}


def custom_assignment(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, str]:
    """Lesion id → part of somebody's own split, which is by image or by lesion.

    Args:
        rows: ``part`` and either ``lesion_id`` or ``image_id``.
        table: ``image_id, lesion_id`` of the data.

    Raises:
        ValueError: a part or id is unknown, a lesion would be in several parts, or one is left out; says which.
    """
    unknown = sorted(set(rows["part"].fillna("")) - set(PARTS))
    if unknown:
        raise ValueError(f"knows the parts {', '.join(map(repr, unknown))}, which are none of {', '.join(PARTS)}")
    key = "lesion_id" if "lesion_id" in rows else "image_id"
    if absent := sorted(set(rows[key].fillna("")) - set(table[key])):
        raise ValueError(f"names {len(absent)} {key}s that the data lack ({_some(absent)})")
    merged = table[["image_id", "lesion_id"]].merge(rows[[key, "part"]].drop_duplicates(), on=key, how="left")
    crossing = sorted(str(name) for name, parts in merged.groupby("lesion_id")["part"] if parts.nunique() > 1)
    if crossing:
        raise ValueError(f"puts images of one lesion into several parts ({_some(crossing)})")
    without = sorted(merged["lesion_id"][merged.groupby("lesion_id")["part"].transform("count") == 0].unique())
    if without:
        raise ValueError(f"leaves out {len(without)} lesions of the data ({_some(without)})")
    assigned = merged.dropna(subset="part").drop_duplicates("lesion_id")
    return dict(sorted(zip(assigned["lesion_id"], assigned["part"], strict=True)))


def require_both_sides(assignment: Mapping[str, str], table: pd.DataFrame) -> None:
    """Raise ValueError unless each part has melanomas and others: else nothing can be trained, chosen or judged there.

    Args:
        assignment: lesion id → part.
        table: ``lesion_id, dx`` of the data.
    """
    part, melanoma = table["lesion_id"].map(assignment), table["dx"] == "mel"
    for name in PARTS:
        here = melanoma[part == name]
        if here.all() or not here.any():  # an empty part is both
            what = "no image" if here.empty else "nothing but melanoma" if here.all() else "no melanoma"
            raise ValueError(f"puts {what} into {name}, so that nothing can be trained, chosen or judged there")


def lesions_by_diagnosis(table: pd.DataFrame) -> dict[str, list[str]]:
    """Diagnosis → its lesion ids, sorted. A lesion with conflicting labels counts under the most frequent one."""
    counts = (
        table.groupby("lesion_id")["dx"]
        .value_counts()
        .unstack(fill_value=0)
        .reindex(columns=list(CLASSES), fill_value=0)
    )
    diagnosis = counts.idxmax(axis=1)  # ties: the earlier class
    return {name: sorted(diagnosis.index[diagnosis == name]) for name in CLASSES}


def order_key(seed: int, name: str) -> bytes:
    """The hash that orders lesions: 32 bytes."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _grouped(table: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """``table`` with the group in place of the lesion id."""
    return table.assign(lesion_id=table["lesion_id"].map(lambda lesion: groups.get(lesion, lesion)))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _cut(lesions: list[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Cut ordered lesions into parts by largest remainder."""
    exact = {part: shares[part] * len(lesions) for part in PARTS}
    sizes = {part: int(exact[part]) for part in PARTS}
    by_remainder = sorted(PARTS, key=lambda part: sizes[part] - exact[part])
    for part in by_remainder[: len(lesions) - sum(sizes.values())]:
        sizes[part] += 1
    labels = [part for part in PARTS for _ in range(sizes[part])]
    return dict(zip(lesions, labels, strict=True))


def _extend(kept: Mapping[str, str], new: list[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Put each of ``new`` into the part that lacks most of its share."""
    sizes = {part: sum(value == part for value in kept.values()) for part in PARTS}
    added = {}
    for lesion in new:
        total = sum(sizes.values()) + 1
        added[lesion] = emptiest = max(PARTS, key=lambda part: shares[part] * total - sizes[part])
        sizes[emptiest] += 1
    return added

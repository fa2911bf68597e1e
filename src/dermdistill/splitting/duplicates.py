"""Leakage that lesion ids do not show: photographs of one lesion that carry two ids ("twins").

Two cheap searches propose pairs (:mod:`dermdistill.splitting.candidates`), a geometric check confirms some of them
(:mod:`dermdistill.splitting.geometry`), as equal pixels do, and lesions joined by a confirmed pair stand in one part of
the split (:mod:`dermdistill.splitting.splits`). The thresholds were set on HAM10000 by looking:
``duplicate_labels.csv`` holds the pairs that were looked at and the verdicts, :func:`precision` measures against them.

Deliberately absent: closing groups over unconfirmed pairs, and any use of the diagnosis to confirm.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from dermdistill.errors import UserError
from dermdistill.splitting import candidates, geometry, splits

COLUMNS = ["image_a", "image_b", "lesion_a", "lesion_b", "dx_a", "dx_b"]
MEASURED = ["inliers", "scale", "correlation"]
VERDICTS = ("same", "different", "unsure")
LABELS = Path(__file__).with_name("duplicate_labels.csv")
CHUNK = 512  # items handed to the threads at once


class Images(Protocol):
    """Pictures (H, W, 3) uint8 of one size, by number: an array, or whatever reads them when they are looked at."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> np.ndarray: ...


class Thresholds(NamedTuple):
    """What makes a candidate (``votes`` or ``hash_distance``), and what confirms it (both others, or equal pixels)."""

    votes: int
    hash_distance: int
    inliers: int
    correlation: float


class Descriptors(NamedTuple):
    """Per picture: a perceptual hash (n,) uint64, and its local features."""

    codes: np.ndarray
    features: list[geometry.Features]


def describe(images: Images) -> Descriptors:
    """Of prepared images, mapped from disk: some 20 kB of features stay in memory for each."""
    cv2.setNumThreads(1)  # the pool below is what runs in parallel

    def one(i: int) -> tuple[np.uint64, geometry.Features]:
        plane = geometry.grey(images[i])
        return candidates.phash(plane), geometry.features(plane)

    found = list(_parallel(one, range(len(images)), "fingerprints"))
    return Descriptors(np.array([code for code, _ in found], np.uint64), [features for _, features in found])


def propose(known: Descriptors, thresholds: Thresholds) -> np.ndarray:
    """Candidate pairs (m, 2), i < j, sorted: enough shared features, or nearly equal hashes."""
    voted = candidates.voted([one.descriptors for one in known.features], thresholds.votes)
    return np.unique(np.concatenate([voted, candidates.near(known.codes, thresholds.hash_distance)]), axis=0)


def verify(
    images: Images, features: Sequence[geometry.Features], pairs: np.ndarray, thresholds: Thresholds
) -> pd.DataFrame:
    """What :func:`geometry.match` measures for each pair, and ``confirmed``: by that, or by equal pixels."""

    def one(pair: np.ndarray) -> tuple[float, float, float, bool]:
        i, j = map(int, pair)
        a, b = images[i], images[j]
        return (*geometry.match(geometry.grey(a), geometry.grey(b), features[i], features[j]), np.array_equal(a, b))

    table = pd.DataFrame(list(_parallel(one, pairs, "geometry")), columns=[*MEASURED, "equal"])
    return table.assign(confirmed=confirms(table, thresholds) | table.pop("equal").astype(bool))


def confirms(table: pd.DataFrame, thresholds: Thresholds) -> pd.Series:
    """Which measured pairs show one piece of skin."""
    return (table["inliers"] >= thresholds.inliers) & (table["correlation"] >= thresholds.correlation)


def find(images: Images, metadata: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """Every candidate pair with what was measured, confirmed ones first, strongest first.

    Pairs within a lesion are kept too (``lesion_a == lesion_b``): what share of them is found and confirmed is
    the audit's own sensitivity.
    """
    known = describe(images)
    pairs = propose(known, thresholds)
    names = metadata[["image_id", "lesion_id", "dx"]]
    sides = [names.iloc[pairs[:, side]].reset_index(drop=True).add_suffix(f"_{'ab'[side]}") for side in (0, 1)]
    table = pd.concat([*sides, verify(images, known.features, pairs, thresholds)], axis=1)
    table = table.rename(columns={"image_id_a": "image_a", "image_id_b": "image_b"})
    table = table.rename(columns={"lesion_id_a": "lesion_a", "lesion_id_b": "lesion_b"})
    order = ["confirmed", "inliers", "correlation", "image_a", "image_b"]
    table = table.sort_values(order, ascending=[False, False, False, True, True], ignore_index=True)
    return table[[*COLUMNS, *MEASURED, "confirmed"]].round({"scale": 3, "correlation": 4})


def summary(pairs: pd.DataFrame, metadata: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Any]:
    """Counts of candidates and confirmed twins, conflicts of label, sensitivity within lesions, precision by eye."""
    within = pairs["lesion_a"] == pairs["lesion_b"]
    across, twins = pairs[~within], pairs[~within & pairs["confirmed"]]
    conflicts = twins[twins["dx_a"] != twins["dx_b"]]
    per_lesion = metadata.groupby("lesion_id").size()
    possible = int((per_lesion * (per_lesion - 1) // 2).sum())
    return {
        "candidates_of_different_lesions": len(across),
        "confirmed_twins": len(twins),
        "lesions_with_a_twin": len(set(twins["lesion_a"]) | set(twins["lesion_b"])),
        "groups_of_twin_lesions": len(set(splits.twin_groups(twins).values())),
        "twins_with_conflicting_labels": len(conflicts),
        "conflicting_labels": [f"{a} {x} / {b} {y}" for a, b, x, y in conflicts[_PAIR].itertuples(index=False)],
        "within_lesions": {
            "pairs": possible,
            "candidates": int(within.sum()),
            "confirmed": int((within & pairs["confirmed"]).sum()),
        },
        "labelled_by_eye": precision(pairs, labels),
    }


_PAIR = ["image_a", "image_b", "dx_a", "dx_b"]


def precision(pairs: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Any]:
    """Confirmed and rejected pairs against the verdicts of an eye: ``same``, ``different``, ``unsure``."""
    seen = labels.merge(pairs, on=["image_a", "image_b"], how="inner", suffixes=("_then", ""))
    told = seen[seen["verdict"] != "unsure"]
    same = told["verdict"] == "same"
    confirmed = told["confirmed"].astype(bool)
    count = int(confirmed.sum())
    return {
        "pairs": len(labels),
        "pairs_that_are_candidates_now": len(seen),
        "unsure": int((seen["verdict"] == "unsure").sum()),
        "confirmed_and_same": int((confirmed & same).sum()),
        "confirmed_but_different": int((confirmed & ~same).sum()),
        "rejected_but_same": int((~confirmed & same).sum()),
        "rejected_and_different": int((~confirmed & ~same).sum()),
        "precision_of_confirmed": round(float(same[confirmed].mean()), 4) if count else None,
    }


def read_labels(path: str | Path = LABELS) -> pd.DataFrame:
    """``image_a, image_b, verdict``: what was seen by looking at both pictures side by side."""
    table = pd.read_csv(path, dtype=str)
    if not {"image_a", "image_b", "verdict"} <= set(table) or not table["verdict"].isin(VERDICTS).all():
        raise UserError(f"{path} needs image_a, image_b and verdict ({', '.join(VERDICTS)}); correct the table")
    return table


def _parallel(function: Callable[[Any], Any], items: Sequence[Any] | np.ndarray, name: str) -> Any:
    """``function`` of each item in order, by threads (OpenCV works outside the interpreter's lock)."""
    with ThreadPoolExecutor() as pool, tqdm(total=len(items), desc=name, mininterval=5) as bar:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                bar.update()

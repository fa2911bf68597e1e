"""Finds duplicate lesions: photographs of one lesion that carry two lesion ids, which a split by lesion id would leak.

Two cheap searches propose candidate pairs (:mod:`dermdistill.splitting.candidates`). What confirms a pair is named in
``audit.confirmed_by``, each alone sufficient: a geometric check (:mod:`dermdistill.splitting.geometry`), equal pixels,
the verdict "same" of somebody who looked at both (``duplicate_labels.csv``), or a published list
(``published_duplicates.csv``). A pair of these two lists need be no candidate. The split
(:mod:`dermdistill.splitting.splits`) puts lesions that a confirmed pair joins into one part. The thresholds were set on
HAM10000 by eye, and :func:`precision` compares the check with the labels.

Deliberately absent: groups joined by unconfirmed pairs, any use of the diagnosis to confirm a pair, and a verdict
"different" that overrules what confirms one.

Source of the published list: 18 pairs of HAM10000 that the Corrected-Skin-Image-Datasets project found and confirmed
(Abhishek, Jain and Hamarneh, arXiv 2401.14497).
"""

from collections.abc import Callable, Mapping, Sequence
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
MEASURES = ["geometry", "pixels"]  # what confirms a pair without anybody having looked
VERDICTS = ("same", "different", "unsure")
LABELS = Path(__file__).with_name("duplicate_labels.csv")
PUBLISHED = Path(__file__).with_name("published_duplicates.csv")
_SIDES = ["image_a", "image_b", "dx_a", "dx_b"]
CHUNK = 512  # items handed to the threads at once


class Images(Protocol):
    """Images (H, W, 3) uint8 of one size, by number: an array, or an object that reads each one when it is indexed."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> np.ndarray: ...


class Thresholds(NamedTuple):
    """A pair is a candidate by ``votes`` or ``hash_distance``; ``inliers`` and ``correlation`` together confirm it."""

    votes: int
    hash_distance: int
    inliers: int
    correlation: float


class Descriptors(NamedTuple):
    """Of n images: perceptual hashes ``codes`` (n,) uint64, and n sets of local features."""

    codes: np.ndarray
    features: list[geometry.Features]


def compute_descriptors(images: Images) -> Descriptors:
    """Hash and local features of every image; the features need some 20 kB of memory per image."""
    cv2.setNumThreads(1)  # the pool below is what runs in parallel

    def one(i: int) -> tuple[np.uint64, geometry.Features]:
        plane = geometry.grey(images[i])
        return candidates.phash(plane), geometry.features(plane)

    results = list(_parallel(one, range(len(images)), "descriptors"))
    return Descriptors(np.array([code for code, _ in results], np.uint64), [features for _, features in results])


def propose(descriptors: Descriptors, thresholds: Thresholds) -> np.ndarray:
    """Candidate pairs (m, 2) int64, i < j, sorted: they share enough features, or their hashes are nearly equal."""
    voted = candidates.voted([features.descriptors for features in descriptors.features], thresholds.votes)
    return np.unique(np.concatenate([voted, candidates.near(descriptors.codes, thresholds.hash_distance)]), axis=0)


def verify(
    images: Images, features: Sequence[geometry.Features], pairs: np.ndarray, thresholds: Thresholds
) -> pd.DataFrame:
    """Compare each of ``pairs`` (m, 2); ``features`` are those of all images.

    Returns:
        m rows: ``inliers, scale, correlation`` (:class:`geometry.Match`), and whether each of :data:`MEASURES`
        confirms the pair: ``geometry``, these three by the thresholds; ``pixels``, all of them equal.
    """

    def one(pair: np.ndarray) -> tuple[float, float, float, bool]:
        i, j = map(int, pair)
        a, b = images[i], images[j]
        return (*geometry.match(geometry.grey(a), geometry.grey(b), features[i], features[j]), np.array_equal(a, b))

    table = pd.DataFrame(list(_parallel(one, pairs, "geometry")), columns=[*MEASURED, "pixels"])
    return table.assign(geometry=confirms(table, thresholds), pixels=table["pixels"].astype(bool))


def confirms(table: pd.DataFrame, thresholds: Thresholds) -> pd.Series:
    """Which rows of ``inliers, correlation`` reach both thresholds: (m,) bool."""
    return (table["inliers"] >= thresholds.inliers) & (table["correlation"] >= thresholds.correlation)


def find_pairs(
    images: Images,
    metadata: pd.DataFrame,
    thresholds: Thresholds,
    confirmed_by: Sequence[str],
    lists: Mapping[str, pd.DataFrame],
) -> pd.DataFrame:
    """Every candidate or listed pair with its measurements, confirmed pairs first, most inliers first.

    Pairs within a lesion (``lesion_a == lesion_b``) stay in the table: the share of them that is confirmed measures the
    sensitivity of the audit.

    Args:
        images: N images.
        metadata: ``image_id, lesion_id, dx``, N rows in the same order.
        thresholds: of candidates and of the geometric check.
        confirmed_by: what confirms a pair: some of :data:`MEASURES` and of the names of ``lists``.
        lists: name → pairs ``image_a, image_b``; those of images that are not in ``metadata`` are left out.

    Returns:
        ``image_a, image_b, lesion_a, lesion_b, dx_a, dx_b, inliers, scale, correlation, confirmed, confirmed_by``, the
        last with blanks between names.
    """
    descriptors = compute_descriptors(images)
    listed = {name: _numbers(lists[name], metadata) for name in confirmed_by if name not in MEASURES}
    proposed = propose(descriptors, thresholds)
    pairs = np.unique(np.concatenate([proposed, *listed.values()]), axis=0)
    measured = verify(images, descriptors.features, pairs, thresholds)
    found = {name: set(map(tuple, rows.tolist())) for name, rows in listed.items()}
    says = {name: [tuple(pair) in found[name] for pair in pairs.tolist()] for name in found}
    candidate = pd.Series(map(set(map(tuple, proposed.tolist())).__contains__, map(tuple, pairs.tolist())), dtype=bool)
    says |= {name: (candidate & measured.pop(name)).tolist() for name in MEASURES}  # else lists would flatter precision
    by = [" ".join(name for name in confirmed_by if says[name][row]) for row in range(len(pairs))]
    names = metadata[["image_id", "lesion_id", "dx"]]
    sides = [names.iloc[pairs[:, side]].reset_index(drop=True).add_suffix(f"_{'ab'[side]}") for side in (0, 1)]
    table = pd.concat([*sides, measured], axis=1).assign(confirmed_by=by)
    table = table.assign(confirmed=table["confirmed_by"] != "")
    table = table.rename(columns={"image_id_a": "image_a", "image_id_b": "image_b"})
    table = table.rename(columns={"lesion_id_a": "lesion_a", "lesion_id_b": "lesion_b"})
    order = ["confirmed", "inliers", "correlation", "image_a", "image_b"]
    table = table.sort_values(order, ascending=[False, False, False, True, True], ignore_index=True)
    return table[[*COLUMNS, *MEASURED, "confirmed", "confirmed_by"]].round({"scale": 3, "correlation": 4})


def confirmed_duplicates(pairs: pd.DataFrame) -> pd.DataFrame:
    """The rows of :func:`find_pairs` that are confirmed and have different lesion ids."""
    return pairs[pairs["confirmed"] & (pairs["lesion_a"] != pairs["lesion_b"])]


def summary(pairs: pd.DataFrame, metadata: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Any]:
    """Counts of candidates and duplicates, conflicting diagnoses, sensitivity within lesions, precision by eye.

    Sensitivity and precision are those of :data:`MEASURES`: lists would confirm what they are made of. Duplicates that
    a list confirms are counted once more under its name.

    Args:
        pairs: the result of :func:`find_pairs`.
        metadata: ``image_id, lesion_id``, one row per image.
        labels: the result of :func:`read_labels`.
    """
    within, duplicates = pairs["lesion_a"] == pairs["lesion_b"], confirmed_duplicates(pairs)
    by = " ".join(duplicates["confirmed_by"]).split()
    measured = pairs["confirmed_by"].str.contains("|".join(MEASURES))
    conflicts = duplicates[duplicates["dx_a"] != duplicates["dx_b"]]
    per_lesion = metadata.groupby("lesion_id").size()
    possible = int((per_lesion * (per_lesion - 1) // 2).sum())
    return {
        "candidates_of_different_lesions": int((~within).sum()),
        "confirmed_duplicates": len(duplicates),
        **{f"confirmed_by_{name}": by.count(name) for name in sorted(set(by) - set(MEASURES))},
        "lesions_with_a_duplicate": len(set(duplicates["lesion_a"]) | set(duplicates["lesion_b"])),
        "groups_of_duplicate_lesions": len(set(splits.duplicate_groups(duplicates).values())),
        "duplicates_with_conflicting_labels": len(conflicts),
        "conflicting_labels": [f"{a} {x} / {b} {y}" for a, b, x, y in conflicts[_SIDES].itertuples(index=False)],
        "within_lesions": {
            "pairs": possible,
            "candidates": int(within.sum()),
            "confirmed": int((within & measured).sum()),
        },
        "labelled_by_eye": precision(pairs.assign(confirmed=measured), labels),
    }


def precision(pairs: pd.DataFrame, labels: pd.DataFrame) -> dict[str, Any]:
    """Confirmed and rejected candidates against the verdicts by eye (``same``, ``different``, ``unsure``).

    ``precision_of_confirmed`` leaves ``unsure`` pairs out; it is None if no confirmed pair has a clear verdict.
    """
    labelled = labels.merge(pairs, on=["image_a", "image_b"], how="inner", suffixes=("_then", ""))
    clear = labelled[labelled["verdict"] != "unsure"]
    same = clear["verdict"] == "same"
    confirmed = clear["confirmed"].astype(bool)
    return {
        "pairs": len(labels),
        "pairs_that_are_candidates_now": len(labelled),
        "unsure": int((labelled["verdict"] == "unsure").sum()),
        "confirmed_and_same": int((confirmed & same).sum()),
        "confirmed_but_different": int((confirmed & ~same).sum()),
        "rejected_but_same": int((~confirmed & same).sum()),
        "rejected_and_different": int((~confirmed & ~same).sum()),
        "precision_of_confirmed": round(float(same[confirmed].mean()), 4) if confirmed.any() else None,
    }


def read_lists(labels: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """``eye`` and ``published`` → their pairs ``image_a, image_b``; ``labels`` is the result of :func:`read_labels`."""
    return {"eye": labels[labels["verdict"] == "same"], "published": pd.read_csv(PUBLISHED, dtype=str)}


def read_labels(path: str | Path = LABELS) -> pd.DataFrame:
    """``image_a, image_b, verdict`` of pairs that somebody looked at side by side.

    Raises:
        UserError: a column is missing, or a verdict is none of ``same``, ``different``, ``unsure``.
    """
    table = pd.read_csv(path, dtype=str)
    if not {"image_a", "image_b", "verdict"} <= set(table) or not table["verdict"].isin(VERDICTS).all():
        raise UserError(f"{path} needs image_a, image_b and verdict ({', '.join(VERDICTS)}); correct the table")
    return table


def _numbers(listed: pd.DataFrame, metadata: pd.DataFrame) -> np.ndarray:
    """Rows of ``metadata`` of each pair ``image_a, image_b`` that is in it: (m, 2) int64, i < j."""
    row = {name: number for number, name in enumerate(metadata["image_id"])}
    names = listed[["image_a", "image_b"]].itertuples(index=False, name=None)
    rows = [sorted((row[a], row[b])) for a, b in names if a in row and b in row]
    return np.array(rows, np.int64).reshape(-1, 2)


def _parallel(function: Callable[[Any], Any], items: Sequence[Any] | np.ndarray, name: str) -> Any:
    """``function`` of each item, in order, by threads: OpenCV works outside the interpreter's lock."""
    with ThreadPoolExecutor() as pool, tqdm(total=len(items), desc=name, mininterval=5) as bar:
        for start in range(0, len(items), CHUNK):
            for result in pool.map(function, items[start : start + CHUNK]):
                yield result
                bar.update()

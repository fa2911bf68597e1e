"""How a model does on parts of the set: by sex, age, body site, diagnosis, images per lesion, and the hard part.

Slices of patients mix melanomas and others; a slice by diagnosis holds all melanomas against that one diagnosis, and
"histology" all of them against the benign lesions that a pathologist saw: what a dermatologist would have biopsied.
A figure is shown only if at least ``minimum`` images stand behind each side it needs; otherwise it is null and the
slice is "too few". The worst slice is named, and is worse by chance than a slice chosen beforehand would be: its
interval is not corrected for having looked at them all.

Skin tone is absent because HAM10000 does not record it; no figure here says anything about it. Source of the traits:
``data/patient_metadata.csv``, from the metadata table; ``dx_type`` from the split. None of them is ever an input.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES, MELANOMA, NAMES
from dermdistill.core.files import read_table
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap
from dermdistill.metrics.metrics import biopsy_subset

TRAITS = ("sex", "age", "localization")
AGES = [0, 30, 45, 60, 75, 200]  # years; bands about as large as each other in HAM10000
BANDS = ["under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over"]
FIGURES = {"roc_auc": ("melanoma", "others"), "sensitivity": ("melanoma",), "specificity": ("others",)}
OF_PATIENTS = ("sex", "age", "site")


class Slice(NamedTuple):
    group: str
    name: str
    among: np.ndarray  # (N,) bool


def read(root: str | Path, part: str) -> pd.DataFrame:
    """``dx_type, sex, age, localization`` by image_id, as text, of one part of the split."""
    folder = Path(root) / "data"
    split, traits = read_table(folder / f"splits/{part}.csv"), read_table(folder / "patient_metadata.csv")
    try:
        split = split[["image_id", "dx_type"]]
        table = split.merge(traits[["image_id", *TRAITS]], on="image_id", how="left", validate="1:1")
    except KeyError as error:
        raise UserError(f"data/splits/{part}.csv or data/patient_metadata.csv lacks {error}; run `dvc repro`") from None
    return table.fillna("").set_index("image_id")


def cut(labels: np.ndarray, lesions: np.ndarray, traits: pd.DataFrame) -> Iterator[Slice]:
    """Every slice, in the order of the report; ``traits`` has the N images' rows in their order."""
    yield Slice("histology", "benign confirmed by histology", biopsy_subset(labels, _histology(traits)))
    for k, name in enumerate(CLASSES):
        if k != MELANOMA:
            yield Slice("diagnosis", NAMES[name], np.isin(labels, (k, MELANOMA)))
    _, index, count = np.unique(lesions, return_inverse=True, return_counts=True)
    images = count[index]
    for name, kept in (("1", images == 1), ("2", images == 2), ("3 or more", images >= 3)):
        yield Slice("images of the lesion", name, kept)
    years = pd.to_numeric(traits["age"], errors="coerce")
    age = pd.cut(years, AGES, right=False, labels=BANDS).astype(object).fillna("unknown").to_numpy(dtype=str)
    columns = {"sex": _named(traits["sex"]), "age": age, "site": _named(traits["localization"])}
    for group, values in columns.items():
        for name in [*BANDS, "unknown"] if group == "age" else sorted(set(values.tolist())):
            yield Slice(group, name, values == name)


def measure(
    labels: np.ndarray,
    lesions: np.ndarray,
    score: np.ndarray,
    threshold: float,
    traits: pd.DataFrame,
    minimum: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Section "slices" of a metrics file: ``rows``, and the ``worst`` by AUC, of all and of patients.

    Args: as in ``metrics.evaluate``; ``score`` (N,) is calibrated P(mel), ``minimum`` images a side.
    """
    found = [one for one in cut(labels, lesions, traits) if one.among.any()]
    metrics = {
        f"{place} {name}": metric
        for place, one in enumerate(found)
        for name, metric in _figures(labels == MELANOMA, score, threshold, one.among).items()
    }
    bounds = bootstrap.intervals(metrics, lesions, resamples, seed)
    rows = []
    for place, one in enumerate(found):
        row = _counts(labels, one, minimum)
        for name, needed in FIGURES.items():
            enough = all(row[side] >= minimum for side in needed)
            row[name] = bootstrap.value(metrics[f"{place} {name}"], lesions) if enough else None
            row[f"{name}_interval"] = bounds[f"{place} {name}"] if enough else None
        rows.append(row)
    patients = [row for row in rows if row["group"] in OF_PATIENTS]
    return {"rows": rows, "worst": worst(rows), "worst_of_patients": worst(patients)}


def _figures(
    positive: np.ndarray, score: np.ndarray, threshold: float, among: np.ndarray
) -> dict[str, bootstrap.Metric]:
    called = score >= threshold
    return {
        "roc_auc": bootstrap.roc_auc(positive, score, among),
        "sensitivity": bootstrap.Proportion(called, among=among & positive),
        "specificity": bootstrap.Proportion(~called, among=among & ~positive),
    }


def _counts(labels: np.ndarray, one: Slice, minimum: int) -> dict[str, Any]:
    ill = int((labels[one.among] == MELANOMA).sum())
    sides = {"melanoma": ill, "others": int(one.among.sum()) - ill}
    return {"group": one.group, "name": one.name, **sides, "too_few": min(sides.values()) < minimum}


def worst(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Group, name and AUC of the slice with the lowest AUC; None if none has enough images."""
    known = [row for row in rows if row["roc_auc"] is not None]
    if not known:
        return None
    lowest = min(known, key=lambda row: row["roc_auc"])
    return {key: lowest[key] for key in ("group", "name", "roc_auc", "roc_auc_interval")}


def _histology(traits: pd.DataFrame) -> np.ndarray:
    return (traits["dx_type"] == "histo").to_numpy()


def _named(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(dtype=str)
    return np.where(values == "", "unknown", values)

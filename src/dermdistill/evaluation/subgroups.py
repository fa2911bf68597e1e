"""Metrics of subgroups: by sex, age, body site, diagnosis and images per lesion, and against biopsied lesions only.

A subgroup by sex, age or site mixes melanomas and other images of these patients. A subgroup by diagnosis holds all
melanomas and the images of that one diagnosis. The subgroup "histology" holds all melanomas and the benign lesions
that histology confirmed: the ones that a dermatologist chose to biopsy.

A metric is null if a side that it needs has fewer than ``minimum`` images; the subgroup is then "too few". The subgroup
of lowest AUC is named. It is partly the lowest by chance, since its interval is not corrected for the selection.

Sources: ``dx_type`` from the split, the other columns from ``data/patient_metadata.csv``; of another source than
HAM10000 all from its own tables. None is ever an input of a model. Deliberately absent: skin tone, which HAM10000 does
not record. No metric here says anything about it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dermdistill.core import parts
from dermdistill.core.classes import CLASSES, MELANOMA, NAMES
from dermdistill.core.files import read_table
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, Proportion, roc_auc
from dermdistill.metrics.metrics import biopsy_subset

METADATA = ("sex", "age", "localization")
AGES = [0, 30, 45, 60, 75, 200]  # years; bands of similar size in HAM10000
BANDS = ["under 30", "30 to 44", "45 to 59", "60 to 74", "75 and over"]
METRICS = {"roc_auc": ("melanoma", "others"), "sensitivity": ("melanoma",), "specificity": ("others",)}
PATIENT_GROUPS = ("sex", "age", "site")


class Subgroup(NamedTuple):
    """Some of N images: one ``name`` (such as "female") of a ``group`` (such as "sex")."""

    group: str
    name: str
    among: np.ndarray  # (N,) bool


def read(root: str | Path, part: str) -> pd.DataFrame:
    """Patient metadata of one part: ``dx_type, sex, age, localization`` by image_id, as text.

    Raises:
        UserError: if a file or a column is missing.
    """
    split = read_table(Path(root) / parts.table(part))
    metadata = read_table(Path(root) / "data/patient_metadata.csv") if part in parts.EVALUATED else split
    try:
        split = split[["image_id", "dx_type"]]
        table = split.merge(metadata[["image_id", *METADATA]], on="image_id", how="left", validate="1:1")
    except KeyError as error:
        where = f"{parts.table(part)} or data/patient_metadata.csv"
        raise UserError(f"{where} lacks {error}; run `dvc repro`") from None
    return table.fillna("").set_index("image_id")


def define(labels: np.ndarray, lesions: np.ndarray, metadata: pd.DataFrame) -> Iterator[Subgroup]:
    """Yield every subgroup, in the order of the report; a subgroup may be empty.

    Args:
        labels: (N,) int.
        lesions: (N,) lesion ids.
        metadata: N rows as of :func:`read`, in the order of the images.
    """
    histology = (metadata["dx_type"] == "histo").to_numpy()
    yield Subgroup("histology", "benign confirmed by histology", biopsy_subset(labels, histology))
    for k, name in enumerate(CLASSES):
        if k != MELANOMA:
            yield Subgroup("diagnosis", NAMES[name], np.isin(labels, (k, MELANOMA)))
    _, index, count = np.unique(lesions, return_inverse=True, return_counts=True)
    images = count[index]
    for name, among in (("1", images == 1), ("2", images == 2), ("3 or more", images >= 3)):
        yield Subgroup("images of the lesion", name, among)
    for group, values in _patient_columns(metadata).items():
        for name in [*BANDS, "unknown"] if group == "age" else sorted(set(values.tolist())):
            yield Subgroup(group, name, values == name)


def _patient_columns(metadata: pd.DataFrame) -> dict[str, np.ndarray]:
    """Group → its value for each image (N,) str, "unknown" where it is missing."""
    years = pd.to_numeric(metadata["age"], errors="coerce")
    age = pd.cut(years, AGES, right=False, labels=BANDS).astype(object).fillna("unknown").to_numpy(dtype=str)
    return {"sex": _named(metadata["sex"]), "age": age, "site": _named(metadata["localization"])}


def _named(column: pd.Series) -> np.ndarray:
    values = column.to_numpy(dtype=str)
    return np.where(values == "", "unknown", values)


def measure(
    labels: np.ndarray,
    lesions: np.ndarray,
    y_score: np.ndarray,
    threshold: float,
    metadata: pd.DataFrame,
    minimum: int,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """The section "subgroups" of a metrics file: ``rows``, and the ``worst`` by AUC, of all and of patient groups.

    Args:
        labels, lesions, metadata: as in :func:`define`.
        y_score: (N,) calibrated P(mel).
        threshold: of P(mel) for sensitivity and specificity.
        minimum: number of images that a metric needs on each of its sides.
        resamples, seed: of the bootstrap.
    """
    subgroups = [subgroup for subgroup in define(labels, lesions, metadata) if subgroup.among.any()]
    metrics = {
        f"{i} {name}": metric
        for i, subgroup in enumerate(subgroups)
        for name, metric in _metrics(labels == MELANOMA, y_score, threshold, subgroup.among).items()
    }
    bounds = bootstrap.intervals(metrics, lesions, resamples, seed)
    results = {name: (bootstrap.value(metric, lesions), bounds[name]) for name, metric in metrics.items()}
    rows = [
        _row(labels, subgroup, minimum, {name: results[f"{i} {name}"] for name in METRICS})
        for i, subgroup in enumerate(subgroups)
    ]
    patients = [row for row in rows if row["group"] in PATIENT_GROUPS]
    return {"rows": rows, "worst": worst(rows), "worst_of_patients": worst(patients)}


def _metrics(y_true: np.ndarray, y_score: np.ndarray, threshold: float, among: np.ndarray) -> dict[str, Metric]:
    y_pred = y_score >= threshold
    return {
        "roc_auc": roc_auc(y_true, y_score, among),
        "sensitivity": Proportion(y_pred, among=among & y_true),
        "specificity": Proportion(~y_pred, among=among & ~y_true),
    }


def _row(
    labels: np.ndarray, subgroup: Subgroup, minimum: int, results: Mapping[str, tuple[float, list[float] | None]]
) -> dict[str, Any]:
    """Counts of one subgroup, and the metrics that have enough images; ``results``: metric → value, interval."""
    melanomas = int((labels[subgroup.among] == MELANOMA).sum())
    counts = {"melanoma": melanomas, "others": int(subgroup.among.sum()) - melanomas}
    row = {"group": subgroup.group, "name": subgroup.name, **counts, "too_few": min(counts.values()) < minimum}
    for name, sides in METRICS.items():
        enough = all(counts[side] >= minimum for side in sides)
        row[name], row[f"{name}_interval"] = results[name] if enough else (None, None)
    return row


def worst(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Group, name, AUC and interval of the row of lowest AUC; None if no row has one."""
    defined = [row for row in rows if row["roc_auc"] is not None]
    if not defined:
        return None
    lowest = min(defined, key=lambda row: row["roc_auc"])
    return {key: lowest[key] for key in ("group", "name", "roc_auc", "roc_auc_interval")}

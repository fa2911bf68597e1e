"""What the intervals of an external set resample: patients if they are known, else lesions, else pictures.

Images that depend on each other and are resampled one by one count the same evidence twice, and the intervals are too
narrow. So images join one group if they share a patient or a lesion id, or show the same skin
(:func:`dermdistill.splitting.image_index.groups`): collections without ids are full of repeated pictures.

Deliberately absent: a guess at which other images belong to one lesion. The sentence says what was assumed instead.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Groups:
    """Groups of N images: ``id`` (N,) str, one of the lesion ids of each, and what they were made from.

    ``unit`` is patient, lesion or image; ``unknown`` images have no id of it and count by themselves; ``repeated``
    images show what an image before them shows, though their ids differ.
    """

    id: np.ndarray
    lesions: int
    unit: str
    unknown: int
    repeated: int

    def summary(self) -> dict[str, Any]:
        """For a metrics file."""
        count = len(np.unique(self.id))
        return {"unit": self.unit, "groups": count, "images_without_id": self.unknown, "repeated": self.repeated}

    def sentence(self) -> str:
        """What the intervals rest on."""
        count, unknown = len(np.unique(self.id)), self.unknown
        known = {
            "patient": f"Intervals resample {count:,} patients",
            "lesion": f"Intervals resample {count:,} lesions",
            "image": f"There are no ids of lesions or patients, so each of {count:,} pictures counts as a lesion of "
            "its own: intervals are too narrow if lesions were photographed more than once",
        }[self.unit]
        if self.unit != "image" and unknown:
            known += f"; {unknown:,} images without an id count by themselves"
        return known + (f"; {self.repeated:,} repeated pictures count with their first." if self.repeated else ".")


def of(table: pd.DataFrame, same_skin: np.ndarray | None) -> Groups:
    """The groups of the images of a table.

    Args:
        table: ``image_id, lesion_id`` (that of the image where it is unknown), with or without ``patient_id`` (empty
            where it is unknown), N rows.
        same_skin: (N,) int, equal for images that show the same skin; None if nobody looked.
    """
    lesion = table["lesion_id"].to_numpy(str)
    patient = table["patient_id"].to_numpy(str) if "patient_id" in table else np.full(len(table), "")
    skin = np.arange(len(table)) if same_skin is None else same_skin
    unit = "patient" if (patient != "").any() else "lesion" if (lesion != table["image_id"]).any() else "image"
    unknown = patient == "" if unit == "patient" else lesion == table["image_id"].to_numpy(str)
    by_id = np.where(patient != "", np.char.add("patient ", patient), np.char.add("lesion ", lesion))
    repeated = len(np.unique(_joined(lesion))) - len(np.unique(_joined(lesion, skin)))
    group = _joined(by_id, lesion, skin)
    first = pd.Series(lesion).groupby(group).transform("min").to_numpy(str)
    return Groups(first, len(np.unique(_joined(lesion, skin))), unit, int(unknown.sum()), repeated)


def _joined(*columns: np.ndarray) -> np.ndarray:
    """(N,) int: equal for rows that have an equal value in one of ``columns`` (N,), directly or through others."""
    count, edges, offset = len(columns[0]), [], len(columns[0])
    for column in columns:  # each value is a node that its rows are joined to
        names, value = np.unique(column, return_inverse=True)
        edges.append(np.stack([np.arange(count), offset + value]))
        offset += len(names)
    rows, values = np.concatenate(edges, axis=1)
    graph = coo_matrix((np.ones(len(rows)), (rows, values)), shape=(offset, offset))
    return np.asarray(connected_components(graph, directed=False)[1][:count])

"""Panels of where teacher and student look, and of the training pictures nearest to what was missed.

Tables, pictures and maps in, a figure out. The maps come from ``explain``; nothing here knows a network.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.reporting import plots
from dermdistill.reporting.cells import Metrics, percent

COLUMNS = ["image_id", "dx", "p_mel_int8", "rank", "neighbour", "neighbour_dx", "distance"]


def table(
    least: pd.DataFrame, ids: Sequence[str], labels: np.ndarray, distances: np.ndarray, indices: np.ndarray
) -> pd.DataFrame:
    """One row per missed image and neighbour."""
    found = [
        (case["image_id"], case["dx"], case["p_mel_int8"], rank + 1, ids[index], CLASSES[labels[index]], distance)
        for case, far, near in zip(least.to_dict("records"), distances, indices, strict=True)
        for rank, (distance, index) in enumerate(zip(far, near, strict=True))
    ]
    return pd.DataFrame(found, columns=COLUMNS)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8, covered the more the higher ``heat`` (H, W) in 0 … 1 is."""
    cover = 0.65 * heat[..., None]
    color = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    blended: np.ndarray = (1 - cover) * image + cover * color
    return blended.round().astype(np.uint8)


def looks(cases: list[dict[Hashable, Any]], images: list[np.ndarray], maps: dict[str, np.ndarray]) -> Figure:
    """Each case three times, one case a row: the picture, the teacher's map, the student's map.

    Args:
        cases: rows of ``plots/errors/cases.csv``; maps: role → (n, H, W) in 0 … 1.
    """
    shown, captions = [], []
    for place, (case, image) in enumerate(zip(cases, images, strict=True)):
        shown.append(image)
        captions.append(f"{case['image_id']}\non record: {case['dx']}")
        for role, heat in maps.items():
            shown.append(overlay(image, heat[place]))
            captions.append(f"{role}: P(mel) {case[f'p_mel_{role}']:.2f}\nsays: {case[f'diagnosis_{role}']}")
    return plots.panel(shown, captions, columns=1 + len(maps))


def nearest(table: pd.DataFrame, pictures: dict[str, np.ndarray]) -> Figure:
    """One row for each missed image: it, then its neighbours, nearest first; ``table`` has :data:`COLUMNS`."""
    shown, captions = [], []
    for image_id, rows in table.groupby("image_id", sort=False):
        first = rows.iloc[0]
        shown.append(pictures[str(image_id)])
        captions.append(f"{image_id}\non record: {first['dx']}\nP(mel) {first['p_mel_int8']:.2f}")
        for row in rows.to_dict("records"):
            shown.append(pictures[row["neighbour"]])
            captions.append(f"{row['neighbour']}\n{row['neighbour_dx']}\ndistance {row['distance']:.3f}")
    return plots.panel(shown, captions, columns=1 + int(table["rank"].max()))


def sentence(found: Metrics) -> str:
    """What ``metrics/explain.json`` says of the neighbours."""
    least, every = found["melanoma_among_neighbours"]["least_likely"], found["melanoma_among_neighbours"]["all"]
    return (
        f"In the student's features, {percent(least)} of the {found['neighbours']} nearest training images of these "
        f"{found['least_likely']} melanomas are melanomas; of all melanomas of the holdout it is {percent(every)}."
    )

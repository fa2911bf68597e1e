"""Grids of pictures: examples, pairs, Grad-CAM maps, and the training images nearest to a missed melanoma.

Tables, pictures and maps in, a figure out. ``explain`` computes the maps and neighbours; no network is known here.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.reporting import style

NEIGHBOURS = ["image_id", "dx", "p_mel_int8", "rank", "neighbour", "neighbour_dx", "distance"]
WIDTH, GAP, LINE = 1.9, 0.1, 0.135  # inches: of a picture, between pictures, of a line of its caption


def panel(images: Sequence[np.ndarray], captions: Sequence[str], columns: int = 4) -> Figure:
    """A grid of uint8 (H, W, 3) pictures, each with its caption below; captions have equally many lines."""
    rows = -(-len(images) // columns)
    tall = WIDTH * images[0].shape[0] / images[0].shape[1]
    cell = tall + 0.3 + LINE * (captions[0].count("\n") + 1)
    width, height = columns * (WIDTH + GAP) + GAP, rows * cell + GAP
    figure = style.new(height, width, layout=None)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = GAP + (place % columns) * (WIDTH + GAP), height - GAP - (place // columns) * cell
        axes = figure.add_axes((left / width, (top - tall) / height, WIDTH / width, tall / height))
        axes.set_axis_off()
        axes.imshow(image, interpolation="bilinear")
        axes.text(0, -0.05, caption, transform=axes.transAxes, va="top", fontsize=7.5, linespacing=1.25)
    return figure


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8, covered the more the higher ``heat`` (H, W) in 0 … 1 is."""
    cover = 0.65 * heat[..., None]
    color = 255 * matplotlib.colormaps["inferno"](heat)[..., :3]
    blended: np.ndarray = (1 - cover) * image + cover * color
    return blended.round().astype(np.uint8)


def grad_cam(cases: list[dict[Hashable, Any]], images: list[np.ndarray], maps: Mapping[str, np.ndarray]) -> Figure:
    """One case per row: the picture, the teacher's map, the student's map.

    Args:
        cases: rows of ``plots/errors/cases.csv``; maps: role → (n, H, W) in 0 … 1.
    """
    pictures, captions = [], []
    for place, (case, image) in enumerate(zip(cases, images, strict=True)):
        pictures.append(image)
        captions.append(f"{case['image_id']}\non record: {case['dx']}")
        for role, heat in maps.items():
            pictures.append(overlay(image, heat[place]))
            captions.append(f"{role}: P(mel) {case[f'p_mel_{role}']:.2f}\nsays: {case[f'diagnosis_{role}']}")
    return panel(pictures, captions, columns=1 + len(maps))


def neighbour_table(
    least: pd.DataFrame, ids: Sequence[str], labels: np.ndarray, distances: np.ndarray, indices: np.ndarray
) -> pd.DataFrame:
    """One row for each missed image (a row of ``least``) and neighbour, with the columns :data:`NEIGHBOURS`."""
    rows = [
        (case["image_id"], case["dx"], case["p_mel_int8"], rank + 1, ids[index], CLASSES[labels[index]], distance)
        for case, far, near in zip(least.to_dict("records"), distances, indices, strict=True)
        for rank, (distance, index) in enumerate(zip(far, near, strict=True))
    ]
    return pd.DataFrame(rows, columns=NEIGHBOURS)


def neighbours(table: pd.DataFrame, pictures: Mapping[str, np.ndarray]) -> Figure:
    """One row for each missed image: the image, then its neighbours, nearest first; ``table`` as made above."""
    cells, captions = [], []
    for image_id, rows in table.groupby("image_id", sort=False):
        first = rows.iloc[0]
        cells.append(pictures[str(image_id)])
        captions.append(f"{image_id}\non record: {first['dx']}\nP(mel) {first['p_mel_int8']:.2f}")
        for row in rows.to_dict("records"):
            cells.append(pictures[row["neighbour"]])
            captions.append(f"{row['neighbour']}\n{row['neighbour_dx']}\ndistance {row['distance']:.3f}")
    return panel(cells, captions, columns=1 + int(table["rank"].max()))

"""What the data look like: the patients, the photographs, and the pairs of images that the audit found.

A model that does well on a data set may have learnt the data set. These figures show what it could have used
besides the lesion: age, site, how the diagnosis was found, colour of the picture. Numbers come from the clean
table and the prepared pixels only. Figures without photographs go to git; the others show HAM10000 and are cached.

Deliberately absent: anything by part of the split (``metrics/split.json`` counts those), and skin tone, which
HAM10000 does not record.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.reporting import panels, style

FIGURES = ("classes", "age", "sex", "site", "dx_type", "per_lesion", "colour")  # files of plots/data
PICTURES = ("montage", "duplicates_confirmed", "duplicates_rejected")  # files of reports/data
EACH, PAIRS, SEED, STEP = 6, 12, 0, 4
KNOWN_SEX = ("male", "female", "unknown")


def draw(table: pd.DataFrame, colours: pd.DataFrame) -> dict[str, Figure]:
    """The :data:`FIGURES`; ``table`` is metadata.csv, ``colours`` comes from :func:`colour`."""
    target = pd.Series(np.where(table["dx"] == "mel", "melanoma", "other"), index=table.index)
    sex = table["sex"].where(table["sex"].isin(KNOWN_SEX), "unknown")
    counts = table.groupby("lesion_id")["image_id"].transform("size").clip(upper=4)
    images = counts.map(lambda n: f"{n:.0f}" if n < 4 else "4 or more")
    first = ~table["lesion_id"].duplicated()
    types = pd.crosstab(table["dx"], table["dx_type"].replace("", "unknown"), normalize="index")
    return {
        "classes": _classes(table),
        "age": _ages(table, target),
        "sex": _shares(pd.crosstab(sex, target, normalize="columns"), "share of images"),
        "site": _shares(pd.crosstab(table["localization"], target, normalize="columns"), "share of images"),
        "dx_type": _stacked(types.reindex([name for name in CLASSES if name in types.index])),
        "per_lesion": _shares(pd.crosstab(images[first], target[first], normalize="columns"), "share of lesions"),
        "colour": _colours(table, colours),
    }


def colour(images: np.ndarray) -> pd.DataFrame:
    """Mean red, green and blue of each image (n, H, W, 3), from every fourth pixel of every fourth row."""
    means = [np.asarray(image[::STEP, ::STEP], np.float32).mean((0, 1)) for image in images]
    return pd.DataFrame(np.array(means).reshape(-1, 3), columns=["red", "green", "blue"]).round(2)


def statistics(sources: pd.DataFrame, colours: pd.DataFrame) -> dict[str, Any]:
    """Sizes and colour modes of the raw files, and quantiles of the mean colour."""
    sizes = (sources["width"].astype(str) + " × " + sources["height"].astype(str)).value_counts()
    return {
        "raw_sizes": {str(k): int(v) for k, v in sizes.head(5).items()},
        "raw_sizes_in_all": len(sizes),
        "raw_modes": {str(k): int(v) for k, v in sources["mode"].value_counts().items()},
        "raw_megabytes": round(float(sources["bytes"].sum()) / 1e6, 1),
        "mean_colour": {
            str(name): {f"{q:.0%}": round(float(values.quantile(q)), 1) for q in (0.05, 0.5, 0.95)}
            for name, values in colours.items()
        },
    }


def montage(images: np.ndarray, table: pd.DataFrame) -> Figure:
    """:data:`EACH` images of every diagnosis, one row each, of different lesions."""
    random = np.random.default_rng(SEED)
    chosen: list[int] = []
    for name in CLASSES:
        rows = table[table["dx"] == name].drop_duplicates("lesion_id").index.to_numpy()
        chosen += sorted(random.permutation(rows)[:EACH].tolist())
    captions = [f"{table['dx'][row]}  {table['image_id'][row]}" for row in chosen]
    return panels.panel([np.asarray(images[row]) for row in chosen], captions, columns=EACH)


def pairs(images: np.ndarray, table: pd.DataFrame, chosen: pd.DataFrame) -> Figure | None:
    """Up to :data:`PAIRS` pairs side by side, two to a row, with the measured similarity; None without any."""
    rows = pd.Series(range(len(table)), index=table["image_id"])
    pictures, captions = [], []
    for pair in chosen.head(PAIRS).to_dict("records"):
        for side in ("a", "b"):
            pictures.append(np.asarray(images[rows[pair[f"image_{side}"]]]))
            measured = f"{pair['inliers']} matches, correlation {pair['correlation']:.2f}"
            captions.append(f"{pair[f'image_{side}']}  {pair[f'dx_{side}']}\n{pair[f'lesion_{side}']}\n{measured}")
    return panels.panel(pictures, captions, columns=4) if pictures else None


def _classes(table: pd.DataFrame) -> Figure:
    figure, axes = style.single(2.8)
    place = np.arange(len(CLASSES))
    counts = {"images": table["dx"].value_counts(), "lesions": table.groupby("dx")["lesion_id"].nunique()}
    for shift, (name, color) in zip((-0.2, 0.2), (("images", style.BLUE), ("lesions", style.ORANGE)), strict=True):
        values = [int(counts[name].get(dx, 0)) for dx in CLASSES]
        bars = axes.bar(place + shift, values, 0.4, label=name, color=color)
        axes.bar_label(bars, fontsize=7)
    axes.set(yscale="log", ylabel="count")
    axes.set_xticks(place, CLASSES)
    axes.legend()
    return figure


def _ages(table: pd.DataFrame, target: pd.Series) -> Figure:
    figure, axes = style.single(2.8)
    for name, color in (("other", style.BLUE), ("melanoma", style.ORANGE)):
        ages = pd.to_numeric(table["age"], errors="coerce")[target == name].dropna()
        weights = np.full(len(ages), 1 / max(len(ages), 1))
        axes.hist(ages, bins=range(0, 95, 5), weights=weights, histtype="step", color=color, label=name, linewidth=1.8)
    axes.set(xlabel="age in years, as recorded in steps of five", ylabel="share of images")
    axes.legend()
    return figure


def _shares(table: pd.DataFrame, label: str) -> Figure:
    """Horizontal bars of both targets, one group for each row."""
    figure, axes = style.single(0.9 + 0.32 * len(table))
    place = np.arange(len(table))[::-1]
    for shift, (name, color) in zip((0.2, -0.2), (("melanoma", style.ORANGE), ("other", style.BLUE)), strict=True):
        if name in table:
            axes.barh(place + shift, table[name], 0.38, label=name, color=color)
    axes.set(xlabel=label)
    axes.set_yticks(place, [str(name) for name in table.index])
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _stacked(table: pd.DataFrame) -> Figure:
    figure, axes = style.single(3.0)
    left = np.zeros(len(table))
    shades = (style.BLUE, style.ORANGE, style.GREY, style.GREEN, "#CC79A7")
    for index, name in enumerate(table.columns):
        axes.barh(list(table.index), table[name], left=left, label=str(name), color=shades[index % len(shades)])
        left = left + table[name].to_numpy()
    axes.invert_yaxis()
    axes.set(xlabel="share of images")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _colours(table: pd.DataFrame, colours: pd.DataFrame) -> Figure:
    figure, axes = style.single(2.8)
    present = [name for name in CLASSES if (table["dx"] == name).any()]
    for shift, (channel, color) in enumerate((("red", "#D55E00"), ("green", "#009E73"), ("blue", "#0072B2"))):
        values = [colours[channel][table["dx"] == name].quantile([0.25, 0.5, 0.75]).to_list() for name in present]
        low, middle, high = np.array(values).T
        place = np.arange(len(present)) + 0.22 * (shift - 1)
        axes.errorbar(place, middle, [middle - low, high - middle], fmt="o", markersize=4, color=color, label=channel)
    axes.set(ylabel="mean of the image, 0 to 255")
    axes.set_xticks(np.arange(len(present)), present)
    figure.legend(loc="outside upper right", ncols=3)
    return figure

"""What the data look like: who is in them, what was photographed how, and which pairs the audit means.

A model that does well on a data set may have learnt the data set. These figures show what it could have used
besides the lesion: age, site, how the diagnosis was found, colour of the picture. Numbers come from the clean
table and the prepared pixels only. Figures without pictures go to git; montage and twins show HAM10000 and are
cached outputs.

Deliberately absent: anything by part of the split (``metrics/split.json`` counts those), and skin tone, which
HAM10000 does not record.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.reporting import plots

FIGURES = {  # file name → title, what it shows, what to make of it
    "classes": ("Images and lesions by diagnosis", "Bars on a logarithmic axis, one pair for each diagnosis.",
                "Two of three images are nevi; the rarest diagnosis has a hundred."),
    "age": ("Age by target", "Histograms of age for melanoma and for all other diagnoses, each summing to one.",
            "Age alone tells melanoma from the rest better than chance; no model here is given it."),
    "sex": ("Sex by target", "Share of male, female and unknown among melanoma and the rest.",
            "Unknown is kept as its own group."),
    "site": ("Body site by target", "Share of each body site among melanoma and the rest.",
             "As recorded by the clinics; sites differ between the sources."),
    "dx_type": ("How the diagnosis was found", "Share of histology, follow-up, consensus and confocal by diagnosis.",
                "It gives the label away, hence is never an input: every melanoma was confirmed by histology."),
    "per_lesion": ("Images per lesion", "Share of lesions with one, two, three or more images, melanoma and rest.",
                   "Melanomas were photographed most often, so a split by image leaks them first."),
    "colour": ("Mean colour by diagnosis", "Median and quartiles of each image's mean red, green and blue.",
               "Colour depends on camera and light as much as on skin."),
}  # fmt: skip
PICTURES = {
    "montage": ("Six images of each diagnosis", "Drawn by a fixed seed, each from another lesion."),
    "twins_confirmed": (
        "Confirmed twins",
        "Pairs of different lesion ids that the geometric check calls one lesion, or with equal pixels.",
    ),
    "twins_rejected": ("Rejected candidates", "Pairs that looked alike to the search and failed the geometric check."),
}
EACH, PAIRS, SEED, STEP = 6, 12, 0, 4
KNOWN_SEX = ("male", "female", "unknown")


def figures(table: pd.DataFrame, colours: pd.DataFrame) -> dict[str, Figure]:
    """Every figure of :data:`FIGURES`; ``table`` is metadata.csv, ``colours`` comes from :func:`colour`."""
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
    return plots.panel([np.asarray(images[row]) for row in chosen], captions, columns=EACH)


def pairs(images: np.ndarray, table: pd.DataFrame, found: pd.DataFrame) -> Figure | None:
    """Up to :data:`PAIRS` pairs side by side, two to a row, with what was measured; None without any."""
    rows = pd.Series(range(len(table)), index=table["image_id"])
    shown, captions = [], []
    for pair in found.head(PAIRS).to_dict("records"):
        for side in ("a", "b"):
            shown.append(np.asarray(images[rows[pair[f"image_{side}"]]]))
            measured = f"{pair['inliers']} matches, correlation {pair['correlation']:.2f}"
            captions.append(f"{pair[f'image_{side}']}  {pair[f'dx_{side}']}\n{pair[f'lesion_{side}']}\n{measured}")
    return plots.panel(shown, captions, columns=4) if shown else None


def sentences(prepared: dict[str, Any], audit: dict[str, Any], split: dict[str, Any]) -> list[str]:
    """What the audit found and what it means for the split, from the stages' metrics."""
    said = []
    if not prepared.get("lesions_known", True):
        said.append(
            "The data came without lesion ids: every image counts as a lesion of its own, and leakage between the "
            "parts of the split cannot be excluded."
        )
    if prepared.get("form") == "DermaMNIST":
        said.append("DermaMNIST is HAM10000 at a small size: neither is an outside test of the other.")
    seen, within = audit["labelled_by_eye"], audit["within_lesions"]
    said.append(
        f"Of {audit['candidates_of_different_lesions']:,} candidate pairs with different lesion ids, the geometric "
        f"check or equal pixels confirmed {audit['confirmed_twins']}. Of {within['pairs']:,} pairs with one lesion id "
        f"they confirmed {within['confirmed']:,}: so much of what is the same lesion they find."
    )
    told = seen["confirmed_and_same"] + seen["confirmed_but_different"]
    if told:
        said.append(
            f"Looked at by eye: {seen['pairs']} pairs. Of {told} confirmed ones with a clear verdict, "
            f"{seen['confirmed_and_same']} show one lesion (precision {seen['precision_of_confirmed']:.3f}); "
            f"{seen['unsure']} pairs stayed unsure."
        )
    crossing = split.get("twin_lesions_in_several_parts", 0)
    said.append(
        f"{crossing} pairs of twin lesions stand in different parts of the split, which was given and is kept as it is."
        if crossing
        else "No confirmed twins stand in different parts of the split."
    )
    return said


def _axes(height: float) -> tuple[Figure, Any]:
    figure = plots.new(height)
    return figure, figure.subplots()


def _classes(table: pd.DataFrame) -> Figure:
    figure, axes = _axes(2.8)
    place = np.arange(len(CLASSES))
    counts = {"images": table["dx"].value_counts(), "lesions": table.groupby("dx")["lesion_id"].nunique()}
    for shift, (name, color) in zip((-0.2, 0.2), (("images", plots.BLUE), ("lesions", plots.ORANGE)), strict=True):
        values = [int(counts[name].get(dx, 0)) for dx in CLASSES]
        bars = axes.bar(place + shift, values, 0.4, label=name, color=color)
        axes.bar_label(bars, fontsize=7)
    axes.set(yscale="log", ylabel="count")
    axes.set_xticks(place, CLASSES)
    axes.legend()
    return figure


def _ages(table: pd.DataFrame, target: pd.Series) -> Figure:
    figure, axes = _axes(2.8)
    for name, color in (("other", plots.BLUE), ("melanoma", plots.ORANGE)):
        ages = pd.to_numeric(table["age"], errors="coerce")[target == name].dropna()
        weights = np.full(len(ages), 1 / max(len(ages), 1))
        axes.hist(ages, bins=range(0, 95, 5), weights=weights, histtype="step", color=color, label=name, linewidth=1.8)
    axes.set(xlabel="age in years, as recorded in steps of five", ylabel="share of images")
    axes.legend()
    return figure


def _shares(table: pd.DataFrame, label: str) -> Figure:
    """Horizontal bars of both targets, one group for each row."""
    figure, axes = _axes(0.9 + 0.32 * len(table))
    place = np.arange(len(table))[::-1]
    for shift, (name, color) in zip((0.2, -0.2), (("melanoma", plots.ORANGE), ("other", plots.BLUE)), strict=True):
        if name in table:
            axes.barh(place + shift, table[name], 0.38, label=name, color=color)
    axes.set(xlabel=label)
    axes.set_yticks(place, [str(name) for name in table.index])
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _stacked(table: pd.DataFrame) -> Figure:
    figure, axes = _axes(3.0)
    left = np.zeros(len(table))
    shades = (plots.BLUE, plots.ORANGE, plots.GREY, plots.GREEN, "#CC79A7")
    for index, name in enumerate(table.columns):
        axes.barh(list(table.index), table[name], left=left, label=str(name), color=shades[index % len(shades)])
        left = left + table[name].to_numpy()
    axes.invert_yaxis()
    axes.set(xlabel="share of images")
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def _colours(table: pd.DataFrame, colours: pd.DataFrame) -> Figure:
    figure, axes = _axes(2.8)
    known = [name for name in CLASSES if (table["dx"] == name).any()]
    for shift, (channel, color) in enumerate((("red", "#D55E00"), ("green", "#009E73"), ("blue", "#0072B2"))):
        values = [colours[channel][table["dx"] == name].quantile([0.25, 0.5, 0.75]).to_list() for name in known]
        low, middle, high = np.array(values).T
        place = np.arange(len(known)) + 0.22 * (shift - 1)
        axes.errorbar(place, middle, [middle - low, high - middle], fmt="o", markersize=4, color=color, label=channel)
    axes.set(ylabel="mean of the image, 0 to 255")
    axes.set_xticks(np.arange(len(known)), known)
    figure.legend(loc="outside upper right", ncols=3)
    return figure

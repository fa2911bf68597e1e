"""describe: draw distributions, a montage of every diagnosis, and confirmed and rejected candidates for duplicates."""

import sys

import numpy as np
import pandas as pd

from dermdistill.core.files import read_table, write_json
from dermdistill.errors import UserError, run
from dermdistill.reporting import dataset, plots

FIGURES, PICTURES = "plots/data", "reports/data"
IDS = ["image_a", "image_b", "lesion_a", "lesion_b"]


def main() -> None:
    try:
        images = np.load("data/prepared/images.npy", mmap_mode="r", allow_pickle=False)
        table = read_table("data/prepared/metadata.csv")
        sources = pd.read_csv("data/prepared/sources.csv")
        pairs = pd.read_csv("data/audit/pairs.csv", dtype=dict.fromkeys(IDS, str), keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro audit` makes it") from None
    colours = dataset.colour(images)
    for name, figure in dataset.figures(table, colours).items():
        plots.save(figure, f"{FIGURES}/{name}.png")
    plots.save(dataset.montage(images, table), f"{PICTURES}/montage.png")
    different = pairs[pairs["lesion_a"] != pairs["lesion_b"]]
    confirmed = different["confirmed"].astype(bool)
    for name, rows in (("confirmed", confirmed), ("rejected", ~confirmed)):
        panel = dataset.pairs(images, table, different[rows])
        if panel is not None:
            plots.save(panel, f"{PICTURES}/duplicates_{name}.png")
    write_json("metrics/describe.json", dataset.statistics(sources, colours))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

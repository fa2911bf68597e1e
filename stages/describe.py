"""Draw what the data look like: distributions, a montage of each diagnosis, confirmed and rejected duplicates."""

import sys

import pandas as pd

from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_table, write_json
from dermdistill.errors import UserError, run
from dermdistill.reporting import data_figures, style

FIGURES, PICTURES = "plots/data", "reports/data"
IDS = ["image_a", "image_b", "lesion_a", "lesion_b"]


def main() -> None:
    try:
        images, table = load_images(), read_table("data/prepared/metadata.csv")
        sources = pd.read_csv("data/prepared/sources.csv")
        pairs = pd.read_csv("data/audit/pairs.csv", dtype=dict.fromkeys(IDS, str), keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro audit` makes it") from None
    colours = data_figures.colour(images)
    for name, figure in data_figures.draw(table, colours).items():
        style.save(figure, f"{FIGURES}/{name}.png")
    style.save(data_figures.montage(images, table), f"{PICTURES}/montage.png")
    different = pairs[pairs["lesion_a"] != pairs["lesion_b"]]
    confirmed = different["confirmed"].astype(bool)
    for name, rows in (("confirmed", confirmed), ("rejected", ~confirmed)):
        panel = data_figures.pairs(images, table, different[rows])
        if panel is not None:
            style.save(panel, f"{PICTURES}/duplicates_{name}.png")
    write_json("metrics/describe.json", data_figures.statistics(sources, colours))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""explain: where teacher and student look (Grad-CAM) on the panels, and what the least likely melanomas resemble."""

import sys

import numpy as np
import pandas as pd

from dermdistill import explain, params
from dermdistill.core.classes import MELANOMA
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import write_json, write_table
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.metrics.metrics import rounded
from dermdistill.reporting import panels, style
from dermdistill.training import loop, models

CASES, PANELS, TABLE = "plots/errors/cases.csv", "reports/explain", "plots/explain/neighbours.csv"
LEAST = "least_likely_melanoma"  # the kind of case in CASES


def main() -> None:
    loop.deterministic(0)
    settings = params.load()
    chosen, ship = settings.explain, settings.ship
    teacher = models.load(ModelId("teacher", settings.kd.teachers[0]).folder)[0]  # gradients need one network
    student = models.load(ModelId("student", ship.student, ship.seed).folder)[0]
    images, train, holdout = load_images(), load_split("train"), load_split("holdout")
    rows = dict(zip(holdout.image_id + train.image_id, np.concatenate([holdout.rows, train.rows]), strict=True))
    try:
        picked = pd.read_csv(CASES, dtype={"image_id": str}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{CASES} does not exist; `dvc repro analyze_errors` makes it") from None
    for kind, group in picked.groupby("kind"):
        part = group.head(chosen.images).to_dict("records")
        pixels = np.stack([images[rows[case["image_id"]]] for case in part])
        maps = {"teacher": explain.grad_cam(teacher, pixels, MELANOMA)}
        maps["student"] = explain.grad_cam(student, pixels, MELANOMA)
        style.save(panels.grad_cam(part, list(pixels), maps), f"{PANELS}/{kind}.png")

    bank = explain.features(student, images, train.rows)
    melanomas = holdout.rows[holdout.labels == MELANOMA]
    least = picked[picked["kind"] == LEAST].head(chosen.misses)
    queries = np.array([rows[name] for name in least["image_id"]], dtype=np.int64)
    nearest = explain.neighbours(bank, explain.features(student, images, queries), chosen.neighbours)
    _, of_all = explain.neighbours(bank, explain.features(student, images, melanomas), chosen.neighbours)
    table = panels.neighbour_table(least, train.image_id, train.labels, *nearest)
    write_table(TABLE, table)
    pictures = {name: np.asarray(images[rows[name]]) for name in {*table["image_id"], *table["neighbour"]}}
    style.save(panels.neighbours(table, pictures), f"{PANELS}/neighbours.png")
    near = {"least_likely": nearest[1], "all": of_all}
    shares = {group: (train.labels[indices] == MELANOMA).mean() for group, indices in near.items()}
    counts = {"least_likely": len(least), "melanomas": len(melanomas), "neighbours": nearest[1].shape[1]}
    write_json("metrics/explain.json", rounded(counts | {"melanoma_among_neighbours": shares}))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""explain: where teacher and student look (Grad-CAM) on the panels, and what the least likely melanomas resemble."""

import sys

import numpy as np
import pandas as pd

from dermdistill import explain, params
from dermdistill.core.classes import MELANOMA
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, write_json
from dermdistill.errors import UserError, run
from dermdistill.evaluation import cases
from dermdistill.metrics.metrics import rounded
from dermdistill.reporting import explain_panels, plots
from dermdistill.training import loop, models

CASES, PANELS, TABLE = "plots/errors/cases.csv", "reports/explain", "plots/explain/neighbours.csv"


def main() -> None:
    loop.deterministic(0)
    settings = params.load()
    chosen, names = settings.explain, cases.roles(settings)
    teacher = models.load(f"models/teachers/teacher_{settings.kd.teachers[0]}")[0]  # gradients need one network
    student = models.load(f"models/students/{names['student']}")[0]
    images, train, holdout = load_images(), load_split("train"), load_split("holdout")
    rows = dict(zip(holdout.image_id + train.image_id, np.concatenate([holdout.rows, train.rows]), strict=True))
    try:
        picked = pd.read_csv(CASES, dtype={"image_id": str}, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{CASES} does not exist; `dvc repro analyze_errors` makes it") from None
    for kind, shown in picked.groupby("kind"):
        part = shown.head(chosen.images).to_dict("records")
        pixels = np.stack([images[rows[case["image_id"]]] for case in part])
        maps = {
            role: explain.grad_cam(one, pixels, MELANOMA) for role, one in (("teacher", teacher), ("student", student))
        }
        plots.save(explain_panels.looks(part, list(pixels), maps), f"{PANELS}/{kind}.png")

    bank = explain.features(student, images, train.rows)
    melanomas = holdout.rows[holdout.labels == MELANOMA]
    least = picked[picked["kind"] == cases.LEAST].head(chosen.misses)
    queries = np.array([rows[name] for name in least["image_id"]], dtype=np.int64)
    found = explain.neighbours(bank, explain.features(student, images, queries), chosen.neighbours)
    _, of_all = explain.neighbours(bank, explain.features(student, images, melanomas), chosen.neighbours)
    table = explain_panels.table(least, train.image_id, train.labels, *found)
    with atomic(TABLE) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    pictures = {name: np.asarray(images[rows[name]]) for name in {*table["image_id"], *table["neighbour"]}}
    plots.save(explain_panels.nearest(table, pictures), f"{PANELS}/neighbours.png")
    shares = {
        "least_likely": (train.labels[found[1]] == MELANOMA).mean(),
        "all": (train.labels[of_all] == MELANOMA).mean(),
    }
    counts = {"least_likely": len(least), "melanomas": len(melanomas), "neighbours": found[1].shape[1]}
    write_json("metrics/explain.json", rounded(counts | {"melanoma_among_neighbours": shares}))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

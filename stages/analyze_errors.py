"""Where teacher, student and deployed model disagree on the holdout: counts, per-class change, cases, pictures."""

import sys

import numpy as np
import pandas as pd

from dermdistill import params
from dermdistill.core.files import atomic, read_table, write_json
from dermdistill.errors import UserError, run
from dermdistill.evaluation import cases
from dermdistill.metrics.metrics import rounded
from dermdistill.reporting import error_figures, panels, style

PREPARED, PANELS, PLOTS = "data/prepared", "reports/panels", "plots/errors"


def main() -> None:
    settings = params.load()
    high, count = settings.analyze_errors.high_confidence, settings.analyze_errors.panel_images
    models = cases.roles(settings)
    evaluated = cases.evaluate_roles(".", {role: models[role] for role in ("teacher", "student", "int8")})
    write_json("metrics/analyze_errors.json", rounded(cases.agreement(evaluated, high)))
    change, confusion, picked = (
        cases.per_class(evaluated),
        cases.confusions(evaluated),
        cases.pick(evaluated, high, count),
    )
    for name, table in (("per_class", change), ("confusion", confusion), ("cases", picked)):
        write_csv(name, table)
    for name, figure in error_figures.draw(evaluated, change).items():
        style.save(figure, f"{PLOTS}/{name}.png")
    write_panels(picked)
    print(f"{len(picked)} cases of {picked['kind'].nunique()} kinds shown in {PANELS}")


def write_csv(name: str, table: pd.DataFrame) -> None:
    with atomic(f"{PLOTS}/{name}.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def write_panels(picked: pd.DataFrame) -> None:
    try:
        images = np.load(f"{PREPARED}/images.npy", mmap_mode="r")
        image_ids = read_table(f"{PREPARED}/metadata.csv")["image_id"]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro prepare` makes it") from None
    for kind, rows in picked.groupby("kind"):
        pictures = cases.pictures(rows, images, image_ids)
        style.save(
            panels.panel([image for image, _ in pictures], [text for _, text in pictures]), f"{PANELS}/{kind}.png"
        )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

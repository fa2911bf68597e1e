"""Where teacher, student and deployed model disagree on the holdout: counts, per-class change, cases, pictures."""

import sys

import pandas as pd

from dermdistill import params
from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_table, write_json, write_table
from dermdistill.errors import run
from dermdistill.evaluation import cases
from dermdistill.metrics.metrics import rounded
from dermdistill.reporting import error_figures, panels, style

PANELS, PLOTS = "reports/panels", "plots/errors"


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
        write_table(f"{PLOTS}/{name}.csv", table)
    for name, figure in error_figures.draw(evaluated, change).items():
        style.save(figure, f"{PLOTS}/{name}.png")
    write_panels(picked)
    print(f"{len(picked)} cases of {picked['kind'].nunique()} kinds shown in {PANELS}")


def write_panels(picked: pd.DataFrame) -> None:
    images, image_ids = load_images(), read_table("data/prepared/metadata.csv")["image_id"]
    for kind, rows in picked.groupby("kind"):
        pictures = cases.pictures(rows, images, image_ids)
        style.save(
            panels.panel([image for image, _ in pictures], [text for _, text in pictures]), f"{PANELS}/{kind}.png"
        )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""traits: age, sex and body site of the val and holdout images, so that subgroups can be recomputed from git."""

import sys

import pandas as pd

from dermdistill.core.files import atomic, read_table
from dermdistill.errors import run

PARTS = ("val", "holdout")
COLUMNS = ["image_id", "age", "sex", "localization"]


def main() -> None:
    table = read_table("data/prepared/metadata.csv")
    evaluated = pd.concat([read_table(f"data/splits/{name}.csv") for name in PARTS])["image_id"]
    kept = table[table["image_id"].isin(evaluated)].sort_values("image_id")[COLUMNS]
    with atomic("data/patient_metadata.csv") as temporary:
        kept.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""traits: age, sex and body site of the val and holdout images: slices that anybody can recompute from git."""

import sys

import pandas as pd

from dermdistill.errors import UserError, run
from dermdistill.files import atomic

PARTS = ("val", "holdout")
COLUMNS = ["image_id", "age", "sex", "localization"]


def main() -> None:
    try:
        table = pd.read_csv("data/prepared/metadata.csv", dtype=str, keep_default_na=False, usecols=COLUMNS)
        parts = [pd.read_csv(f"data/splits/{name}.csv", dtype=str, keep_default_na=False) for name in PARTS]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro split` makes it") from None
    measured = pd.concat(parts)["image_id"]
    kept = table[table["image_id"].isin(measured)].sort_values("image_id")[COLUMNS]
    with atomic("data/traits.csv") as temporary:
        kept.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Assign lesions to train, val and holdout; keep the committed assignment, but for twins that cross it."""

import sys
from pathlib import Path

import pandas as pd

from dermdistill import params
from dermdistill.core.files import atomic, read_json, read_table, write_json
from dermdistill.errors import UserError, run
from dermdistill.splitting import splits
from dermdistill.splitting.splits import PARTS

FOLDER = Path("data/splits")
ASSIGNMENT = FOLDER / "assignment.json"  # every lesion ever assigned with these parameters, present or not


def written() -> pd.Series:
    """Part by image id, read back from the three tables."""
    tables = {part: read_table(FOLDER / f"{part}.csv") for part in PARTS}
    parts = pd.concat([pd.Series(part, index=table["image_id"]) for part, table in tables.items()])
    if parts.index.has_duplicates:
        raise UserError(f"{FOLDER} has an image in two parts: the metadata name it twice; run `dvc repro prepare`")
    return parts


def main() -> None:
    settings = params.load().split.model_dump()
    count = settings.pop("folds")
    table = read_table("data/prepared/metadata.csv")
    twins = read_table("data/audit/twins.csv")
    groups = splits.twin_groups(twins)
    shares = {"train": 1 - settings["val"] - settings["holdout"]} | {name: settings[name] for name in PARTS[1:]}
    before = read_json(ASSIGNMENT) if ASSIGNMENT.exists() else {}
    previous = splits.kept(before, settings, table["lesion_id"])
    frozen = {"frozen": True} if before.get("frozen") else {}  # a given split is kept as it is
    assignment = splits.assign(table, shares, settings["seed"], previous, {} if frozen else groups)
    lesions = dict(sorted((previous | assignment).items()))
    write_json(ASSIGNMENT, {"settings": settings} | frozen | {"lesions": lesions})
    write_tables(table.assign(part=table["lesion_id"].map(assignment)), count, settings["seed"], groups)
    write_json("metrics/split.json", settings | splits.audit(table, written(), shares, twins))
    new = len(assignment.keys() - previous.keys())
    moved = sum(previous.get(lesion, part) != part for lesion, part in assignment.items())
    print(f"{len(assignment):,} lesions: {new:,} newly assigned, {moved:,} moved to join a twin")


def write_tables(table: pd.DataFrame, count: int, seed: int, groups: dict[str, str]) -> None:
    columns = ["image_id", "lesion_id", "dx", "dx_type"]
    if count:  # of train and val, which cross-validation pools
        dealt = splits.folds(table[table["part"] != "holdout"], count, seed, groups)
        table = table.assign(fold=table["lesion_id"].map(dealt))
    for part in PARTS:
        shown = [*columns, "fold"] if count and part != "holdout" else columns
        with atomic(FOLDER / f"{part}.csv") as path:
            table[table["part"] == part][shown].to_csv(path, index=False)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

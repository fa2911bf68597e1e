"""Assign lesions to train, val and holdout; keep the committed assignment if its parameters are the same."""

import sys
from pathlib import Path

import pandas as pd

from dermdistill import params
from dermdistill.data.splits import PARTS, assign, audit
from dermdistill.errors import UserError, run
from dermdistill.files import atomic, read_json, write_json

FOLDER = Path("data/splits")
ASSIGNMENT = FOLDER / "assignment.json"  # every lesion ever assigned with these parameters, present or not


def committed(settings: dict[str, float]) -> dict[str, str]:
    """Lesion id → part as assigned before, or nothing if that was with other parameters."""
    before = read_json(ASSIGNMENT) if ASSIGNMENT.exists() else {}
    return dict(before["lesions"]) if before.get("settings") == settings else {}


def written() -> pd.Series:
    """Part by image id, read back from the three tables."""
    tables = {part: pd.read_csv(FOLDER / f"{part}.csv", dtype=str) for part in PARTS}
    parts = pd.concat([pd.Series(part, index=table["image_id"]) for part, table in tables.items()])
    if parts.index.has_duplicates:
        raise UserError(
            f"{FOLDER} lists an image in two parts; delete the folder's CSV files and run `dvc repro split`"
        )
    return parts


def main() -> None:
    settings = params.load().split.model_dump()
    table = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    shares = {"train": 1 - settings["val"] - settings["holdout"]} | {name: settings[name] for name in PARTS[1:]}
    previous = committed(settings)
    assignment = assign(table, shares, settings["seed"], previous)
    write_json(ASSIGNMENT, {"settings": settings, "lesions": dict(sorted((previous | assignment).items()))})
    for part in PARTS:
        rows = table[table["lesion_id"].map(assignment) == part]
        with atomic(FOLDER / f"{part}.csv") as path:
            rows[["image_id", "lesion_id", "dx", "dx_type"]].to_csv(path, index=False)
    write_json("metrics/split.json", settings | audit(table, written(), shares))
    kept = sum(lesion in previous for lesion in assignment)
    print(f"{len(assignment):,} lesions: {kept:,} kept where they were, {len(assignment) - kept:,} newly assigned")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

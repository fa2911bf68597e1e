"""Assign lesions to train, val and holdout; keep the committed assignment if its parameters are the same."""

from pathlib import Path

import pandas as pd

from dermdistill import params
from dermdistill.data.splits import PARTS, assign, audit
from dermdistill.errors import run
from dermdistill.files import atomic, read_json, write_json

FOLDER = Path("data/splits")


def committed(settings: dict[str, float]) -> dict[str, str]:
    """Lesion id → part as written before, or nothing if it was made with other parameters."""
    if not (FOLDER / "settings.json").exists() or read_json(FOLDER / "settings.json") != settings:
        return {}
    tables = {part: pd.read_csv(FOLDER / f"{part}.csv", dtype=str) for part in PARTS}
    return {lesion: part for part, table in tables.items() for lesion in table["lesion_id"]}


def main() -> None:
    settings = params.load().split.model_dump()
    table = pd.read_csv("data/prepared/metadata.csv", dtype=str)
    shares = {
        "train": 1 - settings["val"] - settings["holdout"],
        "val": settings["val"],
        "holdout": settings["holdout"],
    }
    previous = committed(settings)
    assignment = assign(table, shares, settings["seed"], previous)
    for part in PARTS:
        rows = table[table["lesion_id"].map(assignment) == part]
        with atomic(FOLDER / f"{part}.csv") as path:
            rows[["image_id", "lesion_id", "dx", "dx_type"]].to_csv(path, index=False)
    write_json(FOLDER / "settings.json", settings)
    write_json("metrics/split.json", settings | audit(table, assignment))
    kept = sum(previous.get(lesion) == part for lesion, part in assignment.items())
    print(f"{len(assignment):,} lesions: {kept:,} kept where they were, {len(assignment) - kept:,} newly assigned")


if __name__ == "__main__":
    run(main)

"""split: assign lesions to train, val and holdout; keep the committed assignment, except where duplicates cross it."""

import sys
from pathlib import Path

from dermdistill import params
from dermdistill.core.files import read_json, read_table, write_json, write_table
from dermdistill.errors import run
from dermdistill.splitting import split_audit, splits

FOLDER = Path("data/splits")
ASSIGNMENT = FOLDER / "assignment.json"  # every lesion ever assigned with these parameters, present or not


def main() -> None:
    settings = params.load().split.model_dump()
    num_folds = settings.pop("folds")
    table, duplicates = read_table("data/prepared/metadata.csv"), read_table("data/audit/duplicates.csv")
    committed = read_json(ASSIGNMENT) if ASSIGNMENT.exists() else {}
    result = splits.make_splits(table, duplicates, settings, num_folds, committed)
    write_json(ASSIGNMENT, result.assignment)
    for part, rows in result.tables.items():
        write_table(FOLDER / f"{part}.csv", rows)
    audit = split_audit.audit(table, split_audit.read_parts(FOLDER), splits.shares(settings), duplicates)
    write_json("metrics/split.json", settings | audit)
    print(
        f"{result.lesions:,} lesions: {result.newly_assigned:,} newly assigned, "
        f"{result.moved:,} moved to join a duplicate"
    )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Look for photographs of one lesion under two ids: candidates, a geometric check, confirmed twins."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.core.files import atomic, read_table, write_json
from dermdistill.errors import UserError, run
from dermdistill.splitting import duplicates


def main() -> None:
    thresholds = duplicates.Thresholds(**params.load().audit.model_dump())
    try:
        images = np.load("data/prepared/images.npy", mmap_mode="r", allow_pickle=False)
        metadata = read_table("data/prepared/metadata.csv")
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro prepare` makes it") from None
    pairs = duplicates.find(images, metadata, thresholds)
    twins = pairs[pairs["confirmed"] & (pairs["lesion_a"] != pairs["lesion_b"])]
    for name, table in (("pairs", pairs), ("twins", twins)):
        with atomic(f"data/audit/{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    found = duplicates.summary(pairs, metadata, duplicates.read_labels())
    write_json("metrics/audit.json", {"thresholds": thresholds._asdict()} | found)
    print(f"{len(pairs):,} candidate pairs, {len(twins)} confirmed twins with different lesion ids")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

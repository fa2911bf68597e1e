"""Look for photographs of one lesion under two ids: candidates, a geometric check, confirmed twins."""

import sys

import numpy as np
import pandas as pd

from dermdistill import params
from dermdistill.data import audit
from dermdistill.errors import UserError, run
from dermdistill.files import atomic, write_json


def main() -> None:
    thresholds = audit.Thresholds(**params.load().audit.model_dump())
    try:
        images = np.load("data/prepared/images.npy", mmap_mode="r", allow_pickle=False)
        metadata = pd.read_csv("data/prepared/metadata.csv", dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro prepare` makes it") from None
    known = audit.fingerprints(images)
    pairs = audit.find(images, metadata, known, thresholds)
    twins = pairs[pairs["confirmed"] & (pairs["lesion_a"] != pairs["lesion_b"])]
    codes = metadata[["image_id"]].assign(phash=[f"{code:016x}" for code in known.codes])
    for name, table in (("pairs", pairs), ("twins", twins), ("hashes", codes)):
        with atomic(f"data/audit/{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    found = audit.summary(pairs, metadata, audit.read_labels())
    write_json("metrics/audit.json", {"thresholds": thresholds._asdict()} | found)
    print(f"{len(pairs):,} candidate pairs, {len(twins)} confirmed twins with different lesion ids")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

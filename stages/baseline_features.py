"""baseline_features: compute the hand-crafted features of every prepared image."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.baselines import features
from dermdistill.core.dataset import load_images
from dermdistill.core.files import atomic, write_json
from dermdistill.errors import run


def main() -> None:
    quick = params.load().baselines.features == "quick"
    table, names = features.table(load_images(), quick)
    with atomic("data/features/features.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, table)
    write_json("data/features/names.json", names)
    print(f"{len(names)} features of {len(table):,} images")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

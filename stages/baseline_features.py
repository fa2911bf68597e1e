"""Compute the hand-crafted features of every prepared image, of HAM10000 or of another source: [SOURCE]."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.baselines import features
from dermdistill.core.dataset import load_images
from dermdistill.core.files import atomic, write_json
from dermdistill.errors import run


def main(source: str | None = None) -> None:
    quick = params.load().baselines.features == "quick"
    images = load_images(f"data/other/{source}" if source else "data/prepared")
    folder = f"data/features_other/{source}" if source else "data/features"
    table, names = features.table(images, quick)
    with atomic(f"{folder}/features.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, table)
    write_json(f"{folder}/names.json", names)
    print(f"{len(names)} features of {len(table):,} images")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

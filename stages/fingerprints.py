"""fingerprints: of every image of train and val, so that an outside set that shares some with them is refused."""

import sys

import pandas as pd

from dermdistill.data import fingerprints
from dermdistill.data.dataset import load_images, load_split
from dermdistill.errors import run
from dermdistill.files import atomic


def main() -> None:
    images, parts = load_images(), {part: load_split(part) for part in ("train", "val")}
    found = pd.concat(
        fingerprints.table(split.image_id, (images[row] for row in split.rows)).assign(part=part)
        for part, split in parts.items()
    )
    with atomic("data/fingerprints.csv") as temporary:
        found.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

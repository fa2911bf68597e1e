"""fingerprints: of every image of train and val, so that an outside set that shares some with them is refused."""

import sys

import pandas as pd

from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic
from dermdistill.errors import run
from dermdistill.splitting import image_hashes


def main() -> None:
    images, parts = load_images(), {part: load_split(part) for part in ("train", "val")}
    found = pd.concat(
        image_hashes.table(split.image_id, (images[row] for row in split.rows)).assign(part=part)
        for part, split in parts.items()
    )
    with atomic("data/fingerprints.csv") as temporary:
        found.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

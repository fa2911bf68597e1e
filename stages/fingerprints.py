"""fingerprints: of every training image, so that an outside set that shares some with train is refused."""

import sys

from dermdistill.data import fingerprints
from dermdistill.data.dataset import load_images, load_split
from dermdistill.errors import run
from dermdistill.files import atomic


def main() -> None:
    images, train = load_images(), load_split("train")
    found = fingerprints.table(train.image_id, (images[row] for row in train.rows))
    with atomic("data/fingerprints.csv") as temporary:
        found.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

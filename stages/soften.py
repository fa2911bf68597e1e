"""soften@TEACHER: what one teacher answers to each stored view of the training images (kd.views)."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.learning import soft


def main(name: str) -> None:
    settings = params.load()
    soft.soften(name, settings.kd, settings.train.augment)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

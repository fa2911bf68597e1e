"""soften@TEACHER: what one teacher answers to each stored view of the training images (kd.views)."""

import sys

from dermdistill import params
from dermdistill.distillation import teacher_targets
from dermdistill.errors import run


def main(name: str) -> None:
    settings = params.load()
    teacher_targets.soften(name, settings.kd, settings.train.augment)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

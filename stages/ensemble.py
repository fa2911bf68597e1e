"""Gather all that a student learns from: the mean of the stored targets of kd.teachers, or else these themselves."""

import sys

from dermdistill import params
from dermdistill.distillation import teacher_targets
from dermdistill.errors import run


def main() -> None:
    kd = params.load().kd
    teacher_targets.gather(kd)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

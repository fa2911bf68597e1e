"""Gather all that a student learns from: the teachers of kd.teachers, and the mean of their stored targets."""

import sys

from dermdistill import params
from dermdistill.distillation import teacher_targets
from dermdistill.errors import run


def main() -> None:
    kd = params.load().kd
    teacher_targets.gather(kd.teachers, kd.num_views)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

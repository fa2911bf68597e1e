"""Store one teacher's logits for kd.num_views views of each training image: python -m stages.teacher_targets NAME."""

import sys

from dermdistill import params
from dermdistill.distillation import teacher_targets
from dermdistill.errors import run


def main(name: str) -> None:
    settings = params.load()
    fold = settings.teacher(name).fold if settings.kd.crossfit else None
    teacher_targets.store(name, settings.kd, settings.train.augment, fold)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Train one teacher: python -m stages.train_teacher NAME."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.training import run as training_run


def main(name: str) -> None:
    settings = params.load()
    spec = settings.teacher(name)
    training_run.train(f"teacher_{name}", "models/teachers", spec, settings.train, spec.seed, lambda hard, _: hard)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

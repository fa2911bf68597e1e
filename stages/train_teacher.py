"""Train one teacher: python -m stages.train_teacher NAME."""

import sys

from dermdistill import params
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.training.run import run_training


def main(name: str) -> None:
    settings = params.load()
    spec = settings.teacher(name)
    run_training(ModelId("teacher", name), spec, settings.train, spec.seed, fold=spec.fold)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

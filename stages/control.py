"""Train one student without a teacher, all else equal (``training.run``): python -m stages.control NAME SEED."""

import sys

from dermdistill import params
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.training.run import run_training


def main(name: str, seed: str) -> None:
    settings, model_id = params.load(), ModelId("control", name, int(seed))
    run_training(model_id, settings.student(name), settings.train, int(seed), settings.kd.num_views)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

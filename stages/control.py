"""Train one student without a teacher, all else equal (see ``training.run``): python -m stages.control NAME SEED."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.training import run as training_run


def main(name: str, seed: str) -> None:
    settings = params.load()
    spec = settings.student(name)
    model_id, views = f"control_{name}_s{seed}", settings.kd.views
    training_run.train(model_id, "models/students", spec, settings.train, int(seed), lambda hard, _: hard, views=views)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Robustness of teacher, student and deployed model, from their predictions for corrupted holdout images."""

import sys

from dermdistill import params
from dermdistill.core.files import write_json
from dermdistill.errors import run
from dermdistill.evaluation import robustness


def main() -> None:
    settings = params.load()
    numbers = settings.robustness.images, settings.evaluate.bootstrap, settings.robustness.seed
    for model_id in settings.corrupted_ids():
        write_json(f"metrics/robustness/{model_id}.json", robustness.of_model(".", model_id, *numbers))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

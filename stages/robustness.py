"""How far teacher, student and deployed model fall on corrupted holdout images; copies their predictions into git."""

import sys

from dermdistill import params
from dermdistill.core.files import copy, write_json
from dermdistill.errors import run
from dermdistill.evaluation import corrupted, robustness


def main() -> None:
    settings = params.load()
    options = settings.robustness.images, settings.evaluate.bootstrap, settings.robustness.seed
    for model_id in settings.corrupted_ids():
        collect(model_id, settings)
        write_json(f"metrics/robustness/{model_id}.json", robustness.of_model(".", model_id, *options))


def collect(model_id: str, settings: params.Params) -> None:
    """The model's predictions; of several teachers the mean of theirs."""
    target = f"predictions/corrupted/{model_id}.npz"
    if model_id == params.ENSEMBLE:
        corrupted.write_mean(target, [f"data/corrupted/teacher_{name}.npz" for name in settings.kd.teachers])
    else:
        copy(f"data/corrupted/{model_id}.npz", target)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""How far teacher, student and deployed model fall on corrupted holdout images; copies their predictions into git."""

import shutil
import sys

from dermdistill import params
from dermdistill.core.files import atomic, write_json
from dermdistill.errors import UserError, run
from dermdistill.evaluation import corrupted, robustness


def main() -> None:
    settings = params.load()
    options = settings.robustness.images, settings.evaluate.bootstrap, settings.robustness.seed
    for model_id in settings.corrupted_ids():
        copy(model_id, settings)
        write_json(f"metrics/robustness/{model_id}.json", robustness.of_model(".", model_id, *options))


def copy(model_id: str, settings: params.Params) -> None:
    """The model's predictions; of several teachers the mean of theirs."""
    target = f"predictions/corrupted/{model_id}.npz"
    if model_id == "teacher_ensemble":
        corrupted.write_mean(target, [f"data/corrupted/teacher_{name}.npz" for name in settings.kd.teachers])
        return
    try:
        with atomic(target) as path:
            shutil.copyfile(f"data/corrupted/{model_id}.npz", path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; `dvc repro robustness` makes it") from None


if __name__ == "__main__":
    run(main, *sys.argv[1:])

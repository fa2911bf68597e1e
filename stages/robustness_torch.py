"""Robustness of one PyTorch model on corrupted holdout images: python -m stages.robustness_torch MODEL_ID."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.data.dataset import load_images, load_split
from dermdistill.errors import run
from dermdistill.evaluation import calibration, robustness
from dermdistill.evaluation.metrics import rounded
from dermdistill.files import write_json
from dermdistill.learning import ensemble, training


def main(model_id: str) -> None:
    settings, split = params.load(), load_split("holdout")
    training.deterministic(0)
    model = ensemble.load(model_id)  # asked once an image: mirrored answers would take four times the hours

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(training.predict(model, images, np.arange(len(images))).double().softmax(1))

    chosen = robustness.choose(split.labels, settings.robustness.images, settings.robustness.seed)
    keys = (np.array(split.image_id)[chosen], split.labels[chosen], np.array(split.lesion_id)[chosen])
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    numbers = settings.evaluate.bootstrap, settings.robustness.seed
    result = robustness.study(predict, load_images()[split.rows[chosen]], *keys, fitted, *numbers)
    write_json(f"metrics/robustness/{model_id}.json", rounded(result))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Predictions of a PyTorch model for corrupted holdout images: python -m stages.corrupt_torch MODEL_ID."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.core.dataset import load_images, load_split
from dermdistill.distillation import ensemble
from dermdistill.errors import run
from dermdistill.evaluation import corrupted
from dermdistill.training import loop


def main(model_id: str) -> None:
    settings, split = params.load().robustness, load_split("holdout")
    loop.deterministic(0)
    model = ensemble.load(model_id)  # each image once: mirror images would take four times the hours

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(loop.predict(model, images, np.arange(len(images))).double().softmax(1))

    chosen = corrupted.choose(split.labels, settings.images, settings.seed)
    image_id = np.array(split.image_id)[chosen]
    predictions = corrupted.predict(predict, load_images()[split.rows[chosen]], image_id, settings.seed)
    corrupted.write(f"predictions/corrupted/{model_id}.npz", predictions)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

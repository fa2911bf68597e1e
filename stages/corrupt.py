"""Raw probabilities of one model for corrupted holdout images: python -m stages.corrupt MODEL_ID."""

import sys

import numpy as np

from dermdistill import params, predictor
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.evaluation import corrupted


def main(text: str) -> None:
    model_id, settings, split = ModelId.parse(text), params.load().robustness, load_split("holdout")
    predict = predictor.load(model_id)  # without mirror images, which would take four times as long
    chosen = corrupted.choose(split.labels, settings.images, settings.seed)
    image_id = np.array(split.image_id)[chosen]
    images = load_images()[split.rows[chosen]]
    result = corrupted.predict(lambda batch: predict(batch, np.arange(len(batch))), images, image_id, settings.seed)
    corrupted.write(f"data/corrupted/{model_id}.npz", result)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

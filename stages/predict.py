"""Raw probabilities of MODEL_ID on val and holdout, by PyTorch or, for INT8, by the runtime that is deployed."""

import sys

from dermdistill import params, predictor
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.metrics import predictions


def main(text: str) -> None:
    model_id = ModelId.parse(text)
    images, predict = load_images(), predictor.load(model_id, params.load().predict.flips)
    for part in ("val", "holdout"):
        split = load_split(part)
        dx = [CLASSES[label] for label in split.labels]
        predictions.write(model_id.predictions(part), split.image_id, split.lesion_id, dx, predict(images, split.rows))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

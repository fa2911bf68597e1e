"""Raw probabilities of one PyTorch model on val and holdout: python -m stages.predict_torch MODEL_ID."""

import sys

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_split
from dermdistill.distillation import ensemble
from dermdistill.errors import run
from dermdistill.metrics import predictions
from dermdistill.training import loop


def main(model_id: str) -> None:
    loop.deterministic(0)
    model, images = ensemble.load(model_id, params.load().predict.flips), load_images()
    for name in ("val", "holdout"):
        part = load_split(name)
        probabilities = loop.predict(model, images, part.rows).double().softmax(1).numpy()
        dx = [CLASSES[label] for label in part.labels]
        predictions.write(f"predictions/{name}/{model_id}.csv", part.image_id, part.lesion_id, dx, probabilities)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

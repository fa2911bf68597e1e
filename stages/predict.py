"""Raw probabilities of MODEL_ID on val and holdout, by PyTorch or, for INT8, by the runtime that is deployed."""

import sys
from collections.abc import Callable

import numpy as np

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.deployment.runtime import Detector
from dermdistill.distillation import ensemble
from dermdistill.errors import run
from dermdistill.metrics import predictions
from dermdistill.training import loop


def main(text: str) -> None:
    model_id = ModelId.parse(text)
    images, predict = load_images(), predictor(model_id, params.load().predict.flips)
    for part in ("val", "holdout"):
        split = load_split(part)
        dx = [CLASSES[label] for label in split.labels]
        predictions.write(model_id.predictions(part), split.image_id, split.lesion_id, dx, predict(images, split.rows))


def predictor(model_id: ModelId, flips: bool) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Images (N, H, W, 3) uint8, rows (n,) → probabilities (n, 7)."""
    if model_id.kind == "int8":
        return Detector(model_id.folder / "model.onnx").predict
    loop.deterministic(0)
    model = ensemble.load_model(model_id, flips)
    return lambda images, rows: loop.predict(model, images, rows).double().softmax(1).numpy()


if __name__ == "__main__":
    run(main, *sys.argv[1:])

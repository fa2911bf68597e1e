"""Raw probabilities of one model for corrupted holdout images: python -m stages.corrupt MODEL_ID."""

import sys
from collections.abc import Callable

import numpy as np

from dermdistill import params
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.deployment.runtime import Detector
from dermdistill.distillation import ensemble
from dermdistill.errors import run
from dermdistill.evaluation import corrupted
from dermdistill.training import loop


def main(text: str) -> None:
    model_id, settings, split = ModelId.parse(text), params.load().robustness, load_split("holdout")
    predict = predictor(model_id)
    chosen = corrupted.choose(split.labels, settings.images, settings.seed)
    image_id = np.array(split.image_id)[chosen]
    result = corrupted.predict(predict, load_images()[split.rows[chosen]], image_id, settings.seed)
    corrupted.write(f"data/corrupted/{model_id}.npz", result)


def predictor(model_id: ModelId) -> Callable[[np.ndarray], np.ndarray]:
    """Images (n, H, W, 3) uint8 → probabilities (n, 7); no mirror images, which would take four times as long."""
    if model_id.kind == "int8":
        return Detector(model_id.folder / "model.onnx").predict
    loop.deterministic(0)
    model = ensemble.load_model(model_id)
    return lambda images: np.asarray(loop.predict(model, images, np.arange(len(images))).double().softmax(1))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

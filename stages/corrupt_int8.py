"""Predictions of an INT8 model for corrupted holdout images, by the phone's runtime: STUDENT SEED."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.core.dataset import load_images, load_split
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import run
from dermdistill.evaluation import corrupted


def main(student: str, seed: str) -> None:
    settings, split, model_id = params.load().robustness, load_split("holdout"), f"int8_{student}_s{seed}"
    detector = Detector(f"models/quantized/{model_id}/model.onnx")
    chosen = corrupted.choose(split.labels, settings.images, settings.seed)
    image_id = np.array(split.image_id)[chosen]
    predictions = corrupted.predict(detector.predict, load_images()[split.rows[chosen]], image_id, settings.seed)
    corrupted.write(f"predictions/corrupted/{model_id}.npz", predictions)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

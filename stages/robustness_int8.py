"""Robustness of an INT8 file on corrupted holdout images, by the phone's runtime: STUDENT SEED."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.data.dataset import load_images, load_split
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import run
from dermdistill.evaluation import calibration, robustness
from dermdistill.evaluation.metrics import rounded
from dermdistill.files import write_json


def main(student: str, seed: str) -> None:
    settings, split, model_id = params.load(), load_split("holdout"), f"int8_{student}_s{seed}"
    detector = Detector(f"models/quantized/{model_id}/model.onnx")
    chosen = robustness.choose(split.labels, settings.robustness.images, settings.robustness.seed)
    keys = (np.array(split.image_id)[chosen], split.labels[chosen], np.array(split.lesion_id)[chosen])
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    numbers = settings.evaluate.bootstrap, settings.robustness.seed
    result = robustness.study(detector.predict, load_images()[split.rows[chosen]], *keys, fitted, *numbers)
    write_json(f"metrics/robustness/{model_id}.json", rounded(result))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

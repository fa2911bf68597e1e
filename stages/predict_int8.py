"""predict_int8@STUDENT-SEED: raw probabilities of an INT8 file on val and holdout, by the phone's runtime."""

import sys

from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_split
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import run
from dermdistill.metrics import predictions


def main(student: str, seed: str) -> None:
    model_id = f"int8_{student}_s{seed}"
    detector, images = Detector(f"models/quantized/{model_id}/model.onnx"), load_images()
    for part in ("val", "holdout"):
        split = load_split(part)
        found = detector.predict(images, split.rows)
        dx = [CLASSES[label] for label in split.labels]
        predictions.write(f"predictions/{part}/{model_id}.csv", split.image_id, split.lesion_id, dx, found)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Raw probabilities of one PyTorch model on val and holdout: python -m stages.predict_torch MODEL_ID."""

import sys
from pathlib import Path

import torch

from dermdistill.classes import CLASSES
from dermdistill.data.dataset import load_images, load_split
from dermdistill.errors import run
from dermdistill.evaluation import predictions
from dermdistill.learning import models, training


def main(model_id: str) -> None:
    training.deterministic(0)
    family = "teachers" if model_id.startswith("teacher_") else "students"
    model = models.load(Path("models") / family / model_id)[0].to(memory_format=torch.channels_last)
    images = load_images()
    for name in ("val", "holdout"):
        part = load_split(name)
        probabilities = training.predict(model, images, part.rows).double().softmax(1).numpy()
        dx = [CLASSES[label] for label in part.labels]
        predictions.write(f"predictions/{name}/{model_id}.csv", part.image_id, part.lesion_id, dx, probabilities)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

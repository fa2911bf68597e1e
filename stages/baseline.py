"""baseline@NAME: train one classical model on hand-crafted features, and predict val and holdout."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.baselines import classical
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_split
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.metrics import predictions

FEATURES = "data/features/features.npy"


def main(name: str) -> None:
    settings = params.load().baselines
    try:
        features = np.load(FEATURES, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{FEATURES} does not exist; `dvc repro baseline_features` makes it") from None
    predict = classical.fit_split(name, features, load_split("train"), settings)
    for part in ("val", "holdout"):
        split = load_split(part)
        dx = [CLASSES[label] for label in split.labels]
        path = ModelId("baseline", name).predictions(part)
        predictions.write(path, split.image_id, split.lesion_id, dx, predict(features[split.rows]))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

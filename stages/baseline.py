"""baseline@NAME: train one classical model on hand-crafted features and predict val and holdout."""

import sys

import numpy as np

from dermdistill import params
from dermdistill.baselines import classical
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_split
from dermdistill.errors import UserError, run
from dermdistill.metrics import predictions

FEATURES = "data/features/features.npy"


def main(name: str) -> None:
    settings, train = params.load().baselines, load_split("train")
    try:
        features = np.load(FEATURES, mmap_mode="r")
    except FileNotFoundError:
        raise UserError(f"{FEATURES} does not exist; `dvc repro features` makes it") from None
    chosen = np.arange(len(train.rows))
    if settings.train_images is not None and settings.train_images < len(chosen):
        random = np.random.default_rng(settings.seed)
        chosen = np.sort(random.choice(chosen, settings.train_images, replace=False))
    predict = classical.fit(name, features[train.rows[chosen]], train.labels[chosen], settings)
    for part in ("val", "holdout"):
        split = load_split(part)
        dx = [CLASSES[label] for label in split.labels]
        found = predict(features[split.rows])
        predictions.write(f"predictions/{part}/baseline_{name}.csv", split.image_id, split.lesion_id, dx, found)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

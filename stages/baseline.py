"""Train one classical model on hand-crafted features, and predict val and holdout: baseline NAME [SOURCE].

With a SOURCE it predicts both halves of that, trained again: a fitted model would have to be pickled to be kept.
"""

import sys
from pathlib import Path

import numpy as np

from dermdistill import params
from dermdistill.baselines import classical
from dermdistill.core import parts
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_other, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.metrics import predictions


def main(name: str, source: str | None = None) -> None:
    settings = params.load().baselines
    features = load("data/features", "baseline_features")
    predict = classical.fit_split(name, features, load_split("train"), settings)
    if source:
        features = load(f"data/features_other/{source}", f"baseline_features_other@{source}")
    splits = load_other(source) if source else {part: load_split(part) for part in parts.EVALUATED}
    for part, split in splits.items():
        dx = [CLASSES[label] for label in split.labels]
        path = ModelId("baseline", name).predictions(part, source)
        predictions.write(path, split.image_id, split.lesion_id, dx, predict(features[split.rows]))


def load(folder: str, stage: str) -> np.ndarray:
    """(n, features), memory-mapped."""
    path = Path(folder) / "features.npy"
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro {stage}` makes it") from None


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Raw probabilities of MODEL_ID on val and holdout, or on both halves of another SOURCE: predict MODEL_ID [SOURCE].

By PyTorch or, for INT8, by the runtime that is deployed.
"""

import sys

from dermdistill import params, predictor
from dermdistill.core import parts
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import load_images, load_other, load_split
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.metrics import predictions


def main(text: str, source: str | None = None) -> None:
    model_id = ModelId.parse(text)
    images = load_images(f"data/other/{source}" if source else "data/prepared")
    splits = load_other(source) if source else {part: load_split(part) for part in parts.EVALUATED}
    predict = predictor.load(model_id, params.load().predict.flips)
    for part, split in splits.items():
        dx = [CLASSES[label] for label in split.labels]
        path = model_id.predictions(part, source)
        predictions.write(path, split.image_id, split.lesion_id, dx, predict(images, split.rows))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""What the three training stages share: from a model's block in params to its saved weights.

``train_teacher``, ``distill`` and ``control`` differ in the loss alone, so that a control really is
the same student with the same budget and seed. Where teachers' answers are stored (``kd.views``),
students see the views these were given to, and so do controls.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from torch import Tensor

from dermdistill import tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic
from dermdistill.params import Model, Train
from dermdistill.training import checkpoint, loop, losses, models

# From the plain class-weighted loss to the one that is minimised; the second is the model to train.
MakeLoss = Callable[[losses.Loss, models.Classifier], losses.Loss]


def train(
    model_id: str,
    folder: str | Path,
    spec: Model,
    settings: Train,
    seed: int,
    make_loss: MakeLoss,
    *inputs: str,
    views: int = 0,
    targets: Tensor | None = None,
) -> None:
    """Train ``spec`` and write ``folder/model_id/`` and ``plots/training/model_id.csv``.

    Args:
        model_id: also names checkpoint, history and tracked run.
        seed: of weights, order and dropout, and of the views unless they are stored.
        make_loss: given the class-weighted cross-entropy, the loss to minimise.
        inputs: whatever else the result depends on (teachers' hashes, KD parameters).
        views, targets: as in ``training.Job``.
    """
    with checkpoint.alone(model_id):
        loop.deterministic(seed)
        images, parts = load_images(), {name: load_split(name) for name in ("train", "val")}
        model, card = models.build(spec)
        pixels = [checkpoint.hash_images(images, part.rows) for part in parts.values()]
        labels = [(part.image_id, part.labels.tolist()) for part in parts.values()]
        key = checkpoint.key(model_id, spec.model_dump(), settings.model_dump(), seed, views, pixels, labels, *inputs)
        path = checkpoint.path_of(model_id, key)
        hard = losses.supervised(parts["train"].labels, settings)
        job = loop.Job(images, parts["train"], parts["val"], spec, settings, seed, path, views, targets)
        with tracking.training(
            model_id, {"model": spec.model_dump(), "train": settings.model_dump(), "seed": seed}
        ) as log:
            model, history = loop.fit(model, make_loss(hard, model), job, log)
        if hasattr(model, "projections"):  # see ``features``: needed by the loss, not by the model
            del model.projections
        height, width = images.shape[1:3]
        models.save(
            Path(folder) / model_id, model, card | {"id": model_id, "height": height, "width": width, "key": key}
        )
        _write_history(Path("plots/training") / f"{model_id}.csv", history)
        path.unlink(missing_ok=True)


def _write_history(path: Path, history: loop.History) -> None:
    with atomic(path) as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False, float_format="%.6g")

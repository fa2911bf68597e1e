"""What the three training stages share: from a model's block in params to its saved weights.

``train_teacher``, ``distill`` and ``control`` differ in the loss and the teacher alone, so that a control really is the
same student with the same budget and seed. Where teacher targets are stored (``kd.num_views``), students see the views
that these belong to, and so do controls.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from dermdistill import tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic
from dermdistill.core.model_id import ModelId
from dermdistill.params import Model, Train
from dermdistill.training import checkpoint, loop, losses, models, precision

MakeLoss = Callable[[losses.Loss, models.Classifier], losses.Loss]
"""The task loss, the model to train → the loss to minimise."""


def run_training(
    model_id: ModelId,
    spec: Model,
    settings: Train,
    seed: int,
    num_views: int = 0,
    teacher: loop.Teacher | None = None,
    make_loss: MakeLoss = lambda task_loss, _: task_loss,
    inputs: tuple[str, ...] = (),
    fold: int | None = None,
) -> None:
    """Train ``spec`` and write the model's folder: weights, what they are, and ``history.csv``, a row an epoch.

    Args:
        model_id: also names checkpoint and tracked run.
        seed: of weights, order and dropout, and of the views unless these are stored.
        num_views, teacher: as in ``loop.TrainingRun``.
        inputs: whatever else the result depends on (hashes of teachers, parameters of the distillation).
        fold: of the training images, left out; None trains on all.
    """
    name = str(model_id)
    with checkpoint.alone(name):
        loop.deterministic(seed)
        pinned, settings = settings.devices.precision == "32-true", precision.choose(settings)
        taken = {"precision": settings.devices.precision, "processor": precision.processor()}
        images, parts = load_images(), {part: load_split(part) for part in ("train", "val")}
        if fold is not None:
            parts["train"] = parts["train"].where(~parts["train"].in_fold(fold))
        model, metadata = models.build(spec, images.shape[1:3])
        pixels = [checkpoint.hash_images(images, part.rows) for part in parts.values()]
        labels = [(part.image_id, part.labels.tolist()) for part in parts.values()]
        hashed, in_any_precision = (
            checkpoint.hash_inputs(name, spec.model_dump(), train, seed, num_views, pixels, labels, *inputs)
            for train in (settings.model_dump(), settings.model_dump(exclude={"devices": {"precision"}}))
        )
        arithmetic = "-".join(taken.values())
        path = checkpoint.path_of(name, in_any_precision, arithmetic)
        checkpoint.refuse_other_arithmetic(path, arithmetic)
        task_loss = losses.task_loss(parts["train"].labels, settings)
        # A teacher in the loop sees the student's views, whose control therefore does so too.
        size = spec.size if num_views or model_id.kind == "teacher" else None
        data = images, parts["train"], parts["val"]
        run = loop.TrainingRun(*data, spec, settings, seed, path, num_views, teacher, size)
        tracked = {"model": spec.model_dump(), "train": settings.model_dump(), "seed": seed}
        with tracking.training(name, tracked) as log:
            model, history = loop.fit(model, make_loss(task_loss, model), run, log)
        if hasattr(model, "projections"):  # see ``feature_losses``: needed by the loss, not by the model
            del model.projections
        height, width = images.shape[1:3]
        metadata |= {"id": name, "height": height, "width": width, "inputs": hashed}
        metadata |= {} if pinned else taken  # at 32-true nothing was chosen
        models.save(model_id.folder, model, metadata)
        _write_history(model_id.folder / "history.csv", history)
        path.unlink(missing_ok=True)


def _write_history(path: Path, history: loop.History) -> None:
    with atomic(path) as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False, float_format="%.6g")

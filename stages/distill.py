"""Train one student from its teachers: python -m stages.distill NAME SEED."""

import sys

from torch import nn

from dermdistill import params
from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_json
from dermdistill.distillation import ensemble, teacher_targets
from dermdistill.distillation import losses as kd_losses
from dermdistill.errors import run
from dermdistill.training import losses, models
from dermdistill.training import run as training_run


def main(name: str, seed: str) -> None:
    settings = params.load()
    chosen, spec = settings.kd, settings.student(name)
    targets = teacher_targets.targets(chosen, settings.train.augment) if chosen.views else None
    teacher = nn.Identity() if chosen.views else ensemble.load(ensemble.ID, chosen.flips)  # a stored answer is its own

    size = load_images().shape[1:3]

    def make_loss(hard: losses.Loss, student: models.Classifier) -> losses.Loss:
        return kd_losses.make_loss(chosen, teacher, hard, student, size, settings.train.task)

    training_run.train(
        f"student_{name}_s{seed}",
        "models/students",
        spec,
        settings.train,
        int(seed),
        make_loss,
        chosen.model_dump_json(),
        str(read_json(ensemble.FOLDER / "ensemble.json")),
        views=chosen.views,
        targets=targets,
    )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Train one student from its teachers: python -m stages.distill NAME SEED."""

import sys

from torch import nn

from dermdistill import params
from dermdistill.data.dataset import load_images
from dermdistill.errors import run
from dermdistill.files import read_json
from dermdistill.learning import ensemble, jobs, kd, losses, models, soft


def main(name: str, seed: str) -> None:
    settings = params.load()
    chosen, spec = settings.kd, settings.student(name)
    targets = soft.targets(chosen, settings.train.augment) if chosen.views else None
    teacher = nn.Identity() if chosen.views else ensemble.load(ensemble.ID, chosen.flips)  # a stored answer is its own

    size = load_images().shape[1:3]

    def make_loss(hard: losses.Loss, student: models.Classifier) -> losses.Loss:
        return kd.make_loss(chosen, teacher, hard, student, size, settings.train.task)

    jobs.train(
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

"""Train one student from its teachers: python -m stages.distill NAME SEED."""

import sys

from torch import nn

from dermdistill import params
from dermdistill.errors import run
from dermdistill.files import read_json
from dermdistill.learning import ensemble, jobs, losses, soft


def main(name: str, seed: str) -> None:
    settings = params.load()
    kd, spec = settings.kd, settings.student(name)
    targets = soft.targets(kd, settings.train.augment) if kd.views else None
    teacher = nn.Identity() if kd.views else ensemble.load(ensemble.ID, kd.flips)  # a stored answer is its own

    def make_loss(hard: losses.Loss) -> losses.Loss:
        return losses.distillation(teacher, hard, kd.temperature, kd.alpha)

    inputs = kd.model_dump_json(), str(read_json(ensemble.FOLDER / "ensemble.json"))
    model_id = f"student_{name}_s{seed}"
    jobs.train(model_id, "models/students", spec, settings.train, int(seed), make_loss, *inputs, targets=targets)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Train one student from its teacher: python -m stages.distill NAME SEED."""

import sys

import torch

from dermdistill import params
from dermdistill.errors import run
from dermdistill.learning import jobs, losses, models


def main(name: str, seed: str) -> None:
    settings = params.load()
    kd, folder = settings.kd, f"models/teachers/teacher_{settings.kd.teacher}"
    teacher = models.load(folder)[0].to(memory_format=torch.channels_last)

    def make_loss(hard: losses.Loss) -> losses.Loss:
        return losses.distillation(teacher, hard, kd.temperature, kd.alpha)

    inputs = (kd.model_dump_json(), jobs.teacher_key(folder))
    jobs.train(
        f"student_{name}_s{seed}",
        "models/students",
        settings.student(name),
        settings.train,
        int(seed),
        make_loss,
        *inputs,
    )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

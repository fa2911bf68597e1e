"""Train one student from its teachers: python -m stages.distill NAME SEED."""

import sys

from dermdistill import params
from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_json
from dermdistill.core.model_id import ModelId
from dermdistill.distillation import ensemble, feature_losses, losses, teacher_targets
from dermdistill.errors import run
from dermdistill.training.losses import Loss
from dermdistill.training.models import Classifier
from dermdistill.training.run import run_training


def main(name: str, seed: str) -> None:
    settings = params.load()
    kd, size = settings.kd, load_images().shape[1:3]
    if kd.num_views:
        teacher = teacher_targets.stored(teacher_targets.load(kd, settings.train.augment))
    else:
        network = ensemble.load_teachers(kd.flips)
        teacher = ensemble.in_the_loop(network)

    def loss_of_student(task_loss: Loss, student: Classifier) -> Loss:
        feature_loss = None
        if kd.compares_features:  # then the network is there: params refuse stored targets
            feature_loss = feature_losses.make_feature_loss(kd.method, student, network, size)
        return losses.make_loss(kd, task_loss, settings.train.task, feature_loss)

    run_training(
        ModelId("student", name, int(seed)),
        settings.student(name),
        settings.train,
        int(seed),
        kd.num_views,
        teacher,
        loss_of_student,
        inputs=(kd.model_dump_json(), str(read_json(ensemble.FOLDER / "ensemble.json"))),
    )


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Fidelity: how closely a student reproduces its teacher's predictions, right or wrong.

Fidelity is not accuracy: a student may agree little and be better, or copy the teacher's mistakes. Compared with the
fidelity of the student's own control, it tells whether distillation moved the student towards the teacher at all
(Stanton et al., 2021, arXiv:2106.05945).

The teacher's predictions are those of its own evaluation. If that averages mirror images (``predict.flips``) and the
training targets did not (``kd.flips``), a student that copies its targets perfectly still has a KL above 0.
"""

from typing import Any

import numpy as np

from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, Proportion, mean
from dermdistill.metrics.metrics import SMALLEST
from dermdistill.metrics.predictions import Predictions, require_same_images


def measure(teacher: Predictions, student: Predictions, count: int, seed: int) -> dict[str, Any]:
    """``{agreement, kl, intervals}`` of raw probabilities, with 95 % intervals from ``count`` resamples of lesions.

    ``agreement`` is the proportion of images with the same diagnosis (argmax); ``kl`` is KL(teacher ‖ student) in nats,
    mean over images.

    Raises:
        UserError: if the two are not of the same images.
    """
    require_same_images(teacher, student)
    p, q = (np.maximum(model.probabilities, SMALLEST) for model in (teacher, student))
    metrics: dict[str, Metric] = {
        "agreement": Proportion(p.argmax(axis=1) == q.argmax(axis=1)),
        "kl": mean((p * np.log(p / q)).sum(axis=1)),
    }
    values: dict[str, Any] = {name: bootstrap.value(metric, teacher.lesion_id) for name, metric in metrics.items()}
    return values | {"intervals": bootstrap.intervals(metrics, teacher.lesion_id, count, seed)}

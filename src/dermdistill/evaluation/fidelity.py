"""How far a student does what its teacher does, right or wrong.

Fidelity is not accuracy: a student may agree little and be better, or copy the teacher's mistakes. Read beside the
student's own control it tells whether distillation moved the student towards the teacher at all (Stanton et al. (2021),
arXiv:2106.05945).

The teacher is the one that is judged. Where that is with mirror images (``predict.flips``) and it taught without
(``kd.flips``), a perfect copy of what was taught would not reach a KL of 0.
"""

from typing import Any

import numpy as np

from dermdistill.evaluation import bootstrap
from dermdistill.metrics.metrics import SMALLEST
from dermdistill.metrics.predictions import Predictions, require_same_images


def measure(teacher: Predictions, student: Predictions, count: int, seed: int) -> dict[str, Any]:
    """``{agreement, kl, intervals}`` of raw probabilities: share of images with the same diagnosis (argmax), and
    KL(teacher ‖ student) in nats, mean over images; 95 % intervals from ``count`` resamples of lesions.
    """
    require_same_images(teacher, student)
    p, q = (np.maximum(one.probabilities, SMALLEST) for one in (teacher, student))
    metrics: dict[str, bootstrap.Metric] = {
        "agreement": bootstrap.Proportion(p.argmax(axis=1) == q.argmax(axis=1)),
        "kl": bootstrap.mean((p * np.log(p / q)).sum(axis=1)),
    }
    found: dict[str, Any] = {name: bootstrap.value(one, teacher.lesion_id) for name, one in metrics.items()}
    return found | {"intervals": bootstrap.intervals(metrics, teacher.lesion_id, count, seed)}

"""What teachers and controls minimise: cross-entropy in several weights. ``distillation.losses`` adds the teacher.

A loss is a function ``loss(student_logits, labels, teacher_logits)`` that returns named terms. The loop minimises the
term ``loss`` and logs the rest, so that one can see which term drove a student. The losses here ignore the teacher.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.params import Train

Loss = Callable[[Tensor, Tensor, Tensor | None], dict[str, Tensor]]
"""Student logits (n, 7), labels (n,) or shares (n, 7), teacher logits (n, 7) or None → named terms, each a scalar."""

EFFECTIVE = 0.999  # β of Cui et al.: beyond some thousand images of a class, more of them hardly count


def task_loss(labels: np.ndarray, settings: Train) -> Loss:
    """The loss that ``train`` in params.yaml describes; class weights are counted from the training ``labels`` (n,)."""
    options = settings.label_smoothing, settings.focal_gamma
    if settings.task == "diagnosis":
        return cross_entropy(class_weights(labels, len(CLASSES), settings.class_weights), *options)
    weights = class_weights((labels == MELANOMA).astype(np.int64), 2, settings.class_weights)
    if settings.focal_alpha is not None:
        weights = torch.tensor([1 - settings.focal_alpha, settings.focal_alpha])
    return binary_loss(cross_entropy(weights, *options))


def binary_loss(loss: Loss) -> Loss:
    """``loss`` of two classes, for a model of seven: all but melanoma count as one, of their summed probability.

    P(melanoma) stays the softmax entry, σ(logit − logsumexp of the others), so that nothing after training differs;
    among the other six the model learns nothing.
    """

    def binary(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> dict[str, Tensor]:
        pair = binary_logits(logits)
        if labels.ndim == 1:
            return loss(pair, (labels == MELANOMA).long(), teacher_logits)
        share = labels[:, MELANOMA]
        return loss(pair, torch.stack([1 - share, share], 1), teacher_logits)

    return binary


def binary_logits(logits: Tensor) -> Tensor:
    """(n, classes) logits as (n, 2): of all other diagnoses together, and of melanoma."""
    others = [index for index in range(len(CLASSES)) if index != MELANOMA]
    return torch.stack([logits[:, others].logsumexp(1), logits[:, MELANOMA]], 1)


def class_weights(labels: np.ndarray, classes: int, kind: str) -> Tensor:
    """(classes,) how much an image of each class counts, averaging 1 over images; 0 for a class without images.

    none: 1; sqrt and balanced: inverse frequency to the power ½ and 1; effective: inverse effective number
    (1 − βⁿ) / (1 − β) of Cui et al. (2019), arXiv:1901.05555, which with ``focal_gamma`` is their
    class-balanced focal loss.
    """
    counts = np.bincount(labels, minlength=classes)
    seen = np.maximum(counts, 1.0)
    if kind == "effective":
        inverse = (1 - EFFECTIVE) / (1 - EFFECTIVE**seen)
    else:
        inverse = seen ** -{"none": 0.0, "sqrt": 0.5, "balanced": 1.0}[kind]
    weights = np.where(counts > 0, inverse, 0.0)
    return torch.tensor(weights * counts.sum() / (weights * counts).sum(), dtype=torch.float32)


def cross_entropy(weights: Tensor, label_smoothing: float = 0.0, focal_gamma: float = 0.0) -> Loss:
    """Weighted cross-entropy: Σ w_y · (1 − p_y)^γ · CE_y / n, over the batch size and not the batch's weight sum,
    so that a batch rich in a rare class counts for more. γ > 0 makes it the focal loss of Lin et al. (2017),
    arXiv:1708.02002.

    Labels are (n,) classes, or (n, classes) shares of classes in a mixed image, whose losses are then averaged
    by share.
    """

    def loss(logits: Tensor, labels: Tensor, teacher_logits: Tensor | None = None) -> dict[str, Tensor]:
        weight = weights.to(logits.device)
        if labels.ndim == 1 and not focal_gamma:
            each = F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
            return {"loss": (weight[labels] * each).mean()}
        shares = labels if labels.ndim == 2 else F.one_hot(labels, logits.shape[1])
        log_p = F.log_softmax(logits, dim=1)
        smoothed = -(1 - label_smoothing) * log_p - label_smoothing * log_p.mean(1, keepdim=True)  # of each class
        each = shares * weight * (1 - log_p.exp()) ** focal_gamma * smoothed
        return {"loss": each.sum(1).mean()}

    return loss

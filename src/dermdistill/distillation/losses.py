"""What a student minimises: L = (1 − α) · task_loss + α · kd_loss (+ β · feature_loss), kd_loss by one of four methods.

Every method takes student and teacher logits (n, classes) and is a mean over images, times T², which keeps the
gradient's size when the temperature T changes. Methods of features have kl_loss as kd_loss, and add β · feature_loss
(``feature_losses``).
With two classes, melanoma or not, ls, dkd and dist degenerate, and ``params`` refuses them there: standardised, two
logits are 1 and −1; beside the true class there is but one, so that dkd is kd; of an image, two probabilities that sum
to 1 correlate fully.
Deliberately absent: a schedule of α, and anything that needs a memory of other batches (contrastive distillation).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from dermdistill.blocks import KD
from dermdistill.training.losses import Loss, binary_logits

LogitsLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Student logits (n, classes), teacher logits (n, classes), labels (n,) → a scalar."""
EPSILON = 1e-8


def make_loss(
    kd: KD, task_loss: Loss, task: str = "diagnosis", feature_loss: Callable[[], Tensor] | None = None
) -> Loss:
    """The loss that ``kd`` describes.

    Args:
        task: ``train.task``. Of melanoma or not, the teacher too has learnt two classes, so no more are compared.
        feature_loss: distance of the feature maps of the last forward passes, for the methods at and feature.
    """
    kd_loss = logits_loss(kd.method, kd.temperature, kd.beta)
    if task == "melanoma":
        kd_loss = binary(kd_loss)
    return distillation(task_loss, kd_loss, kd.alpha, feature_loss, kd.beta)


def distillation(
    task_loss: Loss,
    kd_loss: LogitsLoss,
    alpha: float,
    feature_loss: Callable[[], Tensor] | None = None,
    beta: float = 0.0,
) -> Loss:
    """(1 − α) · task_loss + α · kd_loss (+ β · feature_loss). With α = 1 the student learns from the teacher alone.

    Source: Hinton, Vinyals, Dean (2015), arXiv:1503.02531, section 2.
    """

    def loss(student_logits: Tensor, labels: Tensor, teacher_logits: Tensor | None) -> dict[str, Tensor]:
        if teacher_logits is None:
            raise TypeError("distillation needs a teacher; give one to the TrainingRun")
        task = task_loss(student_logits, labels, teacher_logits)["loss"]
        soft = kd_loss(student_logits, teacher_logits, labels)
        terms = {"loss": (1 - alpha) * task + alpha * soft, "task_loss": task, "kd_loss": soft}
        if feature_loss is not None:
            terms["feature_loss"] = feature_loss()
            terms["loss"] = terms["loss"] + beta * terms["feature_loss"]
        return terms

    return loss


def logits_loss(method: str, temperature: float, beta: float) -> LogitsLoss:
    """The kd_loss of a method; ``at`` and ``feature`` have that of ``kd``."""
    if method == "ls":
        return lambda student, teacher, labels: logit_standardization_loss(student, teacher, temperature)
    if method == "dkd":
        return lambda student, teacher, labels: dkd_loss(student, teacher, labels, temperature, beta)
    if method == "dist":
        return lambda student, teacher, labels: dist_loss(student, teacher, temperature, beta)
    return lambda student, teacher, labels: kl_loss(student, teacher, temperature)


def binary(loss: LogitsLoss) -> LogitsLoss:
    """``loss`` of melanoma against all other diagnoses together (labels are not collapsed: ``params`` refuses dkd)."""
    return lambda student, teacher, labels: loss(binary_logits(student), binary_logits(teacher), labels)


def kl_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher/T) ‖ softmax(student/T)), mean over images.

    ``batchmean``, since dividing by the number of elements would shrink α silently as classes are added.
    """
    log_p = F.log_softmax(teacher / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def logit_standardization_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """kl_loss of z = (logit − mean) / sd, both over an image's classes: the student need not match the scale.

    Source: Sun, Ren, Li, Wang, Cao (2024), arXiv:2403.01427, with T as their base temperature.
    """

    def z(logits: Tensor) -> Tensor:
        return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True, correction=0) + EPSILON)

    return kl_loss(z(student), z(teacher), temperature)


def dkd_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, beta: float) -> Tensor:
    """T² · (TCKD + β · NCKD): KL of (p_y, 1 − p_y), and KL among the classes other than y; labels are (n,).

    kl_loss is TCKD + (1 − p_y) · NCKD: a teacher that is sure hardly teaches what it thinks of the rest.
    Source: Zhao, Cui, Song, Qiu, Liang (2022), arXiv:2203.08679.
    """
    truth = F.one_hot(labels, student.shape[1]).bool()

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_p = F.log_softmax(logits / temperature, dim=1)
        others = log_p.masked_fill(truth, -torch.inf).logsumexp(1)
        rest = (logits / temperature)[~truth].view(len(logits), -1)
        return torch.stack([log_p[truth], others], 1), F.log_softmax(rest, dim=1)

    (target_q, rest_q), (target_p, rest_p) = parts(student), parts(teacher)
    tckd, nckd = (
        F.kl_div(q, p, reduction="batchmean", log_target=True) for q, p in ((target_q, target_p), (rest_q, rest_p))
    )
    return (tckd + beta * nckd) * temperature**2


def dist_loss(student: Tensor, teacher: Tensor, temperature: float, beta: float) -> Tensor:
    """T² · (inter + β · intra), each 1 − Pearson's correlation of softmax(logits/T): of an image's classes, averaged
    over images; of a class's images in the batch, averaged over classes. Order and proportion count, not the scale.

    Source: Huang, You, Wang, Qian, Xu (2022), arXiv:2205.10536 (DIST); β is their γ / β.
    """
    q, p = (F.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    return (_distance(q, p) + beta * _distance(q.T, p.T)) * temperature**2


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """1 − correlation of each row, mean over rows."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return 1 - F.cosine_similarity(a, b, dim=1, eps=EPSILON).mean()

"""The one training loop, for teachers, students and controls alike.

AdamW with warm-up and cosine decay, class-weighted loss, a moving average of the weights; the epoch
whose average has the best melanoma AUC on val is kept. Everything random is a function of (seed,
epoch, image), and a checkpoint closes every epoch: killed and started again, a training ends with
the same bits as one never killed.
Deliberately absent: callbacks, several devices, mixed precision.
"""

import copy
import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from timm.optim import param_groups_layer_decay  # type: ignore[attr-defined]
from torch import Tensor, nn
from tqdm import tqdm

from dermdistill.classes import CLASSES, MELANOMA
from dermdistill.data.dataset import Split
from dermdistill.errors import UserError
from dermdistill.learning import checkpoint
from dermdistill.learning.augment import augment, to_float
from dermdistill.learning.losses import Loss
from dermdistill.learning.models import Classifier
from dermdistill.params import Model, Train

History = list[dict[str, float]]
Log = Callable[[dict[str, float], int], None]
STORED = 0  # seed of the stored views, the same for students of any seed


@dataclass(frozen=True)
class Job:
    """One training: which images, what settings, where its checkpoint lies."""

    images: np.ndarray  # (N, H, W, 3) uint8
    train: Split
    val: Split
    model: Model
    settings: Train
    seed: int
    checkpoint: Path
    targets: Tensor | None = None  # (K, n, 7): what a teacher answered to K stored views of the training images

    def view(self, epoch: int) -> tuple[int, int]:
        """(seed, epoch) of the views to show: new ones in every epoch, unless a teacher's answers are stored."""
        return (self.seed, epoch) if self.targets is None else (STORED, epoch % len(self.targets))


def deterministic(seed: int) -> None:
    """Same machine, same threads → same bits."""
    torch.use_deterministic_algorithms(True)
    # A debugging aid that costs a third of the time:
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_flush_denormal(True)  # vanishing activations otherwise cost a multiple of the time
    torch.manual_seed(seed)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc reuse large blocks instead of giving each back to the kernel and faulting it in anew.

    Activations are freed and allocated again in every step; without this, page faults take about a
    third of the CPU time of a small network (``man 3 mallopt``).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, musl has not
        if mallopt:
            M_TRIM_THRESHOLD, M_MMAP_MAX, NEVER = -1, -4, -1
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, NEVER)


def fit(model: Classifier, loss: Loss, job: Job, log: Log) -> tuple[Classifier, History]:
    """Train ``model`` in place; return it with the weights of its best epoch on val, and the history.

    ``log(row, epoch)`` is told each finished epoch, those of a resumed training too.

    Raises:
        UserError: the loss is no longer a number, or the checkpoint is damaged.
    """
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(model, job.settings), lr=job.model.lr, fused=True)
    average = copy.deepcopy(model)
    state = checkpoint.read(job.checkpoint) or {"epoch": 0, "history": [], "best": None, "best_score": -1.0}
    if state["epoch"]:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        for row in state["history"]:
            log(row, int(row["epoch"]))
    for epoch in range(state["epoch"], job.model.epochs):
        if exhausted([row["val_melanoma_auc"] for row in state["history"]], job.settings.patience):
            break
        torch.manual_seed(_mix(job.seed, epoch))  # dropout and drop-path
        trained = _train_epoch(model, average, loss, optimizer, job, epoch)
        row = {"epoch": epoch + 1.0} | trained | _validate(average, job)
        state["history"].append(row)
        score = row["val_melanoma_auc"]
        if state["best"] is None or score > state["best_score"]:
            state |= {"best": {k: v.clone() for k, v in average.state_dict().items()}, "best_score": score}
        state |= {"epoch": epoch + 1, "model": model.state_dict(), "average": average.state_dict()}
        state["optimizer"] = optimizer.state_dict()
        checkpoint.write(job.checkpoint, state)
        log(row, epoch + 1)
        tqdm.write(f"epoch {epoch + 1}: melanoma AUC on val {score:.4f}, best {state['best_score']:.4f}")
    model.load_state_dict(state["best"])
    return model.eval(), state["history"]


def _train_epoch(
    model: nn.Module, average: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, job: Job, epoch: int
) -> dict[str, float]:
    model.train()
    if job.settings.freeze_batch_norm:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    sums: dict[str, float] = {}
    steps = len(job.train.rows) // job.settings.batch_size
    bar = tqdm(_batches(job, epoch), f"epoch {epoch + 1}/{job.model.epochs}", steps, unit="batch", mininterval=1)
    for step, picked in enumerate(bar):
        rate = job.model.lr * schedule((epoch * steps + step) / steps, job.settings.warmup_epochs, job.model.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        rows, labels = job.train.rows[picked], torch.from_numpy(job.train.labels[picked])
        images = augment(to_float(job.images[rows]), rows, job.settings.augment, *job.view(epoch))
        if job.model.mixup:
            images, labels = mixup(images, labels, job.model.mixup, (job.seed, epoch, step))
        asked = images if job.targets is None else job.targets[epoch % len(job.targets)][picked]
        terms = loss(model(images), labels, asked)
        value = terms["loss"].item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1}; lower lr (now {job.model.lr}) "
                f"(last good checkpoint: {job.checkpoint if epoch else 'none'})"
            )
        optimizer.zero_grad(set_to_none=True)
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), job.settings.clip_norm)
        optimizer.step()
        follow(average, model, min(job.settings.ema, (1 + epoch * steps + step) / (10 + epoch * steps + step)))
        sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        bar.set_postfix(loss=f"{sums['loss'] / (step + 1):.4f}", refresh=False)
    return {f"train_{name}": total / steps for name, total in sums.items()} | {"lr": rate}


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average ← decay · average + (1 − decay) · model, for weights and batch-norm statistics alike.

    The decay begins small (Tarvainen & Valpola (2017), arXiv:1703.01780, keep it smaller in the ramp-up
    too), so that the starting weights are soon forgotten. 0 makes the average the model itself.
    """
    theirs = model.state_dict()
    for name, mine in average.state_dict().items():
        if mine.is_floating_point():
            mine.lerp_(theirs[name], 1 - decay)
        else:
            mine.copy_(theirs[name])


def _batches(job: Job, epoch: int) -> Iterator[np.ndarray]:
    """Indices of each full batch of a fresh permutation; the few left over wait for another epoch.

    Balanced sampling draws as many with replacement, every class equally likely.
    """
    key = np.array([(job.seed << 32) | epoch, 2**63], dtype=np.uint64)  # no image has that number
    generator, count = np.random.Generator(np.random.Philox(key=key)), len(job.train.rows)
    if job.settings.sampling == "balanced":
        rarity = 1 / np.bincount(job.train.labels)[job.train.labels]
        order = generator.choice(count, count, p=rarity / rarity.sum())
    else:
        order = generator.permutation(count)
    size = job.settings.batch_size
    if len(order) < size:
        raise UserError(f"train has {len(order)} images, fewer than train.batch_size {size}; lower it")
    return (order[start : start + size] for start in range(0, len(order) - size + 1, size))


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def schedule(epoch: float, warmup: float, epochs: float) -> float:
    """Share of the peak rate: linear warm-up, then half a cosine down to 0. ``epoch`` may be fractional."""
    if epoch < warmup:
        return min(1.0, (epoch + 1e-3) / warmup)
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / max(epochs - warmup, 1e-9)))


def mixup(images: Tensor, labels: Tensor, alpha: float, key: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Each image mixed with another of the batch: images of the same shape, labels as (n, classes) shares.

    One share λ ~ Beta(α, α) a batch. Source: Zhang et al. (2018), arXiv:1710.09412.
    """
    generator = np.random.default_rng(key)
    share, partner = float(generator.beta(alpha, alpha)), torch.from_numpy(generator.permutation(len(labels)))
    targets = F.one_hot(labels, len(CLASSES)).float()
    return torch.lerp(images[partner], images, share), torch.lerp(targets[partner], targets, share)


def exhausted(scores: list[float], patience: int) -> bool:
    """Whether the best score is ``patience`` epochs old; never if that is 0."""
    return bool(patience and scores) and len(scores) - 1 - int(np.argmax(scores)) >= patience


def parameter_groups(model: Classifier, settings: Train) -> list[dict[str, Any]]:
    """Biases and normalisation are left alone by weight decay; lower layers learn more slowly if so asked.

    With ``layer_decay`` d, the k-th layer below the head learns at dᵏ of its rate (discriminative rates).
    """
    if settings.layer_decay < 1:
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model.network, settings.weight_decay, layer_decay=settings.layer_decay
        )
        return groups
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def predict(model: nn.Module, images: np.ndarray, rows: np.ndarray, batch_size: int = 64) -> Tensor:
    """Logits (n, 7) of ``images[rows]``, unaugmented."""
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(to_float(images[rows[i : i + batch_size]])) for i in range(0, len(rows), batch_size)])


def _validate(model: nn.Module, job: Job) -> dict[str, float]:
    logits, labels = predict(model, job.images, job.val.rows), job.val.labels
    if not torch.isfinite(logits).all():
        raise UserError(
            f"the weights are no longer numbers; lower lr (now {job.model.lr}); last good: {job.checkpoint}"
        )
    melanoma = labels == MELANOMA
    if melanoma.all() or not melanoma.any():
        raise UserError(
            "val needs both melanoma and other images to choose the best epoch; give split.val a larger share"
        )
    return {
        "val_loss": F.cross_entropy(logits, torch.from_numpy(labels)).item(),
        "val_melanoma_auc": float(roc_auc_score(melanoma, logits.softmax(1)[:, MELANOMA].numpy())),
        "val_balanced_accuracy": float(balanced_accuracy_score(labels, logits.argmax(1).numpy())),
    }

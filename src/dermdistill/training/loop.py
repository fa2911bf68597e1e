"""The one training loop, for teachers, students and controls alike.

AdamW with warm-up and cosine decay, class-weighted loss, a moving average of the weights; kept is the
average at the last epoch or at the one with the best melanoma AUC on val (``keep``). Everything random
is a function of (seed, epoch, image) or of a stored view, and a checkpoint closes every epoch: killed
and started again, a training ends with the same bits as one never killed.
Several processes share each batch; see ``devices``.
Deliberately absent: callbacks.
"""

import copy
import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor, nn
from tqdm import tqdm

from dermdistill.core.classes import MELANOMA
from dermdistill.core.dataset import Split
from dermdistill.errors import UserError
from dermdistill.params import Model, Train
from dermdistill.training import checkpoint, distributed
from dermdistill.training.augment import augment, mixup, to_float
from dermdistill.training.losses import Loss
from dermdistill.training.models import Classifier
from dermdistill.training.optim import freeze, lr_factor, parameter_groups, should_stop_early, train_mode, update_ema

History = list[dict[str, float]]
Log = Callable[[dict[str, float], int], None]
STORED = 0  # seed of the stored views, the same for students and controls of any seed


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
    views: int = 0  # show these stored views in turn, the same for any seed; 0: new ones in every epoch, by seed
    targets: Tensor | None = None  # (views, n, 7): what a teacher answered to each view of the training images

    def view(self, epoch: int) -> tuple[int, int]:
        """(seed, epoch) that the views of an epoch are drawn with."""
        return (STORED, epoch % self.views) if self.views else (self.seed, epoch)


def deterministic(seed: int) -> None:
    """Same machine, same threads → same bits; on a GPU, as far as its kernels allow."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it matrix products on a GPU are refused
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())  # some poolings have no such kernel
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
    """Train ``model`` in place; return it with the weights of the epoch ``keep`` names, and the history.

    ``log(row, epoch)`` is told each finished epoch, those of a resumed training too. Of several
    processes only the first returns.

    Raises:
        UserError: the loss is no longer a number, or the checkpoint is damaged.
    """
    fabric = distributed.start(job.settings.devices)
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    freeze(model, job.settings.frozen_stages)
    fused = job.settings.devices.precision != "16-mixed"  # clipping needs the gradients unscaled before the step
    optimizer = torch.optim.AdamW(parameter_groups(model, job.settings), lr=job.model.lr, fused=fused)
    average = copy.deepcopy(model)
    state = checkpoint.read(job.checkpoint) or {"epoch": 0, "history": [], "kept": {}, "kept_epoch": 0}
    if state["epoch"]:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        for row in state["history"]:
            log(row, int(row["epoch"]))
    if job.settings.devices.compile:
        model.compile()
    network, stepper = fabric.setup(model, optimizer)
    for epoch in range(state["epoch"], job.model.epochs):
        before = [row["val_melanoma_auc"] for row in state["history"]]
        if should_stop_early(before, job.settings.patience):
            break
        torch.manual_seed(_mix(job.seed, epoch) + distributed.rank())  # dropout and drop-path
        trained = _train_epoch(fabric, network, average, loss, stepper, job, epoch)
        row = {"epoch": epoch + 1.0} | trained | _validate(fabric, average, job)
        score = row["val_melanoma_auc"]
        state["history"].append(row)
        if job.model.keep == "last" or score > max(before, default=-1.0):
            state |= {"kept": {k: v.clone() for k, v in average.state_dict().items()}, "kept_epoch": epoch + 1}
        state |= {"epoch": epoch + 1, "model": model.state_dict(), "average": average.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "precision": fabric.strategy.precision.state_dict()}
        if fabric.is_global_zero:
            checkpoint.write(job.checkpoint, state)
            log(row, epoch + 1)
            tqdm.write(f"epoch {epoch + 1}: melanoma AUC on val {score:.4f}; keeping {state['kept_epoch']}")
    distributed.end()
    model.load_state_dict(state["kept"])
    return model.cpu().eval(), [row | {"kept": float(row["epoch"] == state["kept_epoch"])} for row in state["history"]]


def _train_epoch(
    fabric: Fabric,
    model: nn.Module,
    average: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    job: Job,
    epoch: int,
) -> dict[str, float]:
    train_mode(model, job.settings.freeze_batch_norm)
    sums: dict[str, float] = {}
    steps = len(job.train.rows) // job.settings.batch_size
    title, quiet = f"epoch {epoch + 1}/{job.model.epochs}", not fabric.is_global_zero
    bar = tqdm(_batches(job, epoch), title, steps, unit="batch", mininterval=1, disable=quiet)
    for step, picked in enumerate(bar):
        rate = job.model.lr * lr_factor((epoch * steps + step) / steps, job.settings.warmup_epochs, job.model.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        images, labels = _views(job, picked, epoch, step, fabric.device)
        asked = images if job.targets is None else distributed.shard(job.targets[epoch % job.views][picked])
        terms = loss(model(images), labels, asked.to(fabric.device))
        value = terms["loss"].item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1}; lower lr (now {job.model.lr}) "
                f"(last good checkpoint: {job.checkpoint if epoch else 'none'})"
            )
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        fabric.strategy.precision.unscale_gradients(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), job.settings.clip_norm)
        optimizer.step()
        update_ema(average, model, min(job.settings.ema, (1 + epoch * steps + step) / (10 + epoch * steps + step)))
        sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        bar.set_postfix(loss=f"{sums['loss'] / (step + 1):.4f}", refresh=False)
    return distributed.mean(fabric, {f"train_{name}": total / steps for name, total in sums.items()}) | {"lr": rate}


def _views(job: Job, picked: np.ndarray, epoch: int, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """This process's share of a batch: random views of the images, and their labels."""
    if not job.model.mixup:
        picked = distributed.shard(picked)
    rows, labels = job.train.rows[picked], torch.from_numpy(job.train.labels[picked]).to(device)
    images = augment(to_float(job.images[rows], device), rows, job.settings.augment, *job.view(epoch))
    if job.model.mixup:  # of the whole batch: an image's partner may fall to another process
        images, labels = map(distributed.shard, mixup(images, labels, job.model.mixup, (job.seed, epoch, step)))
    return images, labels


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


def predict(model: nn.Module, images: np.ndarray, rows: np.ndarray, batch_size: int = 64) -> Tensor:
    """Logits (n, 7) of ``images[rows]``, unaugmented."""
    model.eval()
    device = next(model.parameters()).device
    batches = (images[rows[i : i + batch_size]] for i in range(0, len(rows), batch_size))
    with torch.inference_mode():
        return torch.cat([model(to_float(batch, device)).cpu() for batch in batches])


def _validate(fabric: Fabric, model: Classifier, job: Job) -> dict[str, float]:
    distributed.agree(model)
    rows, labels = job.val.rows, job.val.labels
    with fabric.autocast():
        mine = predict(model, job.images, rows[distributed.rank() :: distributed.count()])
    logits = distributed.gather(fabric, mine.float(), len(rows))
    if not torch.isfinite(logits).all():
        raise UserError(
            f"the weights are no longer numbers; lower lr (now {job.model.lr}); last good: {job.checkpoint}"
        )
    melanoma = labels == MELANOMA
    if melanoma.all() or not melanoma.any():
        raise UserError("val needs both melanoma and other images for its AUC; give split.val a larger share")
    return {
        "val_loss": F.cross_entropy(logits, torch.from_numpy(labels)).item(),
        "val_melanoma_auc": float(roc_auc_score(melanoma, logits.softmax(1)[:, MELANOMA].numpy())),
        "val_balanced_accuracy": float(balanced_accuracy_score(labels, logits.argmax(1).numpy())),
    }

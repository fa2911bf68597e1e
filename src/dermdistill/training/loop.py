"""The one training loop, for teachers, students and controls alike.

AdamW with warm-up and cosine decay, class-weighted loss, a moving average of the weights; kept is the
average at the last epoch or at the one with the best melanoma AUC on val (``keep``). Everything random
is a function of seed and epoch (views: of the image too, or stored; mixup: of the step; dropout: of the
process), and a checkpoint closes every epoch: killed and started again, a training ends with the same
bits as one never killed.
Several processes share each batch; see ``distributed``.
Deliberately absent: callbacks, and any knowledge of how a teacher comes to its logits (``distillation``).
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
from dermdistill.training import checkpoint, depthwise, distributed, folding
from dermdistill.training.augment import augment, mixup, to_float
from dermdistill.training.losses import Loss
from dermdistill.training.models import Classifier
from dermdistill.training.optim import freeze, lr_factor, parameter_groups, should_stop_early, train_mode, update_ema

History = list[dict[str, float]]
Log = Callable[[dict[str, float], int], None]
STORED = 0  # seed of the stored views, the same for students and controls of any seed


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one step, all on its device."""

    images: Tensor  # (n, 3, H, W) in [0, 1]: random views
    labels: Tensor  # (n,) classes, or (n, 7) shares of classes where images are mixed
    indices: np.ndarray  # (n,) which of the training images these are
    epoch: int


Teacher = Callable[[Batch], Tensor]
"""The teacher's logits (n, 7) for a batch: looked up, or computed from the very images the student sees."""


@dataclass(frozen=True)
class TrainingRun:
    """One training: which images, what settings, who teaches, where its checkpoint lies."""

    images: np.ndarray  # (N, H, W, 3) uint8
    train: Split
    val: Split
    model: Model
    settings: Train
    seed: int
    checkpoint: Path
    num_views: int = 0  # K: show the same K views of each image in turn, whatever the seed; 0: new ones in every epoch
    teacher: Teacher | None = None
    view_size: list[int] | None = None  # [height, width] that views are drawn at; None: as prepared

    def view(self, epoch: int) -> tuple[int, int]:
        """(seed, epoch) that the views of an epoch are drawn with."""
        return (STORED, epoch % self.num_views) if self.num_views else (self.seed, epoch)


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


def fit(model: Classifier, loss: Loss, run: TrainingRun, log: Log) -> tuple[Classifier, History]:
    """Train ``model`` in place; return it with the weights of the epoch ``keep`` names, and the history.

    ``log(row, epoch)`` is called after each epoch, and for those of a resumed training too. Of several
    processes only the first returns.

    Raises:
        UserError: the loss is no longer a number, or the checkpoint is damaged.
    """
    fabric = distributed.start(run.settings.devices)
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    freeze(model, run.settings.frozen_stages)
    fused = run.settings.devices.precision != "16-mixed"  # clipping needs the gradients unscaled before the step
    optimizer = torch.optim.AdamW(parameter_groups(model, run.settings), lr=run.model.lr, fused=fused)
    average = copy.deepcopy(model)
    state = checkpoint.read(run.checkpoint) or {"epoch": 0, "history": [], "kept": {}, "kept_epoch": 0}
    if state["epoch"]:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        fabric.strategy.precision.load_state_dict(state["precision"])
        for row in state["history"]:
            log(row, int(row["epoch"]))
    if run.settings.devices.compile:
        model.compile()
    network, stepper = fabric.setup(model, optimizer)
    for epoch in range(state["epoch"], run.model.epochs):
        before = [row["val_melanoma_auc"] for row in state["history"]]
        if should_stop_early(before, run.settings.patience):
            break
        torch.manual_seed(_mix(run.seed, epoch) + distributed.rank())  # dropout and drop-path
        trained = _train_epoch(fabric, network, average, loss, stepper, run, epoch)
        row = {"epoch": epoch + 1.0} | trained | _validate(fabric, average, run)
        score = row["val_melanoma_auc"]
        state["history"].append(row)
        if run.model.keep == "last" or score > max(before, default=-1.0):
            state |= {"kept": {k: v.clone() for k, v in average.state_dict().items()}, "kept_epoch": epoch + 1}
        state |= {"epoch": epoch + 1, "model": model.state_dict(), "average": average.state_dict()}
        state |= {"optimizer": optimizer.state_dict(), "precision": fabric.strategy.precision.state_dict()}
        if fabric.is_global_zero:
            checkpoint.write(run.checkpoint, state)
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
    run: TrainingRun,
    epoch: int,
) -> dict[str, float]:
    train_mode(model, run.settings.freeze_batch_norm)
    sums: dict[str, float] = {}
    steps = len(run.train.rows) // run.settings.batch_size
    device = fabric.device
    title, quiet = f"epoch {epoch + 1}/{run.model.epochs}", not fabric.is_global_zero
    fast, folds = depthwise.where_it_pays(run.settings.devices, device), folding.where_it_pays(run.settings, device)
    bar = tqdm(_order(run, epoch), title, steps, unit="batch", mininterval=1, disable=quiet)
    for step, picked in enumerate(bar):
        rate = run.model.lr * lr_factor((epoch * steps + step) / steps, run.settings.warmup_epochs, run.model.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        batch = _batch(run, picked, epoch, step, device)
        with fast, folds:
            student_logits = model(batch.images)
        teacher_logits = run.teacher(batch) if run.teacher else None
        terms = loss(student_logits, batch.labels, teacher_logits)
        value = terms["loss"].item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} in epoch {epoch + 1}, step {step + 1}; lower lr (now {run.model.lr}) "
                f"(last good checkpoint: {run.checkpoint if epoch else 'none'})"
            )
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(terms["loss"])
        fabric.strategy.precision.unscale_gradients(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), run.settings.clip_norm)
        optimizer.step()
        update_ema(average, model, min(run.settings.ema, (1 + epoch * steps + step) / (10 + epoch * steps + step)))
        sums = {name: sums.get(name, 0.0) + term.item() for name, term in terms.items()}
        bar.set_postfix(loss=f"{sums['loss'] / (step + 1):.4f}", refresh=False)
    return distributed.mean(fabric, {f"train_{name}": total / steps for name, total in sums.items()}) | {"lr": rate}


def _batch(run: TrainingRun, picked: np.ndarray, epoch: int, step: int, device: torch.device) -> Batch:
    """This process's share of the ``picked`` training images (m,): random views of them, and their labels."""
    mine = distributed.shard(picked)
    whole = picked if run.model.mixup else mine  # an image's partner may fall to another process
    rows, labels = run.train.rows[whole], torch.from_numpy(run.train.labels[whole]).to(device)
    images = augment(to_float(run.images[rows], device, run.view_size), rows, run.settings.augment, *run.view(epoch))
    if run.model.mixup:
        images, labels = map(distributed.shard, mixup(images, labels, run.model.mixup, (run.seed, epoch, step)))
    return Batch(images, labels, mine, epoch)


def _order(run: TrainingRun, epoch: int) -> Iterator[np.ndarray]:
    """Indices of each full batch of a fresh permutation; the few left over wait for another epoch.

    Balanced sampling draws as many with replacement, every class equally likely.
    """
    key = np.array([(run.seed << 32) | epoch, 2**63], dtype=np.uint64)  # no image has that number
    generator, count = np.random.Generator(np.random.Philox(key=key)), len(run.train.rows)
    if run.settings.sampling == "balanced":
        rarity = 1 / np.bincount(run.train.labels)[run.train.labels]
        order = generator.choice(count, count, p=rarity / rarity.sum())
    else:
        order = generator.permutation(count)
    size = run.settings.batch_size
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


def _validate(fabric: Fabric, model: Classifier, run: TrainingRun) -> dict[str, float]:
    distributed.agree(model)
    rows, labels = run.val.rows, run.val.labels
    with fabric.autocast():
        mine = predict(model, run.images, rows[distributed.rank() :: distributed.count()])
    logits = distributed.gather(fabric, mine.float(), len(rows))
    if not torch.isfinite(logits).all():
        raise UserError(
            f"the weights are no longer numbers; lower lr (now {run.model.lr}); last good: {run.checkpoint}"
        )
    melanoma = labels == MELANOMA
    if melanoma.all() or not melanoma.any():
        raise UserError("val needs both melanoma and other images for its AUC; give split.val a larger share")
    return {
        "val_loss": F.cross_entropy(logits, torch.from_numpy(labels)).item(),
        "val_melanoma_auc": float(roc_auc_score(melanoma, logits.softmax(1)[:, MELANOMA].numpy())),
        "val_balanced_accuracy": float(balanced_accuracy_score(labels, logits.argmax(1).numpy())),
    }

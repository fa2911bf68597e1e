"""Quantization-aware training: a student learns to bear the rounding that INT8 will do to it.

Its targets are its own FP32 probabilities on new views, not labels: INT8 shall do what was evaluated, and nothing
else. Weights leave here rounded, so that the exported graph's INT8 weights are those that were trained, and the biases
that were trained with them need no correction.
Deliberately absent: checkpoints (the few epochs cost less than ``distill``), several processes, and a choice of the
best epoch: val selects among the candidates.
"""

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from dermdistill.errors import UserError
from dermdistill.params import Params
from dermdistill.quantization.fake_quant import fake_quantized, fold
from dermdistill.training import loop
from dermdistill.training.augment import augment, to_float
from dermdistill.training.models import Classifier
from dermdistill.training.optim import lr_factor


def fine_tune(student: Classifier, images: np.ndarray, rows: np.ndarray, settings: Params, epochs: int) -> Classifier:
    """A copy of ``student`` without batch norm, trained for INT8, its convolutions' weights already rounded.

    ``images`` uint8 (N, H, W, 3); ``rows`` (n,) are those of the training split.

    Raises:
        UserError: the loss is no longer a number, or batch norm cannot be folded.
    """
    numbers, device = settings.quantize, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loop.deterministic(numbers.seed)
    exact = copy.deepcopy(student).to(device).to(memory_format=torch.channels_last).eval()
    size = numbers.qat.batch_size
    steps = math.ceil(len(rows) / size)
    sample = to_float(images[rows[::steps]], device)
    learner = fold(exact, sample)
    with fake_quantized(learner, sample):
        optimizer = torch.optim.Adam(learner.parameters(), lr=numbers.qat.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, 0, epochs * steps))
        for epoch in range(epochs):
            order = np.random.default_rng([numbers.seed, epoch]).permutation(rows)
            title = f"quantization-aware training, epoch {epoch + 1}/{epochs}"
            for start in (bar := tqdm(range(0, len(order), size), title, unit="batch", mininterval=1)):
                batch = order[start : start + size]
                views = augment(to_float(images[batch], device), batch, settings.train.augment, numbers.seed, epoch)
                loss = divergence(learner, exact, views)
                if not math.isfinite(loss.item()):
                    raise UserError(
                        f"the loss of quantization-aware training became {loss.item()} in epoch {epoch + 1}; "
                        f"lower quantize.qat.lr (now {numbers.qat.lr})"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(learner.parameters(), settings.train.clip_norm)
                optimizer.step()
                scheduler.step()
                bar.set_postfix(loss=f"{loss.item():.5f}", refresh=False)
    return learner.cpu()


def divergence(learner: nn.Module, exact: nn.Module, views: Tensor) -> Tensor:
    """KL(exact ‖ learner), averaged over the views (n, 3, H, W)."""
    with torch.no_grad():
        wanted = exact(views).log_softmax(1)
    return F.kl_div(learner(views).log_softmax(1), wanted, reduction="batchmean", log_target=True)

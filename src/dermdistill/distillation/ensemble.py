"""One or several teachers that answer as one: the mean of their probabilities.

Probabilities are averaged and not logits, since that mean is what the members together predict; its logarithm serves
as logits. With ``flips`` every member also sees the image mirrored left to right, upside down, and both: a lesion has
no up and no mirror side, so all four are equally good questions. Each costs a forward pass.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dermdistill.core.files import read_json
from dermdistill.training import models

ID = "teacher_ensemble"
FOLDER = Path("models/ensemble")  # all that a student learns from, gathered by the stage of that name
MIRRORED: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))


class Ensemble(nn.Module):
    """Images (n, 3, H, W) → logits (n, 7); those of a single member as they are."""

    def __init__(self, members: Sequence[nn.Module], flips: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.flips = flips

    def forward(self, images: Tensor) -> Tensor:
        views = [images.flip(dims) for dims in MIRRORED] if self.flips else [images]
        logits = [member(view) for member in self.members for view in views]
        return logits[0] if len(logits) == 1 else log_mean_probability(torch.stack(logits))


def log_mean_probability(logits: Tensor) -> Tensor:
    """(members, …, classes) → (…, classes): log of the mean over members of softmax(logits)."""
    return logits.log_softmax(-1).logsumexp(0) - math.log(len(logits))


def load(model_id: str, flips: bool = False) -> nn.Module:
    """A trained model by its id, in evaluation mode; ``teacher_ensemble`` is all that ``kd.teachers`` names.

    Args:
        flips: whether a teacher answers with its mean over mirrored images; a student never does, nor does a phone.
    """
    if model_id == ID:
        folders = [FOLDER / name for name in read_json(FOLDER / "ensemble.json")["members"]]
    else:
        folders = [Path("models/teachers" if model_id.startswith("teacher_") else "models/students") / model_id]
    members = [models.load(folder)[0].to(memory_format=torch.channels_last) for folder in folders]
    return Ensemble(members, flips and model_id.startswith("teacher_")).eval()

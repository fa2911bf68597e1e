"""One or several teachers that predict as one: the mean of their probabilities. One teacher is an ensemble of one.

Probabilities are averaged and not logits, since that mean is what the members together predict; its logarithm serves
as logits. With ``flips`` every member also sees the image mirrored left to right, upside down, and both: a lesion has
no up and no mirror side, so all four are equally good inputs. Each costs a forward pass.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from dermdistill.core.files import read_json
from dermdistill.core.model_id import ModelId
from dermdistill.training import models
from dermdistill.training.loop import Batch, Teacher

FOLDER = Path("models/teacher_ensemble")  # all that a student learns from, gathered by the stage `ensemble`
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


def load(folders: Sequence[Path], flips: bool = False) -> Ensemble:
    """The models saved in ``folders`` as one, in evaluation mode."""
    members = [models.load(folder)[0].to(memory_format=torch.channels_last) for folder in folders]
    return Ensemble(members, flips).eval()


def load_model(model_id: ModelId, flips: bool = False) -> Ensemble:
    """A trained model by its id; with ``flips`` a teacher predicts the mean over mirror images, no other does."""
    return load([model_id.folder], flips and model_id.kind == "teacher")


def load_teachers(flips: bool) -> Ensemble:
    """The teachers of ``kd.teachers``, as the stage ``ensemble`` gathered them."""
    return load([FOLDER / name for name in read_json(FOLDER / "ensemble.json")["members"]], flips)


def in_the_loop(network: nn.Module) -> Teacher:
    """A teacher that computes its logits from the very images the student sees, in evaluation mode."""
    network.eval()

    def teacher(batch: Batch) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network.to(batch.images.device)(batch.images)
        return logits

    return teacher

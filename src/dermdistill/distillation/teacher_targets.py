"""Teachers' answers to fixed views of the training images, computed once for all students that learn from them.

The views are those a training with seed 0 shows in its first K epochs; a student of stored answers and its control see
view e mod K in epoch e, whatever their seed, which still decides weights, the order of images and dropout. Each teacher
answers on its own (``soften@NAME``: one process each, kept when the others change), view by view, so that a killed
process goes on with the view it was at. Whoever reads answers checks that they belong to the teacher, the images and
the augmentation at hand. K = 0 stores none: then the teachers answer in the loop, to new views in every epoch.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from dermdistill.blocks import KD
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import Split, load_images, load_split
from dermdistill.core.files import atomic, read_json, sha256, write_json
from dermdistill.distillation import ensemble
from dermdistill.errors import UserError
from dermdistill.params import Augment
from dermdistill.training import checkpoint, loop
from dermdistill.training.augment import augment, to_float

TEACHERS, ANSWERS = Path("models/teachers"), Path("data/soft")


def soften(name: str, kd: KD, settings: Augment) -> None:
    """Write one teacher's answers to ``data/soft/NAME/``: logits.npy (K, n, 7) float32, and what they belong to."""
    with checkpoint.alone(f"soften_{name}"):
        loop.deterministic(0)
        images, train = load_images(), load_split("train")
        facts = about(images, train, settings) | {"flips": kd.flips, "teacher": _weights(name)}
        teacher = ensemble.load(f"teacher_{name}", kd.flips)
        done = checkpoint.FOLDER / f"soften_{name}-{checkpoint.key(name, facts)}"
        views = []
        for view in range(kd.views):
            print(f"{name}: view {view + 1} of {kd.views}", flush=True)
            views.append(_view(teacher, images, train.rows, settings, view, done / f"{view}.npy"))
        logits = np.stack(views) if views else np.zeros((0, len(train.rows), len(CLASSES)), np.float32)
        _save(ANSWERS / name / "logits.npy", logits)
        write_json(ANSWERS / name / "about.json", facts | {"views": kd.views})
        shutil.rmtree(done, ignore_errors=True)


def _view(
    teacher: nn.Module, images: np.ndarray, rows: np.ndarray, settings: Augment, view: int, path: Path
) -> np.ndarray:
    """(n, 7) logits for one view of each image; read if an earlier process came that far."""
    if not path.exists():
        starts = tqdm(range(0, len(rows), 64), unit="batch", mininterval=1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teacher.to(device)
        with torch.inference_mode():
            batches = (rows[start : start + 64] for start in starts)
            shown = (augment(to_float(images[b]), b, settings, loop.STORED, view) for b in batches)
            found = [teacher(batch.to(device)).cpu() for batch in shown]
        _save(path, torch.cat(found).float().numpy())
    return np.asarray(np.load(path, allow_pickle=False))


def gather(names: Sequence[str], views: int) -> None:
    """Bring all a student learns from into ``models/ensemble/``: the teachers, and their mean answers.

    A folder of copies, so that students depend on the teachers named and on no other.

    Raises:
        UserError: answers are missing, or not those of these teachers.
    """
    members = {name: _weights(name) for name in sorted(names)}
    for name in members:
        for file in ("model.safetensors", "model.json"):
            with atomic(ensemble.FOLDER / name / file) as path:
                shutil.copyfile(TEACHERS / f"teacher_{name}" / file, path)
    facts: dict[str, Any] = {}
    if views:
        stored = [_read(name, weights, views) for name, weights in members.items()]
        facts = stored[0][1]
        if any(other != facts for _, other in stored):
            raise UserError("the teachers' answers in data/soft are to different views; run `dvc repro`")
        _save(
            ensemble.FOLDER / "targets.npy", ensemble.log_mean_probability(torch.stack([s for s, _ in stored])).numpy()
        )
    write_json(ensemble.FOLDER / "ensemble.json", {"members": members, "answers": facts})


def _read(name: str, weights: str, views: int) -> tuple[Tensor, dict[str, Any]]:
    """One teacher's answers, and what they belong to beside it."""
    facts = read_json(ANSWERS / name / "about.json")
    if facts.pop("teacher") != weights or facts["views"] != views:
        raise UserError(f"{ANSWERS / name} holds answers of another teacher_{name}; run `dvc repro soften@{name}`")
    return torch.from_numpy(np.load(ANSWERS / name / "logits.npy", allow_pickle=False)), facts


def targets(kd: KD, settings: Augment) -> Tensor:
    """(K, n, 7) the logits students learn from: of each stored view of the n training images, in their order.

    Raises:
        UserError: they answer to other images, views or augmentation than these.
    """
    wanted = about(load_images(), load_split("train"), settings) | {"flips": kd.flips, "views": kd.views}
    if read_json(ensemble.FOLDER / "ensemble.json")["answers"] != wanted:
        raise UserError(f"the answers in {ensemble.FOLDER} are to other images or views; run `dvc repro ensemble`")
    return torch.from_numpy(np.load(ensemble.FOLDER / "targets.npy", allow_pickle=False))


def about(images: np.ndarray, train: Split, settings: Augment) -> dict[str, Any]:
    """What decides the views: the images in their order, and how they are augmented."""
    pixels = checkpoint.hash_images(images, train.rows)
    order = hashlib.sha256(json.dumps([train.image_id, train.rows.tolist()]).encode()).hexdigest()
    return {"pixels": pixels, "order": order, "augment": settings.model_dump()}


def _weights(name: str) -> str:
    return sha256(TEACHERS / f"teacher_{name}" / "model.safetensors")


def _save(path: Path, values: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)

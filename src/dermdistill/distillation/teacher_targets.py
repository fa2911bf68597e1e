"""Soft targets: teachers' logits for fixed views of the training images, computed once for all students.

The views are those a training with seed 0 shows in its first K epochs. A student with stored targets, and its control,
see view e mod K in epoch e, whatever their seed; the seed still decides weights, the order of images and dropout. Each
teacher has a run of its own (stage ``teacher_targets@NAME``), view by view, so that a killed process goes on with the
view it was at. ``gather`` checks the teacher, ``load`` the images and the augmentation. K = 0 stores none:
then the teachers run in the loop, on new views in every epoch.

A teacher knows its own training images by heart and answers them with hard labels. With ``kd.crossfit`` an image's
targets come only from teachers that were trained without it: each leaves out one fold (``teachers.NAME.fold``), by
lesion. On val and holdout, which none of them has seen, they are an ensemble as any other.
"""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from tqdm import tqdm

from dermdistill.blocks import KD
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import Split, load_images, load_split
from dermdistill.core.files import atomic, copy, read_json, sha256, write_json
from dermdistill.core.model_id import ModelId
from dermdistill.distillation import ensemble
from dermdistill.errors import UserError
from dermdistill.params import Augment
from dermdistill.training import checkpoint, loop, models
from dermdistill.training.augment import augment, to_float

FOLDER = Path("data/teacher_targets")


def store(name: str, kd: KD, settings: Augment, fold: int | None = None) -> None:
    """Write one teacher's targets to ``data/teacher_targets/NAME/``: logits.npy (K, n, 7) float32, and their origin.

    ``fold``: only for the images of the fold that the teacher was not trained on (``kd.crossfit``); None for all.
    """
    with checkpoint.alone(f"teacher_targets_{name}"):
        loop.deterministic(0)
        images, train = load_images(), load_split("train")
        rows = train.rows if fold is None else train.rows[train.in_fold(fold)]
        origin = describe(images, train, settings) | {"flips": kd.flips, "teacher": _weights(name), "fold": fold}
        teacher = ensemble.load_model(ModelId("teacher", name), kd.flips)
        size = models.read_metadata(ModelId("teacher", name).folder).get("size")
        done = checkpoint.path_of(f"teacher_targets_{name}", checkpoint.hash_inputs(origin)).with_suffix("")
        views = []
        for view in range(kd.num_views):
            print(f"{name}: view {view + 1} of {kd.num_views}", flush=True)
            views.append(_view(teacher, size, images, rows, settings, view, done / f"{view}.npy"))
        logits = np.stack(views) if views else np.zeros((0, len(rows), len(CLASSES)), np.float32)
        _save(FOLDER / name / "logits.npy", logits)
        write_json(FOLDER / name / "origin.json", origin | {"num_views": kd.num_views})
        shutil.rmtree(done, ignore_errors=True)


def _view(
    teacher: nn.Module,
    size: list[int] | None,
    images: np.ndarray,
    rows: np.ndarray,
    settings: Augment,
    view: int,
    path: Path,
) -> np.ndarray:
    """(n, 7) logits for one view of each image, drawn at ``size``; from ``path`` if an earlier process got there."""
    if not path.exists():
        starts = tqdm(range(0, len(rows), 64), unit="batch", mininterval=1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teacher.to(device)
        with torch.inference_mode():
            batches = (rows[start : start + 64] for start in starts)
            views = (augment(to_float(images[b], size=size), b, settings, loop.STORED, view) for b in batches)
            logits = [teacher(batch.to(device)).cpu() for batch in views]
        _save(path, torch.cat(logits).float().numpy())
    return np.asarray(np.load(path, allow_pickle=False))


def gather(kd: KD) -> None:
    """Bring all a student learns from into ``models/teacher_ensemble/``.

    That is the mean of the teachers' targets, (K, n, 7) float16, small enough for git; or, if none are stored, copies
    of the teachers. So students depend on the teachers named and on no other.

    Raises:
        UserError: targets are missing, or not those of these teachers.
    """
    members = {name: _weights(name) for name in sorted(kd.teachers)}
    content: dict[str, Any] = {"members": members}
    if kd.num_views:
        stored = {name: _read(name, weights, kd.num_views) for name, weights in members.items()}
        origins = [{key: value for key, value in one.items() if key != "fold"} for _, one in stored.values()]
        if any(origin != origins[0] for origin in origins):
            raise UserError(f"the targets in {FOLDER} belong to different views; run `dvc repro`")
        if kd.crossfit:
            by_fold = {name: (logits, origin["fold"]) for name, (logits, origin) in stored.items()}
            targets, content["temperatures"] = _crossfit(by_fold)
        else:
            targets = ensemble.log_mean_probability(torch.stack([logits for logits, _ in stored.values()]))
        content["targets"] = origins[0] | {"crossfit": kd.crossfit}
        _save(ensemble.FOLDER / "targets.npy", targets.half().numpy())
    for name in () if kd.num_views else members:
        for file in ("model.safetensors", "model.json"):
            copy(ModelId("teacher", name).folder / file, ensemble.FOLDER / name / file)
    write_json(ensemble.FOLDER / "ensemble.json", content)


def _crossfit(stored: dict[str, tuple[Tensor, int]]) -> tuple[Tensor, dict[str, float]]:
    """Targets (K, n, 7) of every training image from the teachers that left it out, and each teacher's temperature.

    Each teacher's logits are divided by the temperature of least NLL on the images it left out: what it knows by heart
    is sharper than what it knows, and members of an ensemble should mean the same by 0.9.

    Args:
        stored: name → (K, m, 7) logits for the m images of its fold, and the fold.
    """
    train, temperatures = load_split("train"), {}
    scaled: dict[int, list[Tensor]] = {}
    for name, (logits, fold) in stored.items():
        labels = torch.from_numpy(train.labels[train.in_fold(fold)])
        temperatures[name] = fit_temperature(logits, labels)
        scaled.setdefault(fold, []).append(logits / temperatures[name])
    targets = torch.full((len(logits), len(train.rows), len(CLASSES)), torch.nan)
    for fold, members in scaled.items():
        targets[:, torch.from_numpy(train.in_fold(fold))] = ensemble.log_mean_probability(torch.stack(members))
    return targets, temperatures


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """T > 0 of least mean NLL of softmax(logits / T), over K views of m images: logits (K, m, 7), labels (m,).

    Source: Guo et al. (2017), arXiv:1706.04599, section 4.2.
    """

    def nll(log_t: float) -> float:
        log_p = (logits.double() / math.exp(log_t)).log_softmax(-1)
        return float(-log_p[:, torch.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-5}).x)


def _read(name: str, weights: str, num_views: int) -> tuple[Tensor, dict[str, Any]]:
    """One teacher's targets, and what they belong to beside it."""
    origin = read_json(FOLDER / name / "origin.json")
    if origin.pop("teacher") != weights or origin["num_views"] != num_views:
        raise UserError(
            f"{FOLDER / name} holds targets of another teacher_{name} or kd.num_views; "
            f"run `dvc repro teacher_targets@{name}`"
        )
    return torch.from_numpy(np.load(FOLDER / name / "logits.npy", allow_pickle=False)), origin


def load(kd: KD, settings: Augment) -> Tensor:
    """(K, n, 7) the logits students learn from: of each stored view of the n training images, in their order.

    Raises:
        UserError: they belong to other images, views or augmentation than these.
    """
    chosen = {"flips": kd.flips, "num_views": kd.num_views, "crossfit": kd.crossfit}
    wanted = describe(load_images(), load_split("train"), settings) | chosen
    if read_json(ensemble.FOLDER / "ensemble.json").get("targets") != wanted:
        raise UserError(f"the targets in {ensemble.FOLDER} belong to other images or views; run `dvc repro ensemble`")
    return torch.from_numpy(np.load(ensemble.FOLDER / "targets.npy", allow_pickle=False)).float()


def stored(targets: Tensor) -> loop.Teacher:
    """A teacher that looks its logits up in ``targets`` (K, n, 7)."""
    return lambda batch: targets[batch.epoch % len(targets)][batch.indices].to(batch.images.device)


def describe(images: np.ndarray, train: Split, settings: Augment) -> dict[str, Any]:
    """What decides the views: the images in their order, and how they are augmented."""
    pixels = checkpoint.hash_images(images, train.rows)
    order = hashlib.sha256(json.dumps([train.image_id, train.rows.tolist()]).encode()).hexdigest()
    return {"pixels": pixels, "order": order, "augment": settings.model_dump()}


def _weights(name: str) -> str:
    return sha256(ModelId("teacher", name).folder / "model.safetensors")


def _save(path: Path, values: np.ndarray) -> None:
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)

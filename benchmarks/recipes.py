"""Trials of a recipe on a control, which needs no teacher: python -m benchmarks.recipes TRIAL [CELL …]

With cells it trains the control ``tiny`` in each of them and writes its predictions to ``results/recipes/TRIAL``;
without, it compares what is there. A cell is finished when its predictions are there; cells may run at the same time,
and one that was stopped goes on where it was. The checkout's own parameters, data and split are used; judged on val,
and on ``other_val`` where the parameters name the source: a recipe may be chosen by both. The holdout and
``other_test`` are not opened. Differences are paired and resample lesions; several seeds count with their mean.

- augmentation: ``all`` families of views, ``without`` one of them, and ``today``, which is without any; with the
  parameters of ``presets/next.yaml``
- precision: float32 against bfloat16, with the committed parameters, on a processor that multiplies bfloat16
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dermdistill import params, predictor, presets
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import Split, load_images, load_other, load_split
from dermdistill.core.files import read_json, write_json
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.evaluation.bootstrap import BootstrapResult, bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, balanced_accuracy, roc_auc
from dermdistill.metrics import predictions
from dermdistill.metrics.metrics import rounded
from dermdistill.training.run import run_training

STUDENT, SOURCE = "tiny", "derm7pt"
RESULTS = Path("benchmarks/results")
FAMILIES: dict[str, dict[str, float]] = {
    "field of view": {"scale": 0.45},
    "aspect": {"stretch": 0.2},
    "light": {"color_cast": 0.15, "saturation": 0.35, "gamma": 0.4},
    "sharpness": {"blur": 1.2, "jpeg": 40},
    "round field": {"vignette": 0.3},
    "hair": {"hair": 4},
}


class Trial(NamedTuple):
    """``cells``: name → changes of ``train``; the first is what the others are compared with."""

    epochs: int | None  # None: those of the committed student
    seeds: tuple[int, ...]
    cells: dict[str, dict[str, Any]]


def views(*without: str) -> dict[str, Any]:
    families = (values for name, values in FAMILIES.items() if name not in without)
    return {"augment": {setting: value for family in families for setting, value in family.items()}}


TRIALS = {
    "augmentation": Trial(
        8, (0,), {"all": views(), "today": views(*FAMILIES)} | {f"without {name}": views(name) for name in FAMILIES}
    ),
    "precision": Trial(None, (0, 1), {name: {"devices": {"precision": name}} for name in ("32-true", "bf16-mixed")}),
}


def parts(settings: params.Params) -> dict[str, tuple[np.ndarray, Split]]:
    found = {"val": (load_images(), load_split("val"))}
    if SOURCE in settings.data.other:
        found["other_val"] = load_images(f"data/other/{SOURCE}"), load_other(SOURCE)["other_val"]
    return found


def path_of(trial: str, cell: str, seed: int, part: str) -> Path:
    return RESULTS / "recipes" / trial / f"{cell.replace(' ', '_')}_s{seed}_{part}.csv"


def train(trial: str, cell: str, seed: int) -> None:
    settings = params.load()
    evaluated = parts(settings)
    if all(path_of(trial, cell, seed, part).exists() for part in evaluated):
        return
    changes = TRIALS[trial].cells[cell]
    recipe = params.Train(**presets.merged(settings.train.model_dump(), changes))
    spec = settings.student(STUDENT)
    spec = spec.model_copy(update={"epochs": TRIALS[trial].epochs or spec.epochs})
    model_id = ModelId("control", f"{STUDENT}_{trial}_{cell.replace(' ', '_')}", seed)
    if not (model_id.folder / "model.json").exists():
        run_training(model_id, spec, recipe, seed)
    predict = predictor.load(model_id, settings.predict.flips)
    for part, (images, split) in evaluated.items():
        dx = [CLASSES[label] for label in split.labels]
        predictions.write(
            path_of(trial, cell, seed, part), split.image_id, split.lesion_id, dx, predict(images, split.rows)
        )


def results(trial: str, cell: str, part: str) -> list[dict[str, BootstrapResult]]:
    """The metrics of each seed that is there."""
    found = []
    for path in (path_of(trial, cell, seed, part) for seed in TRIALS[trial].seeds):
        if path.exists():
            read = predictions.read(path)
            metrics: dict[str, Metric] = {
                "melanoma_auc": roc_auc(read.melanoma, read.p_melanoma),
                "balanced_accuracy": balanced_accuracy(read.labels, read.probabilities.argmax(1)),
            }
            found.append(bootstrap(metrics, read.lesion_id, 1000, 0))
    return found


def compare(trial: str) -> dict[str, Any]:
    """Cell → part → metric → its value and the difference from the first cell, with its interval."""
    first, *_ = cells = TRIALS[trial].cells
    content: dict[str, Any] = {}
    for cell in cells:
        for part in ("val", "other_val"):
            base, here = results(trial, first, part), results(trial, cell, part)
            for name in here[0] if base and here else ():
                value = mean([run[name] for run in here])
                row: dict[str, Any] = {"value": value.value, "seeds": len(here)}
                if cell != first and len(here) == len(base):
                    minus = value.minus(mean([run[name] for run in base]))
                    row |= {"difference": minus.value, "interval": minus.interval()}
                content.setdefault(cell, {}).setdefault(part, {})[name] = row
    return {"compared_with": first, "changes": cells, "cells": content}


def mean(runs: list[BootstrapResult]) -> BootstrapResult:
    return BootstrapResult(*(np.mean(field, axis=0) for field in zip(*runs, strict=True)))


def main(trial: str = "", *cells: str) -> None:
    if trial not in TRIALS:
        raise UserError(f"name a trial: {', '.join(TRIALS)}")
    unknown = set(cells) - set(TRIALS[trial].cells)
    if unknown:
        raise UserError(f"{trial} has no cell {min(unknown)!r}; it has {', '.join(TRIALS[trial].cells)}")
    for cell in cells:
        for seed in TRIALS[trial].seeds:
            train(trial, cell, seed)
    if not cells:
        path = RESULTS / "recipes.json"
        write_json(path, (read_json(path) if path.exists() else {}) | {trial: rounded(compare(trial))})


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Accuracy against cost: every model's score on the holdout, its latency and bytes, and the Pareto frontier.

A point is on the frontier if no other is at least as good at no more cost (and better in one of them). Latency
is processor time per image in ONNX Runtime, one thread, from the `benchmark` stage: one machine on one day. A mean of
teachers costs all of them, and each teacher as many passes per image as its score needed. The frontier describes;
nothing is chosen by it, since it shows the holdout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError
from dermdistill.params import Params

SCORES = {"melanoma_auc": "melanoma ROC-AUC", "macro_f1": "macro-F1"}
COSTS = {"latency_ms": "ms per image, one thread", "megabytes": "MB"}
CONDITION = "1 thread, batch 1"


def chains(settings: Params) -> list[tuple[str, str, str]]:
    """Teacher, student, INT8 of every student, with the deployed seed."""
    students = [ModelId("student", name, settings.ship.seed) for name in settings.run.students]
    return [(settings.teacher_id, str(one), str(one.of_kind("int8"))) for one in students]


def networks(settings: Params) -> dict[str, list[str]]:
    """Model → the networks that it consists of: itself, or the members of a mean of teachers."""
    members = [f"teacher_{name}" for name in settings.kd.teachers]
    alone = [*members, *(model for chain in chains(settings) for model in chain[1:])]
    return {settings.teacher_id: members} | {model: [model] for model in alone}


def points(
    models: Mapping[str, Sequence[str]],
    passes: int,
    benchmark: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """One row per model: costs in ONNX Runtime, parameters, scores on val and holdout, and where it is undominated.

    Args:
        models: as of :func:`networks`.
        passes: how often a teacher predicts an image, mirrored or not, for its score.
        metrics: {"val": {id: metrics}, "holdout": {id: metrics}}.

    Raises:
        UserError: if the benchmark lacks a model.
    """
    rows = []
    for model, members in models.items():
        entries = {one: f"{one} {'onnx_int8' if ModelId.parse(one).kind == 'int8' else 'onnx'}" for one in members}
        if absent := [one for one, entry in entries.items() if entry not in benchmark["static"]]:
            raise UserError(f"metrics/benchmark.json lacks {absent[0]}; run `dvc repro benchmark`")
        once = sum(benchmark["latency"][CONDITION][entry]["cpu_p50"] for entry in entries.values())
        row = {
            "model": model,
            "latency_ms": once * (passes if ModelId.parse(model).kind == "teacher" else 1),
            "megabytes": sum(benchmark["static"][entry]["bytes"] for entry in entries.values()) / 1e6,
            "parameters": sum(benchmark["models"][one]["parameters"] for one in members),
        }
        for part, of_model in metrics.items():
            row[f"{part}_melanoma_auc"] = of_model[model]["melanoma"]["roc_auc"]
            row[f"{part}_macro_f1"] = of_model[model]["diagnosis"]["macro_f1"]
        rows.append(row)
    table = pd.DataFrame(rows)
    for score in SCORES:
        for cost in COSTS:
            table[f"frontier_{score}_{cost}"] = frontier(table[cost].to_numpy(), table[f"holdout_{score}"].to_numpy())
    return table


def frontier(cost: np.ndarray, score: np.ndarray) -> np.ndarray:
    """(N,) bool: not dominated. An undefined score is on no frontier."""
    cheaper, better = cost[:, None] <= cost, score[:, None] >= score
    strictly = (cost[:, None] < cost) | (score[:, None] > score)
    return np.asarray(~(cheaper & better & strictly).any(axis=0) & ~np.isnan(score.astype(float)))

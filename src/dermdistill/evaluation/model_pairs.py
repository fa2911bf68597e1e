"""Which models are compared, and the results: the content of ``metrics/compare/``.

The pairs follow the questions of the project: what did the teacher add (student against control), what did the small
network and quantization lose (student against teacher, INT8 against student and teacher), which network is the better
one, and is a network needed at all (INT8 against every classical baseline). All are named here beforehand, and all are
shown. Deliberately absent: any statistics (``evaluation.comparison``) and any choice, since this reads the holdout.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from dermdistill.core import parts
from dermdistill.core.model_id import ModelId
from dermdistill.evaluation import bootstrap, calibrators, comparison, fidelity, subgroups, weighted_metrics
from dermdistill.metrics import calibration, predictions
from dermdistill.metrics.metrics import rounded
from dermdistill.params import Params

METRICS = {
    "melanoma.roc_auc": "melanoma ROC-AUC",
    "melanoma.histology.roc_auc": "AUC vs histology",
    "melanoma.pr_auc": "PR-AUC",
    "diagnosis.balanced_accuracy": "balanced accuracy",
    "diagnosis.macro_f1": "macro-F1",
}


def published(root: str | Path, settings: Params) -> list[str]:
    """Every model of the tables: the networks, and the baselines that have been run."""
    run = [one for one in settings.baseline_ids() if (Path(root) / f"predictions/holdout/{one}.csv").exists()]
    return settings.model_ids() + run


def families(models: list[str]) -> dict[str, list[str]]:
    """Network → its seeds; a teacher or baseline is a family of one."""
    members: dict[str, list[str]] = {}
    for model in models:
        members.setdefault(ModelId.parse(model).family, []).append(model)
    return members


def pairs(settings: Params, models: list[str]) -> list[tuple[str, str]]:
    """Families to compare, "is the first better than the second?"."""
    teacher, shipped = settings.teacher_id, f"int8_{settings.ship.student}"
    chosen = []
    for name in settings.run.students:
        chosen += [(f"student_{name}", f"control_{name}"), (f"student_{name}", teacher)]
        chosen += [(f"int8_{name}", f"student_{name}"), (f"int8_{name}", teacher)]
    chosen += [(f"teacher_{name}", teacher) for name in settings.run.teachers if f"teacher_{name}" != teacher]
    others = [name for name in settings.run.students if name != settings.ship.student]
    chosen += [(shipped, f"int8_{name}") for name in others]
    return chosen + [(shipped, model) for model in models if ModelId.parse(model).kind == "baseline"]


def compare_models(root: str | Path, settings: Params) -> dict[str, Any]:
    """``metrics/compare/models.json``: the comparison on the holdout, and how close students are to the teacher."""
    return compare_on(root, settings, "holdout") | {"fidelity": rounded(fidelities(root, settings))}


def compare_source(root: str | Path, settings: Params, source: str) -> dict[str, Any]:
    """``metrics/other/SOURCE/compare.json``: the comparison on each half of another source."""
    return {part: compare_on(root, settings, part) for part in parts.of_source(source)}


def compare_on(root: str | Path, settings: Params, part: str) -> dict[str, Any]:
    """On one part, a name of :mod:`dermdistill.core.parts`: families with joint intervals, every pair's difference."""
    models = published(root, settings)
    histology = subgroups.read(root, part)["dx_type"] == "histo"
    scores: dict[str, predictions.Predictions] = {}
    bootstrapped: dict[str, comparison.ModelResults] = {}
    for model in models:
        scores[model], bootstrapped[model] = _bootstrap(Path(root), part, model, histology, settings)
        predictions.require_same_images(scores[models[0]], scores[model])
    grouped, seed = families(models), settings.evaluate.seed
    content: dict[str, Any] = rounded(
        {
            "families": {
                name: {
                    metric: comparison.family([bootstrapped[one] for one in members], metric, seed)
                    for metric in METRICS
                }
                for name, members in grouped.items()
            },
            "pairs": [
                {"a": a, "b": b, "seeds": [len(grouped[a]), len(grouped[b])]}
                | {"metrics": _differences(bootstrapped, grouped[a], grouped[b], seed)}
                | {"delong": _delong(scores, _one(grouped[a], settings), _one(grouped[b], settings))}
                for a, b in pairs(settings, models)
            ],
        }
    )
    return content


def fidelities(root: str | Path, settings: Params) -> dict[str, Any]:
    """Model → part → how close it is to the teacher, for students, controls and INT8."""
    numbers = settings.evaluate.bootstrap, settings.evaluate.seed
    fidelity_of: dict[str, Any] = {}
    small = [model for model in settings.model_ids() if ModelId.parse(model).kind != "teacher"]
    for part in ("val", "holdout"):
        folder = Path(root) / f"predictions/{part}"
        teacher = predictions.read(folder / f"{settings.teacher_id}.csv")
        for model in small:
            measured = fidelity.measure(teacher, predictions.read(folder / f"{model}.csv"), *numbers)
            fidelity_of.setdefault(model, {})[part] = measured
    return fidelity_of


def _bootstrap(
    root: Path, part: str, model: str, histology: pd.Series, settings: Params
) -> tuple[predictions.Predictions, comparison.ModelResults]:
    raw = predictions.read(root / f"predictions/{part}/{model}.csv")
    fitted = calibration.read(root / f"metrics/calibrate/{model}.json")
    calibrated = predictions.replace(raw, fitted.apply(raw.probabilities))
    threshold, bins = fitted.thresholds["sensitivity"], settings.evaluate.bins
    every = weighted_metrics.headline(
        calibrated.labels, calibrated.probabilities, threshold, calibrated.lookup(histology), bins
    )
    metrics = {name: every[name] for name in METRICS}
    return calibrated, bootstrap.bootstrap(
        metrics, calibrated.lesion_id, settings.evaluate.bootstrap, settings.evaluate.seed
    )


def _differences(
    bootstrapped: Mapping[str, comparison.ModelResults], a: list[str], b: list[str], seed: int
) -> dict[str, dict[str, Any]]:
    sides = [[bootstrapped[model] for model in side] for side in (a, b)]
    return {metric: comparison.difference(sides[0], sides[1], metric, seed) for metric in METRICS}


def _one(members: list[str], settings: Params) -> str:
    """The member that DeLong's test compares: the deployed seed."""
    return next((model for model in members if ModelId.parse(model).seed == settings.ship.seed), members[0])


def _delong(scores: Mapping[str, predictions.Predictions], a: str, b: str) -> dict[str, Any]:
    y_true = scores[a].melanoma
    return {"models": [a, b], "test": comparison.delong(y_true, scores[a].p_melanoma, scores[b].p_melanoma)}


def compare_calibrations(root: str | Path, settings: Params) -> dict[str, Any]:
    """``metrics/compare/calibration.json``: every map of every network, on val (cross-validated) and on the holdout."""
    results: dict[str, Any] = {}
    chosen = settings.compare
    for model in settings.model_ids():
        val, holdout = (predictions.read(Path(root) / f"predictions/{part}/{model}.csv") for part in ("val", "holdout"))
        numbers = chosen.calibration_folds, chosen.dirichlet_penalty, settings.evaluate.bins, settings.evaluate.seed
        results[model] = calibrators.compare(val, holdout, *numbers)
    content: dict[str, Any] = rounded(results)
    return content

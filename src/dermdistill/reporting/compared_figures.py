"""Figures that set models side by side: every model, teachers, each student with its control, what distillation did."""

from collections.abc import Mapping, Sequence
from typing import Any

from dermdistill.evaluation import cases, model_pairs
from dermdistill.reporting import model_plots
from dermdistill.reporting.cells import bounds, lookup, number
from dermdistill.reporting.model_plots import Interval
from dermdistill.reporting.results import Drawn, Results

METRICS = {**model_pairs.METRICS, "melanoma.ece": "melanoma ECE (less is better)"}


def figures(results: Results) -> list[Drawn]:
    """Comparison of all, of teachers, of each student's family, and the differences with their intervals."""
    every = list(results.holdout)
    teachers = [model for model in every if model.startswith("teacher_")]
    return [
        _comparison(results),
        *_effect(results),
        _differences(results),
        _several("holdout", "Every model, every headline figure", every, results),
        _several("teachers", "Teachers", teachers, results),
        *(_student(name, every, results) for name in results.settings.run.students),
    ]


def _comparison(results: Results) -> Drawn:
    rows = [_interval(model, metrics, "melanoma.roc_auc") for model, metrics in results.holdout.items()]
    spoken = ", ".join(f"{row.model} {number(row.value)}" for row in rows)
    return Drawn(
        "comparison",
        model_plots.comparison(rows, "melanoma ROC-AUC, holdout", "Every model with its 95 % interval"),
        "Melanoma AUC by model",
        f"Forest plot of melanoma ROC-AUC on the holdout: {spoken}.",
        "Whether two models differ cannot be read off overlapping intervals; see the paired differences.",
    )


def _interval(model: str, metrics: Mapping[str, Any], key: str) -> Interval:
    pair = None if key.endswith("ece") else metrics["intervals"].get(key)  # of an ECE it would be biased upwards
    low, high = pair or (None, None)
    return Interval(model, lookup(metrics, key), low, high)


def _effect(results: Results) -> list[Drawn]:
    """Student minus control: what the teacher added, metric by metric."""
    pairs = [pair for pair in results.compared["pairs"] if pair["b"] == pair["a"].replace("student_", "control_", 1)]
    if not pairs:
        return []
    groups = {
        pair["a"]: [_difference(name, pair["metrics"][key]) for key, name in model_pairs.METRICS.items()]
        for pair in pairs
    }
    spoken = "; ".join(f"{pair['a']} {_spoken(pair['metrics']['melanoma.roc_auc'])}" for pair in pairs)
    return [
        Drawn(
            "kd_effect",
            model_plots.differences(groups, "student − control, holdout", "What distillation added"),
            "What distillation added",
            f"Differences of student and control with 95 % intervals; melanoma AUC: {spoken}.",
            "Right of zero the student of the teacher is better than the same network trained without one; an "
            "interval that holds zero is a tie.",
        )
    ]


def _differences(results: Results) -> Drawn:
    pairs = results.compared["pairs"]
    rows = [_difference(f"{pair['a']} − {pair['b']}", pair["metrics"]["melanoma.roc_auc"]) for pair in pairs]
    ties = sum(row.low is not None and row.high is not None and row.low <= 0 <= row.high for row in rows)
    return Drawn(
        "differences",
        model_plots.differences({"": rows}, "difference of melanoma AUC, holdout", "Is A better than B?"),
        "Every pair that was compared",
        f"Paired differences of melanoma AUC with 95 % intervals; {ties} of {len(rows)} are ties.",
        "The pairs were named before anybody looked.",
    )


def _difference(name: str, found: Mapping[str, Any]) -> Interval:
    return Interval(name, found["difference"], found["low"], found["high"])


def _spoken(found: Mapping[str, Any]) -> str:
    return f"{number(found['difference'])} ({bounds((found['low'], found['high']))})"


def _several(name: str, title: str, models: Sequence[str], results: Results) -> Drawn:
    """Small multiples: one metric each, one line per model."""
    grid = {
        label: [_interval(model, results.holdout[model], key) for model in models] for key, label in METRICS.items()
    }
    areas = ", ".join(f"{row.model} {number(row.value)}" for row in grid["melanoma ROC-AUC"])
    text = f"{', '.join(METRICS.values())} of {len(models)} models on the holdout; melanoma AUC: {areas}."
    return Drawn(name, model_plots.several(grid, f"{title}, holdout"), title, text, "Bars: 95 % bootstrap of lesions.")


def _student(name: str, every: Sequence[str], results: Results) -> Drawn:
    teacher = cases.roles(results.settings)["teacher"]
    kinds = ("student", "control", "int8")
    family = [model for model in every if model.rsplit("_s", 1)[0] in {f"{kind}_{name}" for kind in kinds}]
    return _several(f"student_{name}", f"The student “{name}”", [teacher, *family], results)

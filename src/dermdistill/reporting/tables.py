"""What the metrics say, in numbers, tables and sentences; the report and the README show the same ones.

A sentence that compares two models is computed: "a tie" is written exactly when the paired bootstrap
interval of the difference contains zero. An undefined value is shown as a dash, never as 0.

Deliberately absent: any metric (``evaluation`` computes, this module words) and any file (``report`` reads
and writes).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dermdistill.evaluation.model_pairs import families
from dermdistill.reporting.cells import Cell, Metrics, Table, bounds, cell, lookup, number, percent

SUMMARY = {
    "val": {"melanoma_roc_auc": "raw.melanoma_roc_auc", "macro_f1": "raw.diagnosis_macro_f1"},
    "holdout": {"melanoma_roc_auc": "melanoma.roc_auc", "macro_f1": "diagnosis.macro_f1"},
}
POINT = "operating_points.sensitivity"  # the operating point that ships


class Comparison(NamedTuple):
    """Melanoma AUC of ``first`` minus that of ``second`` on the holdout, with its paired 95 % interval.

    ``detectable``: the true difference that would show in four of five data sets.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    detectable: float


# Markdown and JSON --------------------------------------------------------------------------------


def summary(val: Mapping[str, Metrics], holdout: Mapping[str, Metrics]) -> dict[str, Any]:
    """The few numbers per model that `dvc metrics` and `dvc exp show` put side by side: each is a column there.

    Those on val are of raw probabilities, since calibration was fitted on val. A network trained with several seeds has
    a row of means besides.
    """
    parts = {"val": val, "holdout": holdout}
    several = {name: members for name, members in families(list(val)).items() if len(members) > 1}
    return {
        model: {
            part: {name: _mean([lookup(metrics[one], key) for one in members]) for name, key in SUMMARY[part].items()}
            for part, metrics in parts.items()
        }
        for model, members in ({model: [model] for model in val} | several).items()
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if len(known) == len(values) else None


def verdict(item: Comparison, quote: str = "") -> str:
    """A sentence that calls a winner only if the interval of the difference leaves out zero."""
    first, second = f"{quote}{item.first}{quote}", f"{quote}{item.second}{quote}"
    sign = "+" if item.difference >= 0 else ""
    measured = f"{sign}{number(item.difference)} (95 % interval {bounds((item.low, item.high))})"
    if item.low <= 0 <= item.high:
        found = f"; a true difference of {number(item.detectable)} would show in four of five such data sets"
        return f"{first} and {second} are a tie: the difference in melanoma AUC is {measured}{found}."
    relation = "better" if item.difference > 0 else "worse"
    return f"{first} is {relation} than {second}: the difference in melanoma AUC is {measured}."


# Tables -------------------------------------------------------------------------------------------


def results_table(part: str, results: Mapping[str, Metrics]) -> Table:
    """One row per model, each figure with its interval where there is one."""
    columns = {
        "melanoma ROC-AUC": "melanoma.roc_auc",
        "PR-AUC": "melanoma.pr_auc",
        "AUC vs histology": "melanoma.histology.roc_auc",
        "AUC above 80 % sens.": "melanoma.partial_auc",
        "sensitivity": f"{POINT}.sensitivity",
        "specificity": f"{POINT}.specificity",
        "melanoma ECE": "melanoma.ece",
        "balanced accuracy": "diagnosis.balanced_accuracy",
        "macro-F1": "diagnosis.macro_f1",
    }
    n = next(iter(results.values()))["n"]
    caption = (
        f"{part}: {n['images']:,} images of {n['lesions']:,} lesions, {n['melanoma']:,} images of melanoma. "
        "Sensitivity and specificity for melanoma at the threshold that ships; "
        "the last two columns are over seven diagnoses."
    )
    rows = [[Cell(model), *(cell(metrics, key) for key in columns.values())] for model, metrics in results.items()]
    return Table(caption, ["model", *columns], rows)


def thresholds_table(val: Metrics, holdout: Metrics) -> Table:
    head = [
        "chosen on validation",
        "threshold",
        "sensitivity, val",
        "specificity, val",
        "sensitivity, holdout",
        "specificity, holdout",
        "PPV",
        "NPV",
        "F1",
    ]
    names = {
        "sensitivity": "target sensitivity (ships)",
        "youden": "largest sensitivity + specificity",
        "f1": "largest F1",
        "argmax": "melanoma is the likeliest of seven",
    }
    rows = []
    for point, name in names.items():
        before, after = (lookup(metrics, f"operating_points.{point}") for metrics in (val, holdout))
        keys = [f"operating_points.{point}.{key}" for key in ("sensitivity", "specificity", "ppv", "npv", "f1")]
        rows.append(
            [
                Cell(name),
                Cell(number(after["threshold"], 4)),
                Cell(number(before["sensitivity"])),
                Cell(number(before["specificity"])),
                *(cell(holdout, key) for key in keys),
            ]
        )
    return Table("Thresholds on the calibrated probability of melanoma: what was chosen, what was reached.", head, rows)


def calibration_table(calibration: Mapping[str, Metrics], holdout: Mapping[str, Metrics]) -> Table:
    pairs = {
        "melanoma ECE": ("raw.melanoma_ece", "melanoma.ece"),
        "seven-class ECE": ("raw.diagnosis_ece", "diagnosis.ece"),
        "seven-class NLL": ("raw.diagnosis_nll", "diagnosis.nll"),
        "seven-class Brier": ("raw.diagnosis_brier", "diagnosis.brier"),
    }
    rows = []
    for model, metrics in holdout.items():
        shown = [Cell(" → ".join(number(lookup(metrics, key)) for key in pair)) for pair in pairs.values()]
        rows.append([Cell(model), Cell(number(calibration[model]["temperature"], 2)), *shown])
    return Table("Holdout, raw → after the calibration fitted on validation.", ["model", "temperature", *pairs], rows)


# Sentences of the page ---------------------------------------------------------------------------


def headline(metrics: Metrics, quantized: Metrics) -> dict[str, Any]:
    """The one figure, in words a clinician can weigh: shares of a hundred instead of an area."""
    auc = cell(metrics, "melanoma.roc_auc")
    point, n = lookup(metrics, POINT), metrics["n"]
    prevalence = n["melanoma"] / n["images"]
    alarms = None if point["specificity"] is None else 1 - point["specificity"]
    sentences = [
        "Shown one image of a melanoma and one of another lesion, it gives the melanoma the higher probability in "
        f"{percent(lookup(metrics, 'melanoma.roc_auc'))} of such pairs.",
        f"At the threshold that ships it flags {_hundred(point['sensitivity'])} of 100 melanomas and "
        f"{_hundred(alarms)} of 100 other lesions. Of 100 flagged images {_hundred(point['ppv'])} are melanomas, "
        f"in a holdout where {_hundred(prevalence)} of 100 images are.",
    ]
    tiles = {
        "sensitivity": f"{POINT}.sensitivity",
        "specificity": f"{POINT}.specificity",
        "AUC against histology-confirmed benign": "melanoma.histology.roc_auc",
        "balanced accuracy, 7 diagnoses": "diagnosis.balanced_accuracy",
        "calibration error, melanoma": "melanoma.ece",
    }
    shown = [{"name": name, **cell(metrics, key)._asdict()} for name, key in tiles.items()]
    size = quantized.get("bytes", {}).get("int8")
    if size is not None:
        shown.append({"name": "size of the file", "value": f"{size / 1e6:.2f} MB", "interval": ""})
    return {
        "value": auc.value,
        "interval": auc.interval,
        "sentences": sentences,
        "tiles": shown,
    }


def _hundred(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def target_sentence(target: float, metrics: Metrics) -> str:
    """Whether the sensitivity aimed at on validation was kept on the holdout."""
    reached = cell(metrics, f"{POINT}.sensitivity")
    pair = metrics["intervals"].get(f"{POINT}.sensitivity")
    aim = f"The threshold was set on validation to reach a sensitivity of {number(target, 2)}"
    stated = f"{aim}; on the holdout it reached {reached.value}"
    if pair is None or None in pair:
        return f"{stated}."
    if pair[1] < target:
        return f"{stated} (95 % interval {reached.interval}), short of the target."
    relation = "above the target" if pair[0] > target else "compatible with the target"
    return f"{stated} (95 % interval {reached.interval}), {relation}."

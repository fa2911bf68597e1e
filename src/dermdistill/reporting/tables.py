"""What the metrics say, in numbers, tables and sentences; the report and the README show the same ones.

A sentence that compares two models is computed: "a tie" is written exactly when the paired bootstrap
interval of the difference contains zero. An undefined value is shown as a dash, never as 0.

Deliberately absent: any metric (``evaluation`` computes, this module words) and any file (``report`` reads
and writes).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from dermdistill.errors import UserError

SUMMARY = {"melanoma_roc_auc": "melanoma.roc_auc", "macro_f1": "diagnosis.macro_f1"}
SEEDS = {
    "melanoma_roc_auc": "melanoma.roc_auc",
    "balanced_accuracy": "diagnosis.balanced_accuracy",
    "macro_f1": "diagnosis.macro_f1",
    "melanoma_ece": "melanoma.ece",
}
POINT = "operating_points.sensitivity"  # the operating point that ships
Metrics = Mapping[str, Any]


class Comparison(NamedTuple):
    """Melanoma AUC of ``first`` minus that of ``second`` on the holdout, with its paired 95 % interval."""

    first: str
    second: str
    difference: float
    low: float
    high: float


class Cell(NamedTuple):
    value: str
    interval: str = ""
    prose: bool = False


class Table(NamedTuple):
    caption: str
    head: list[str]
    rows: list[list[Cell]]


# Numbers ------------------------------------------------------------------------------------------


def lookup(metrics: Metrics, key: str) -> Any:
    """``lookup(m, "melanoma.roc_auc")``; a key that is not there is a UserError, a null stays None."""
    value: Any = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"metrics lack {key}; they were written by another version, run `dvc repro evaluate`")
        value = value[part]
    return value


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def bounds(pair: Sequence[float] | None, digits: int = 3) -> str:
    return "" if pair is None or None in pair else f"{number(pair[0], digits)} to {number(pair[1], digits)}"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def cell(metrics: Metrics, key: str, digits: int = 3) -> Cell:
    """The figure and its interval, except for ECE: its percentile interval is biased upwards, see the report."""
    pair = None if key.endswith("ece") else metrics["intervals"].get(key)
    return Cell(number(lookup(metrics, key), digits), bounds(pair, digits))


# Markdown and JSON --------------------------------------------------------------------------------


def summary(val: Mapping[str, Metrics], holdout: Mapping[str, Metrics]) -> dict[str, Any]:
    """The few numbers per model that `dvc metrics` and `dvc exp show` put side by side: each is a column there."""
    parts = {"val": val, "holdout": holdout}
    return {
        model: {
            part: {name: lookup(metrics[model], key) for name, key in SUMMARY.items()}
            for part, metrics in parts.items()
        }
        for model in val
    }


def fragment(
    shipped: str, val: Mapping[str, Metrics], holdout: Mapping[str, Metrics], comparisons: Sequence[Comparison]
) -> str:
    """The README's table: one row per model, the shipped one in bold, then what the differences mean."""
    head = [
        "model",
        "melanoma AUC, val",
        "melanoma AUC, holdout [95 %]",
        "PR-AUC",
        "AUC vs histology-confirmed benign",
        "balanced accuracy",
        "macro-F1",
        "melanoma ECE",
        "sensitivity / specificity",
    ]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for model in val:
        name = f"**`{model}`**" if model == shipped else f"`{model}`"
        lines.append("| " + " | ".join([name, *_markdown_row(val[model], holdout[model])]) + " |")
    n = holdout[shipped]["n"]
    note = (
        f"Holdout: {n['images']:,} images of {n['lesions']:,} lesions, {n['melanoma']:,} of the images melanoma. "
        "All columns but the first AUC are measured on it. Intervals: 95 %, bootstrap of lesions. "
        "Sensitivity / specificity: at the threshold chosen on val. **Bold**: the file that ships."
    )
    sentences = [f"- {verdict(item, '`')}" for item in comparisons]
    return "\n".join([*lines, "", note, "", *sentences]).rstrip() + "\n"


def _markdown_row(val: Metrics, holdout: Metrics) -> list[str]:
    auc = cell(holdout, "melanoma.roc_auc")
    keys = [
        "melanoma.pr_auc",
        "melanoma.histology.roc_auc",
        "diagnosis.balanced_accuracy",
        "diagnosis.macro_f1",
        "melanoma.ece",
    ]
    return [
        number(lookup(val, "melanoma.roc_auc")),
        f"{auc.value} [{auc.interval.replace(' to ', ', ')}]" if auc.interval else auc.value,
        *(number(lookup(holdout, key)) for key in keys),
        f"{number(lookup(holdout, f'{POINT}.sensitivity'))} / {number(lookup(holdout, f'{POINT}.specificity'))}",
    ]


def verdict(item: Comparison, quote: str = "") -> str:
    """A sentence that calls a winner only if the interval of the difference leaves out zero."""
    first, second = f"{quote}{item.first}{quote}", f"{quote}{item.second}{quote}"
    sign = "+" if item.difference >= 0 else ""
    measured = f"{sign}{number(item.difference)} (95 % interval {bounds((item.low, item.high))})"
    if item.low <= 0 <= item.high:
        return f"{first} and {second} are a tie: the difference in melanoma AUC is {measured}."
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


def seeds_table(holdout: Mapping[str, Metrics]) -> Table | None:
    """Mean ± standard deviation over seeds, when there is more than one."""
    groups: dict[str, list[Metrics]] = {}
    for model, metrics in holdout.items():
        groups.setdefault(model.rsplit("_s", 1)[0] if not model.startswith("teacher") else model, []).append(metrics)
    rows = []
    for name, members in groups.items():
        if len(members) > 1:
            values = [pd.Series([lookup(metrics, key) for metrics in members], dtype=float) for key in SEEDS.values()]
            shown = [Cell(f"{number(one.mean())} ± {number(one.std(ddof=1))}") for one in values]
            rows.append([Cell(name), Cell(str(len(members))), *shown])
    heads = ["network", "seeds", *(key.replace("_", " ") for key in SEEDS)]
    return Table("Holdout: mean ± standard deviation over seeds.", heads, rows) if rows else None


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


def facts(name: str, content: Metrics) -> list[Table]:
    """Any JSON as small tables: nested counts become a grid, everything else a line of two columns."""
    lines: list[list[Cell]] = []
    grids: list[Table] = []
    for key, value in _flat(content):
        if isinstance(value, Mapping):
            grids.append(_matrix(key, value))
        else:
            lines.append([Cell(key), Cell(_short(value), prose=True)])
    return ([Table(name, ["", ""], lines)] if lines else []) + grids


def _flat(content: Metrics, prefix: str = "") -> list[tuple[str, Any]]:
    """Scalars by dotted name; a mapping of mappings of scalars is left whole."""
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", " ")
        if not isinstance(value, Mapping) or _is_grid(value):
            found.append((name, value))
        else:
            found += _flat(value, f"{name}, ")
    return found


def _is_grid(value: Metrics) -> bool:
    rows = list(value.values())
    return bool(rows) and all(
        isinstance(row, Mapping) and row and not any(isinstance(item, Mapping | list) for item in row.values())
        for row in rows
    )


def _matrix(name: str, value: Metrics) -> Table:
    columns = list(dict.fromkeys(column for row in value.values() for column in row))
    rows = [[Cell(str(key)), *(Cell(_short(row.get(column))) for column in columns)] for key, row in value.items()]
    return Table(name, ["", *map(str, columns)], rows)


def _short(value: Any) -> str:
    if isinstance(value, list):
        text = ", ".join(map(_short, value[:8]))
        return (text + (f", … ({len(value)} in all)" if len(value) > 8 else "")) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


def error_sentences(errors: Metrics) -> list[str]:
    """Teacher against shipped file in words, from ``metrics/analyze_errors.json``."""
    melanoma, diagnosis = errors["melanoma"]["teacher_int8"], errors["diagnosis"]["teacher_int8"]
    sure = errors["high_confidence_errors"]
    return [
        f"On melanoma, teacher and shipped file decide alike on {melanoma['agree']:,} of {melanoma['total']:,} images. "
        f"The teacher alone is right on {melanoma['only_a']:,}, the shipped file alone on {melanoma['only_b']:,}. "
        f"Both miss {melanoma['shared_false_negatives']:,} melanomas and both raise "
        f"{melanoma['shared_false_positives']:,} false alarms.",
        f"Of the seven diagnoses they give the same one on {diagnosis['agree']:,} images and are both wrong on "
        f"{diagnosis['both_wrong']:,}. The shipped file is wrong with a probability of {percent(sure['at_least'])} "
        f"or more on {sure['int8']:,} images, the teacher on {sure['teacher']:,}.",
    ]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value)


def error_tables(errors: Metrics) -> list[Table]:
    """Agreement of every pair; A is the first of a pair."""
    columns = {
        "total": "images",
        "both_correct": "both right",
        "only_a": "only A right",
        "only_b": "only B right",
        "both_wrong": "both wrong",
        "mcnemar_p": "McNemar's p",
    }
    found = []
    for task, caption in (
        ("melanoma", "Melanoma or not, each model at its own threshold"),
        ("diagnosis", "One of seven diagnoses"),
    ):
        rows = []
        for pair, counts in errors[task].items():
            a, b = (errors["models"][role] for role in pair.split("_"))
            rows.append(
                [
                    Cell(f"{a} (A), {b} (B)"),
                    *(Cell(_p(counts[key]) if key == "mcnemar_p" else _short(counts[key])) for key in columns),
                ]
            )
        found.append(
            Table(
                f"{caption}. McNemar's test counts images of one lesion as independent: its p is somewhat too small.",
                ["pair", *columns.values()],
                rows,
            )
        )
    return found

"""The cells of the ablation, ranked on val: table, figure, and which differences are real.

Raw probabilities are compared, since calibration is fitted on val too. The intervals resample lesions of val; they say
nothing about another training of the same cell (one seed each). The best of many cells looks better than it is, so its
lead counts only where the paired interval says so, and the holdout has the last word on the cell that is then chosen.
"""

from pathlib import Path
from typing import Any

from dermdistill.evaluation import comparison, fidelity, predictions, uncertainty
from dermdistill.evaluation.metrics import rounded
from dermdistill.files import read_json, write_json, write_text
from dermdistill.params import Params
from dermdistill.reporting import model_plots, plots
from dermdistill.reporting.cells import bounds, number

CELLS, METRICS = "predictions/ablation", "metrics/ablation.json"
TABLE, FIGURE = "docs/fragments/ablation.md", "plots/ablation.png"
AUC = "melanoma ROC-AUC"


def build(root: str | Path, settings: Params, names: list[str]) -> None:
    """Write metrics, table and figure of the cells ``names``."""
    root = Path(root)
    ranked = rank(root, settings, names)
    write_json(root / METRICS, ranked)
    write_text(root / TABLE, table(ranked))
    rows = [
        model_plots.Interval(row["name"], *(row["metrics"][AUC][k] for k in ("value", "low", "high")))
        for row in ranked["rows"]
    ]
    title = f"Distillation of {settings.ablation.student}, one seed a cell"
    plots.save(model_plots.comparison(rows, "melanoma AUC on val, 95 % interval", title), root / FIGURE)


def rank(root: Path, settings: Params, names: list[str]) -> dict[str, Any]:
    """``{rows}``: every cell and the teacher, by melanoma AUC on val, the best first.

    Each with its metrics, its fidelity to the teacher, and its paired difference from the control (if that cell is
    done) and from the best other cell.
    """
    teacher = settings.teacher_id
    files = {name: root / CELLS / f"{name}.csv" for name in names}
    files[teacher] = root / f"predictions/val/{teacher}.csv"
    read = {name: predictions.read(path) for name, path in files.items()}
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    drawn = {}
    for name, known in read.items():
        predictions.require_same_images(read[teacher], known)
        drawn[name] = uncertainty.draw(_metrics(known), known.lesion_id, count, seed)
    order = sorted(drawn, key=lambda name: -drawn[name][AUC].value)
    control = settings.ablation.CONTROL
    best = next(name for name in order if name in names and name != control)
    others = {"best": best} | ({"control": control} if control in names else {})

    def row(name: str) -> dict[str, Any]:
        figures = {
            metric: {"value": one.value, **dict(zip(("low", "high"), one.interval() or (None, None), strict=True))}
            for metric, one in drawn[name].items()
        }
        gaps = {
            f"from_{role}": comparison.difference([drawn[name]], [drawn[other]], AUC, seed)
            for role, other in others.items()
        }
        return {
            "name": name,
            "metrics": figures,
            "fidelity": fidelity.measure(read[teacher], read[name], 50, seed),
        } | gaps

    found: dict[str, Any] = rounded({"best": best, "cells": names, "rows": [row(name) for name in order]})
    return found


def _metrics(known: predictions.Predictions) -> dict[str, uncertainty.Metric]:
    predicted = known.probabilities.argmax(axis=1)
    return {
        AUC: uncertainty.roc_auc(known.melanoma, known.p_melanoma),
        "PR-AUC": uncertainty.pr_auc(known.melanoma, known.p_melanoma),
        "balanced accuracy": uncertainty.balanced_accuracy(known.labels, predicted),
        "macro-F1": uncertainty.macro_f1(known.labels, predicted),
    }


def table(ranked: dict[str, Any]) -> str:
    """Markdown, the best first; the best cell in bold."""
    others = [name for name in ranked["rows"][0]["metrics"] if name != AUC]
    head = ["cell", f"{AUC}, val [95 %]", "minus control [95 %]", "minus best cell [95 %]", *others, "KL to teacher"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for row in ranked["rows"]:
        name = f"**`{row['name']}`**" if row["name"] == ranked["best"] else f"`{row['name']}`"
        shown = [
            name,
            _with(row["metrics"][AUC], "value"),
            *(_with(row[f"from_{to}"], "difference") if f"from_{to}" in row else "–" for to in ("control", "best")),
        ]
        shown += [number(row["metrics"][metric]["value"]) for metric in others] + [number(row["fidelity"]["kl"])]
        lines.append("| " + " | ".join(shown) + " |")
    note = (
        "Raw probabilities on val, one seed a cell; intervals resample lesions, differences are paired. "
        "A difference whose interval holds 0 is a tie."
    )
    return "\n".join([*lines, "", note, ""])


def _with(row: dict[str, Any], key: str) -> str:
    interval = bounds((row["low"], row["high"])).replace(" to ", ", ")
    return f"{number(row[key])} [{interval}]" if interval else number(row[key])


def names_ranked(root: Path) -> list[str]:
    """The cells of the committed ranking; none if there is no such file."""
    return list(read_json(root / METRICS)["cells"]) if (root / METRICS).exists() else []

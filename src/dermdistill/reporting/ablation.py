"""The cells of the ablation, ranked on val: tables, figure, and which differences are real.

Raw probabilities are compared, since calibration is fitted on val too. The intervals resample lesions of val; they say
nothing about another training of the same cell (one seed each). The best of many cells looks better than it is, so its
lead counts only where the paired interval says so, and the holdout has the last word on the cell that is then chosen.
"""

from pathlib import Path
from typing import Any

import yaml

from dermdistill.core.files import read_json, write_json, write_text
from dermdistill.evaluation import bootstrap, comparison, fidelity, weighted_metrics
from dermdistill.metrics import predictions
from dermdistill.metrics.metrics import rounded
from dermdistill.params import Params
from dermdistill.reporting import fragments, model_plots, plots
from dermdistill.reporting.cells import bounds, number

CELLS, METRICS, COSTS = "predictions/ablation", "metrics/ablation.json", "metrics/ablation_costs.json"
NAME, DOCUMENT, FIGURE = "ablation", "docs/distillation.md", "plots/ablation.png"
TABLE = f"{fragments.FOLDER}/{NAME}.md"
AUC = "melanoma ROC-AUC"


def build(root: str | Path, settings: Params, names: list[str]) -> None:
    """Write metrics, tables (into the document too, if it is there) and figure of the cells ``names``."""
    root = Path(root)
    kd, teacher = settings.kd, settings.teacher_id
    shared = {"epochs": settings.ablation.epochs, "temperature": kd.temperature, "alpha": kd.alpha, "teacher": teacher}
    write_text(root / CELLS / f"{teacher}.csv", (root / f"predictions/val/{teacher}.csv").read_text(encoding="utf-8"))
    ranked = rank(root, settings, names, shared)
    write_json(root / METRICS, ranked)
    write_text(root / TABLE, tables(ranked))
    if (root / DOCUMENT).exists():
        fragments.insert(root / DOCUMENT, NAME, root / TABLE)
    rows = [
        model_plots.Interval(row["name"], *(row["metrics"][AUC][k] for k in ("value", "low", "high")))
        for row in ranked["rows"]
    ]
    title = f"Distillation of {settings.ablation.student}, one seed a cell"
    plots.save(model_plots.comparison(rows, "melanoma AUC on val, 95 % interval", title), root / FIGURE)


def rank(root: Path, settings: Params, names: list[str], shared: dict[str, Any]) -> dict[str, Any]:
    """``{rows}``: every cell and the teacher, by melanoma AUC on val, the best first.

    ``shared`` is what the cells have in common, the teacher's name among it, whose answers are kept beside theirs: so
    a ranking can be recomputed when params.yaml has gone on to other teachers.

    Each with its metrics, its fidelity to the teacher, and its paired differences: of a way to distil from the best of
    them in that AUC and from the control in every metric, of a shape from the student as it is (as far as these cells
    are done). What a shape changes and costs stands beside it.
    """
    teacher = shared["teacher"]
    read = {name: predictions.read(root / CELLS / f"{name}.csv") for name in [*names, teacher]}
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    drawn = {}
    for name, known in read.items():
        predictions.require_same_images(read[teacher], known)
        drawn[name] = bootstrap.bootstrap(_metrics(known), known.lesion_id, count, seed)
    order = sorted(drawn, key=lambda name: -drawn[name][AUC].value)
    control, shapes = settings.ablation.CONTROL, settings.ablation.shapes
    best = next(name for name in order if name in names and name != control and name not in shapes)
    costs = read_json(root / COSTS) if (root / COSTS).exists() else {}
    asis = settings.kd.method

    def row(name: str) -> dict[str, Any]:
        figures: dict[str, dict[str, Any]] = {
            metric: {"value": one.value, **dict(zip(("low", "high"), one.interval() or (None, None), strict=True))}
            for metric, one in drawn[name].items()
        }
        others = {"asis": asis} if name in shapes else {"best": best, "control": control}
        gaps = {
            f"from_{role}": comparison.difference([drawn[name]], [drawn[other]], AUC, seed)
            for role, other in others.items()
            if other in names and other != name
        }
        found: dict[str, Any] = {"name": name, "metrics": figures}
        found |= {"fidelity": fidelity.measure(read[teacher], read[name], count, seed)} | gaps
        if "from_control" in gaps:
            for metric, figure in figures.items():
                if metric != AUC:
                    figure["from_control"] = comparison.difference([drawn[name]], [drawn[control]], metric, seed)
        if name in shapes or (name == asis and shapes):
            found |= {"shape": shapes.get(name, {}), "cost": costs.get(name)}
        return found

    left = [name for name in (*settings.ablation.methods, *shapes) if name not in names]
    found: dict[str, Any] = {"best": best, "cells": names, "left": left, "shared": shared}
    return found | {"rows": rounded([row(name) for name in order])}


def _metrics(known: predictions.Predictions) -> dict[str, weighted_metrics.Metric]:
    predicted = known.probabilities.argmax(axis=1)
    return {
        AUC: weighted_metrics.roc_auc(known.melanoma, known.p_melanoma),
        "PR-AUC": weighted_metrics.pr_auc(known.melanoma, known.p_melanoma),
        "balanced accuracy": weighted_metrics.balanced_accuracy(known.labels, predicted),
        "macro-F1": weighted_metrics.macro_f1(known.labels, predicted),
    }


def tables(ranked: dict[str, Any]) -> str:
    """Markdown: the ways to distil, the best first and in bold, then the student as it is and its other shapes."""
    shared = ranked["shared"]
    note = (
        f"Raw probabilities on val, one seed and {shared['epochs']} epochs a cell; T = {shared['temperature']:g} and "
        f"α = {shared['alpha']:g} where the name does not tell. Intervals resample lesions, differences are paired. A "
        "difference whose interval holds 0 is a tie. KL to the teacher as it is judged, which may be with mirror "
        "images it did not teach with. ↑ and ↓: above and below the control, the paired interval without 0."
    )
    left = [f"Not run yet: {', '.join(f'`{name}`' for name in ranked['left'])}."] if ranked["left"] else []
    return "\n".join([*_methods(ranked), "", note, "", *_shapes(ranked), *left])


def _methods(ranked: dict[str, Any]) -> list[str]:
    others = [name for name in ranked["rows"][0]["metrics"] if name != AUC]
    head = ["cell", f"{AUC}, val [95 %]", "minus control [95 %]", "minus best cell [95 %]", *others, "KL to teacher"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * (len(head) - 1)]
    for row in ranked["rows"]:
        if row.get("shape"):
            continue
        name = f"**`{row['name']}`**" if row["name"] == ranked["best"] else f"`{row['name']}`"
        shown = [
            name,
            _with(row["metrics"][AUC], "value"),
            *(_with(row[f"from_{to}"], "difference") if f"from_{to}" in row else "–" for to in ("control", "best")),
        ]
        shown += [_marked(row["metrics"][metric]) for metric in others] + [number(row["fidelity"]["kl"])]
        lines.append("| " + " | ".join(shown) + " |")
    return lines


def _shapes(ranked: dict[str, Any]) -> list[str]:
    """The student as it is among its other shapes; nothing if there are none."""
    rows = [row for row in ranked["rows"] if "shape" in row]
    if not any(row["shape"] for row in rows):
        return []
    lines = [
        f"| cell | differs in | parameters | multiply-adds | {AUC}, val [95 %] | minus first line [95 %] | macro-F1 |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: bool(row["shape"])):
        differs = yaml.safe_dump(row["shape"], default_flow_style=True, width=1000).strip()[1:-1]
        cost = row["cost"] and [
            f"{row['cost'][name] / 1e6:.{digits}f} M" for name, digits in (("parameters", 2), ("macs", 0))
        ]
        shown = [f"`{row['name']}`", f"`{differs}`" if differs else "nothing", *(cost or ["–", "–"])]
        shown += [
            _with(row["metrics"][AUC], "value"),
            _with(row["from_asis"], "difference") if "from_asis" in row else "–",
        ]
        lines.append("| " + " | ".join([*shown, number(row["metrics"]["macro-F1"]["value"])]) + " |")
    return [*lines, ""]


def _marked(figure: dict[str, Any]) -> str:
    """The value, and whether it really differs from the control's."""
    mark = {"better": " ↑", "worse": " ↓"}.get(figure.get("from_control", {}).get("verdict"), "")
    return number(figure["value"]) + mark


def _with(row: dict[str, Any], key: str) -> str:
    interval = bounds((row["low"], row["high"])).replace(" to ", ", ")
    return f"{number(row[key])} [{interval}]" if interval else number(row[key])


def recompute(root: Path, settings: Params) -> dict[str, Any] | None:
    """The committed ranking once more, from the predictions of its cells; None if there is none."""
    if not (root / METRICS).exists():
        return None
    committed = read_json(root / METRICS)
    return rank(root, settings, list(committed["cells"]), committed["shared"])

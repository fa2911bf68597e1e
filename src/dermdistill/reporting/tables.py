"""The rows of the tables; ``templates/tables.yaml`` describes the columns, ``words.j2`` has the captions.

:func:`tables` gives those of models by name, :func:`stage_tables` those of other stages; page and documents show the
same ones. Values chosen on validation stand beside those reached on the holdout. Deliberately absent: any metric of its
own, any rendering, and any table that leaves out the models that did worse.
"""

from collections.abc import Mapping
from typing import Any

from dermdistill.core import parts
from dermdistill.evaluation.model_pairs import METRICS, families
from dermdistill.reporting.render import (
    Cell,
    Metrics,
    Table,
    bounds,
    cell,
    estimate,
    facts,
    labels,
    lookup,
    named,
    number,
    table,
)
from dermdistill.reporting.results import Results, with_seeds

ERROR_VIEWS = ("melanoma", "melanoma_diagnosed", "diagnosis")


def tables(results: Results) -> dict[str, Table]:
    """Every table of models by name."""
    settings, compared, maps = results.settings, results.compared, results.maps
    deployed, teacher = settings.shipped, results.roles["teacher"]
    val, holdout = results.val[deployed], results.holdout[deployed]
    return {
        "results_holdout": results_table("Holdout", results.holdout),
        "results_val": results_table("Validation", results.val),
        "seeds": seeds_table(compared),
        "pairs": pairs_table(compared, "holdout"),
        "fidelity": table("fidelity", named(compared["fidelity"])),
        "thresholds": thresholds_table(val, holdout),
        "operating_points": operating_points_table(results),
        "decision": decision_table(holdout),
        "calibration": calibration_table(results),
        "maps": maps_table(deployed, maps),
        "maps_summary": maps_summary_table(maps),
        "subgroups": subgroups_table(deployed, holdout),
        "subgroups_teacher": subgroups_table(teacher, results.holdout[teacher]),
        "deferral": deferral_table(val, holdout),
        "conformal": conformal_table(val, holdout),
        "robustness": robustness_table(results.robustness, settings.predict.flips),
        "corruptions": corruptions_table(results.robustness),
    } | other_tables(results)


def stage_tables(stages: Metrics) -> dict[str, list[Table]]:
    """Tables of the other stages, by section of the page."""
    benchmark, titles = stages["benchmark"], labels("facts")
    machine = {key: benchmark[key] for key in ("machine", "predict_one_jpeg")}
    return {
        "errors": [errors_table(view, stages["analyze_errors"]) for view in ERROR_VIEWS],
        "deployed": [one for stage in ("quantize", "ship") for one in facts(titles[stage], stages[stage])],
        "cost": [
            formats_table(stages["export"]),
            size_table(benchmark),
            *(latency_table(condition, benchmark) for condition in benchmark["latency"]),
            *facts(titles["machine"], machine),
        ],
        "data": [one for stage, title in labels("stages").items() for one in facts(title, stages[stage])],
    }


# Models -------------------------------------------------------------------------------------------


def results_table(part: str, models: Mapping[str, Metrics]) -> Table:
    return table("results", named(models), part=part, n=next(iter(models.values()))["n"])


def other_tables(results: Results) -> dict[str, Table]:
    """Of each part of another source the table of models and that of pairs: ``results/PART``, ``pairs/PART``."""
    made = {}
    for part, other in results.others.items():
        made[f"results/{part}"] = results_table(parts.label(part), other.models)
        made[f"pairs/{part}"] = pairs_table(other.compared, parts.label(part))
    return made


def others_table(results: Results) -> Table:
    """One row per model, columns by part of another source."""
    rows = [
        {"model": model} | {part: other.models[model] for part, other in results.others.items()}
        for model in results.val
    ]
    columns = {}
    for part in results.others:
        columns[f"melanoma AUC, {parts.label(part)} [95 %]"] = f"{part}.melanoma.roc_auc ±"
        point = f"{part}.operating_points.sensitivity"
        columns[f"sensitivity / specificity, {parts.label(part)}"] = f"{point}.sensitivity / {point}.specificity"
    return table("others", rows, columns, strong=results.settings.shipped, sources=results.settings.data.other)


def seeds_table(compared: Metrics) -> Table:
    """Mean ± standard deviation over seeds, and the interval over lesions and seeds; no row with one seed."""
    members = families(list(compared["fidelity"]))
    rows = []
    for family, metrics in compared["families"].items():
        count = metrics["melanoma.roc_auc"]["seeds"]
        if count > 1:
            row: dict[str, Any] = {"model": family, "seeds": count}
            for key, one in metrics.items():
                row[key] = Cell(f"{number(one['mean'])} ± {number(one['sd'])}", bounds((one["low"], one["high"])))
            close = [compared["fidelity"][model]["holdout"] for model in members.get(family, [])]
            row |= {key: sum(one[key] for one in close) / len(close) if close else None for key in ("agreement", "kl")}
            rows.append(row)
    return table("seeds", rows)


def pairs_table(compared: Metrics, part: str) -> Table:
    """Is A better than B: by how much, and how sure."""
    rows = []
    for pair in compared["pairs"]:
        auc, test = pair["metrics"]["melanoma.roc_auc"], pair["delong"]["test"]
        row = {side: with_seeds(pair[side], seeds) for side, seeds in zip("ab", pair["seeds"], strict=True)}
        row |= {"verdict": labels("verdicts")[auc["verdict"]], "ahead": auc["share_above"]}
        row["delong"] = test and test["p"]
        rows.append(row | {key: _difference(pair["metrics"][key]) for key in METRICS})
    return table("pairs", rows, part=part)


def _difference(gap: Metrics) -> Cell:
    sign = "+" if (gap["difference"] or 0) > 0 else ""
    return Cell(sign + number(gap["difference"]), bounds((gap["low"], gap["high"])))


def thresholds_table(val: Metrics, holdout: Metrics) -> Table:
    """Every operating point of the deployed model."""
    rows, metrics = [], ("sensitivity", "specificity", "ppv", "npv", "f1")
    for point, label in labels("thresholds").items():
        key = f"operating_points.{point}"
        row = {"label": label, "threshold": lookup(holdout, f"{key}.threshold"), "val": lookup(val, key)}
        rows.append(row | {metric: cell(holdout, f"{key}.{metric}") for metric in metrics})
    return table("thresholds", rows)


def operating_points_table(results: Results) -> Table:
    """Every operating point of teacher, student, control and deployed model."""
    parts = {"val": results.val, "holdout": results.holdout}
    rows = [
        {"model": model, "label": label}
        | {part: lookup(side[model], f"operating_points.{point}") for part, side in parts.items()}
        for model in results.roles.values()
        for point, label in labels("points").items()
    ]
    return table("operating_points", rows)


def calibration_table(results: Results) -> Table:
    temperatures = {model: {"temperature": one["temperature"]} for model, one in results.calibration.items()}
    rows = named({model: metrics | temperatures[model] for model, metrics in results.holdout.items()})
    return table("calibration", rows)


def maps_table(model: str, maps: Metrics) -> Table:
    """Every calibration map of one model."""
    best, methods = maps[model]["chosen"], maps[model]["methods"]
    names = {one: labels("maps")[one] + (", least NLL on validation" if one == best else "") for one in methods}
    return table("maps", [{"label": names[one], **parts} for one, parts in methods.items()], model=model)


def maps_summary_table(maps: Metrics) -> Table:
    """For every network, the map that validation would choose, against the deployed one."""
    rows = [
        {"model": model, "label": labels("maps")[one["chosen"]]}
        | {"deployed": one["methods"][one["shipped"]], "chosen": one["methods"][one["chosen"]]}
        for model, one in maps.items()
    ]
    return table("maps_summary", rows)


def decision_table(holdout: Metrics) -> Table:
    """Net benefit per 1,000 images; the interval is that of the advantage."""
    rows = []
    for place, label in labels("places").items():
        for threshold, row in lookup(holdout, "net_benefit")[place].items():
            pair = holdout["intervals"].get(f"net_benefit.{place}.{threshold}.advantage") or (None, None)
            low, high = (bound and 1000 * bound for bound in pair)
            scaled = {key: value and 1000 * value for key, value in row.items()}
            advantage = estimate(scaled["advantage"], (low, high), 1)
            others = {"prevalence": label, "threshold": float(threshold), "none": "0", "advantage": advantage}
            rows.append(scaled | others)
    return table("decision", rows)


def subgroups_table(model: str, holdout: Metrics) -> Table:
    def estimated(row: Metrics, key: str) -> Cell:
        return Cell("too few") if row[key] is None else estimate(row[key], row[f"{key}_interval"])

    keys = ("roc_auc", "sensitivity", "specificity")
    rows = [row | {key: estimated(row, key) for key in keys} for row in lookup(holdout, "subgroups.rows")]
    return table("subgroups", rows, model=model)


def deferral_table(val: Metrics, holdout: Metrics) -> Table:
    """Deferral of the least sure images: chosen on val, and its effect on the holdout."""
    parts = [lookup(side, "selective") for side in (val, holdout)]
    before, after = (part["keep"] for part in parts)
    rows = [{"keep": float(share), "val": before[share], "holdout": after[share]} for share in after]
    return table("deferral", rows, areas=[part["aurc"] for part in parts])


def conformal_table(val: Metrics, holdout: Metrics) -> Table:
    before, after = (lookup(side, "selective.conformal") for side in (val, holdout))
    rows = []
    for kind, label in labels("conformal").items():
        empty, of_one, *_ = after[kind]["sizes"]
        row = {"label": label, "val": before[kind], "holdout": after[kind], "empty": empty, "of_one": of_one}
        rows.append(row | {"coverage": cell(holdout, f"selective.conformal.{kind}.coverage")})
    return table("conformal", rows, aim=after["coverage_aimed_at"])


def robustness_table(models: Mapping[str, Metrics], mirrored: bool) -> Table:
    """Clean, and the mean drop with its interval; ``mirrored``: elsewhere teachers also predict mirror images."""
    first, rows = next(iter(models.values())), named(models)
    for row in rows:
        row |= {f"drop_{key}": estimate(one["drop"], one["interval"]) for key, one in row["mean_drop"].items()}
    return table("robustness", rows, n=first["n"], corruptions=len(first["conditions"]), mirrored=mirrored)


def corruptions_table(models: Mapping[str, Metrics]) -> Table:
    """Mean drop over severities by corruption, model beside model."""
    metrics = {"AUC": "roc_auc", "F1": "macro_f1"}
    columns = {f"{label}, {model}": f"{model}.{metrics[label]}" for label in metrics for model in models}
    drops = {model: row["drop_by_corruption"] for model, row in models.items()}
    names = next(iter(drops.values()))
    rows = [{"corruption": name} | {model: drop[name] for model, drop in drops.items()} for name in names]
    return table("corruptions", rows, columns)


# Other stages -------------------------------------------------------------------------------------


def errors_table(view: str, errors: Metrics) -> Table:
    """Agreement of every pair of models in one view; A is the first of a pair."""
    rows, models = named(errors[view], "roles"), errors["models"]
    for row in rows:
        a, b = row["roles"].split("_")
        row["pair"] = f"{models[a]} (A), {models[b]} (B)"
    return table("errors", rows, view=view)


def formats_table(exports: Metrics) -> Table:
    """One row per exported format: how far it is from the student in PyTorch, on val."""
    rows = named(exports["formats"], "format")
    for row in rows:
        row["auc_change"] = estimate(row["auc_change"], (row["auc_low"], row["auc_high"]), 4)
        row["equal_decisions"] = row.get("cost", {}).get("equal_decisions")  # of INT8 formats
    return table("formats", rows, n=exports["n"], reference=exports["reference"])


def size_table(benchmark: Metrics) -> Table:
    """One row per model and format: parameters, work, bytes, loading, memory."""
    rows = [benchmark["models"][row["entry"].split()[0]] | row for row in named(benchmark["static"], "entry")]
    return table("size", rows)


def latency_table(condition: str, benchmark: Metrics) -> Table:
    """One number of threads and images at once; the first also gives multiples of the deployed model's time."""
    rows, times = named(benchmark["latency"][condition], "entry"), benchmark["times_int8"]["cpu"]
    for row in rows if condition == next(iter(benchmark["latency"])) else ():
        row["times"] = f"{times.get(row['entry'], 1):.2f} ×"
    return table("latency", rows, condition=condition)

"""Tables beyond the headline: pairs, seeds, calibration maps, slices, decisions, abstention, robustness.

Each takes the content of metrics files and words it; what was chosen on validation stands beside what it gave on the
holdout. Deliberately absent: any metric of its own, and any table that leaves out the models that did worse.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dermdistill.evaluation.model_pairs import METRICS
from dermdistill.reporting.cells import Cell, Metrics, Table, bounds, lookup, number, p_value, percent

POINTS = {"sensitivity": "target sensitivity", "youden": "Youden", "f1": "F1", "argmax": "likeliest of seven"}
MAPS = {
    "raw": "none",
    "temperature": "temperature",
    "temperature_bias": "temperature and biases (ships)",
    "vector": "vector scaling",
    "dirichlet": "Dirichlet",
    "isotonic": "isotonic",
}


def pairs_table(compared: Metrics) -> Table:
    """Is A better than B: by how much, how sure."""
    head = ["A", "B", "verdict, melanoma AUC", "A − B", "A ahead in", "DeLong's p"]
    others = [key for key in METRICS if key != "melanoma.roc_auc"]
    rows = []
    for pair in compared["pairs"]:
        main, test = pair["metrics"]["melanoma.roc_auc"], pair["delong"]["test"]
        row = [Cell(_family(pair["a"], pair["seeds"][0])), Cell(_family(pair["b"], pair["seeds"][1]))]
        row += [Cell(_verdict(main["verdict"]), prose=True), _gap(main), Cell(percent(main["share_above"]))]
        row += [Cell("–" if test is None else p_value(test["p"]))]
        rows.append(row + [_gap(pair["metrics"][key]) for key in others])
    caption = (
        "Is A better than B? Differences A − B on the holdout with their 95 % interval from resamples of lesions (and "
        "of seeds, where there are several) that both share; a tie is an interval that holds zero. “Ahead in”: share "
        "of the resamples. DeLong's test takes images of one lesion as independent, so its p is too small."
    )
    return Table(caption, [*head, *(METRICS[key] for key in others)], rows)


def _family(name: str, seeds: int) -> str:
    return f"{name} ({seeds} seeds)" if seeds > 1 else name


def _verdict(word: str) -> str:
    return {"tie": "a tie", "better": "A is better", "worse": "A is worse"}.get(word, "undefined")


def _gap(difference: Metrics) -> Cell:
    sign = "+" if (difference["difference"] or 0) > 0 else ""
    pair = (difference["low"], difference["high"])
    return Cell(sign + number(difference["difference"]), bounds(pair))


def fidelity_table(compared: Metrics) -> Table:
    """How often each small model says what its teacher says, and how far its probabilities are from the teacher's."""
    rows = []
    for model, parts in compared["fidelity"].items():
        row = [Cell(model)]
        for part in ("val", "holdout"):
            bands = parts[part]["intervals"]
            row += [Cell(number(parts[part][key]), bounds(bands[key])) for key in ("agreement", "kl")]
        rows.append(row)
    head = ["model", "same diagnosis, val", "KL, val", "same diagnosis, holdout", "KL, holdout"]
    caption = (
        "Fidelity to the teacher: share of images with the same diagnosis, and KL(teacher ‖ model) of the raw "
        "probabilities in nats. A student that is no closer than its control was not moved by its teacher."
    )
    return Table(caption, head, rows)


def seeds_table(compared: Metrics) -> Table | None:
    """Mean ± standard deviation over seeds, and the interval over lesions and seeds, when there is more than one."""
    rows = [
        [Cell(name), Cell(str(row["melanoma.roc_auc"]["seeds"])), *(_spread(row[key]) for key in METRICS)]
        for name, row in compared["families"].items()
        if row["melanoma.roc_auc"]["seeds"] > 1
    ]
    caption = (
        "Holdout, over seeds: mean ± standard deviation; below, the 95 % interval that resamples lesions and seeds. "
        "With few seeds it understates how much another training would differ."
    )
    return Table(caption, ["network", "seeds", *METRICS.values()], rows) if rows else None


def _spread(row: Metrics) -> Cell:
    return Cell(f"{number(row['mean'])} ± {number(row['sd'])}", bounds((row["low"], row["high"])))


def gap_table(models: Sequence[str], val: Mapping[str, Metrics], holdout: Mapping[str, Metrics]) -> Table:
    """Every operating point of ``models``: chosen on val, reached on the holdout."""
    rows = []
    for model in models:
        for point, name in POINTS.items():
            before, after = (lookup(side[model], f"operating_points.{point}") for side in (val, holdout))
            row = [Cell(model), Cell(name, prose=True), Cell(number(after["threshold"], 4))]
            for key in ("sensitivity", "specificity", "f1"):
                row.append(Cell(f"{number(before[key])} → {number(after[key])}"))
            rows.append([*row, Cell(number(after["ppv"])), Cell(number(after["npv"]))])
    head = ["model", "threshold for", "threshold", "sensitivity", "specificity", "F1", "PPV", "NPV"]
    return Table("Operating points: chosen on validation → achieved on the holdout.", head, rows)


def maps_table(model: str, compared: Metrics) -> Table:
    """What each calibration map gave one model."""
    keys = {
        "nll": "seven-class NLL",
        "brier": "seven-class Brier",
        "melanoma_brier": "melanoma Brier",
        "melanoma_ece": "melanoma ECE",
        "melanoma_ece_mass": "melanoma ECE, equal mass",
        "melanoma_roc_auc": "melanoma AUC",
    }
    found = compared[model]
    rows = []
    for name, parts in found["methods"].items():
        label = MAPS[name] + (", least NLL on validation" if name == found["chosen"] else "")
        shown = [Cell(f"{number(parts['val'][key])} → {number(parts['holdout'][key])}") for key in keys]
        rows.append([Cell(label, prose=True), *shown])
    caption = f"Calibration maps for {model}: cross-validated by lesion on validation → fitted on validation, holdout."
    return Table(caption, ["map", *keys.values()], rows)


def maps_summary(compared: Metrics) -> Table:
    """For every network, the map that validation would choose, against the one that ships."""
    rows = []
    for model, found in compared.items():
        best, ships = found["methods"][found["chosen"]], found["methods"][found["shipped"]]
        shown = [Cell(f"{number(side['val']['nll'])} → {number(side['holdout']['nll'])}") for side in (ships, best)]
        rows.append([Cell(model), *shown, Cell(MAPS[found["chosen"]], prose=True)])
    head = ["model", "NLL of the map that ships", "NLL of the map chosen", "chosen on validation"]
    return Table("What a richer map would have gained: validation (cross-validated) → holdout.", head, rows)


def slices_table(model: str, metrics: Metrics) -> Table:
    rows = []
    for row in lookup(metrics, "subgroups")["rows"]:
        shown = [Cell(row["group"]), Cell(row["name"], prose=True), Cell(f"{row['melanoma']:,} / {row['others']:,}")]
        for key in ("roc_auc", "sensitivity", "specificity"):
            few = row[key] is None
            shown.append(Cell("too few" if few else number(row[key]), "" if few else bounds(row[f"{key}_interval"])))
        rows.append(shown)
    caption = (
        f"{model} on parts of the holdout, at the threshold that ships. By diagnosis: all melanomas against that "
        "diagnosis. Skin tone is not recorded in HAM10000."
    )
    return Table(caption, ["group", "slice", "melanoma / others", "AUC", "sensitivity", "specificity"], rows)


def worst_sentences(metrics: Metrics) -> list[str]:
    """The slices that a reader should look at first; named after looking at all, so somewhat unlucky ones."""
    found = []
    for key, among in (("worst", "all slices"), ("worst_of_patients", "the slices by sex, age and site")):
        row = lookup(metrics, f"subgroups.{key}")
        if row is not None:
            interval = bounds(row["roc_auc_interval"])
            text = f"Of {among} the lowest AUC is in “{row['group']}: {row['name']}”: {number(row['roc_auc'])}"
            found.append(f"{text} (95 % interval {interval}, not corrected for having picked the worst).")
    return found


def decision_table(metrics: Metrics) -> Table:
    """Net benefit per 1,000 images; the interval is that of the advantage."""
    rows = []
    for place, name in (("here", "as in the holdout"), ("screening", "screening")):
        for threshold, row in lookup(metrics, "net_benefit")[place].items():
            pair = metrics["intervals"].get(f"net_benefit.{place}.{threshold}.advantage")
            scaled = None if pair is None or None in pair else [1000 * value for value in pair]
            shown = [Cell(_thousand(row[key])) for key in ("model", "treat_all")]
            gain = Cell(_thousand(row["advantage"]), bounds(scaled, 1))
            rows.append([Cell(name), Cell(percent(float(threshold))), *shown, Cell("0"), gain])
    caption = (
        "Net benefit per 1,000 images: melanomas found, less needless referrals weighted by the odds of the "
        "probability at which one would refer. Advantage: over the better of referring everybody and nobody."
    )
    head = ["prevalence", "refer from", "model", "refer all", "refer none", "advantage"]
    return Table(caption, head, rows)


def _thousand(value: float | None) -> str:
    return "–" if value is None else number(1000 * value, 1)


def keep_table(val: Metrics, holdout: Metrics) -> Table:
    """Deferral: chosen on val, and what it gave on the holdout."""
    rows = []
    for share, after in lookup(holdout, "selective.keep").items():
        before = val["selective"]["keep"][share]
        keys = ("answered", "accuracy", "sensitivity", "specificity", "melanomas_deferred")
        shown = [Cell(f"{number(before[key])} → {number(after[key])}") for key in keys]
        rows.append([Cell(percent(float(share))), Cell(number(after["least_confidence"])), *shown])
    whole = [lookup(side, "selective.aurc") for side in (val, holdout)]
    caption = (
        "Deferring the least sure images, validation → holdout; sensitivity and specificity of those answered. Area "
        f"under the risk–coverage curve: {number(whole[0])} → {number(whole[1])} (0: never wrong)."
    )
    head = ["answer", "if confidence ≥", "answered", "accuracy", "sensitivity", "specificity", "melanomas deferred"]
    return Table(caption, head, rows)


def conformal_table(val: Metrics, holdout: Metrics) -> Table:
    rows = []
    for kind, name in (("marginal", "one quantile"), ("class_conditional", "one per diagnosis")):
        before, after = (lookup(side, f"selective.conformal.{kind}") for side in (val, holdout))
        pair = holdout["intervals"].get(f"selective.conformal.{kind}.coverage")
        row = [Cell(name, prose=True), Cell(number(before["coverage"])), Cell(number(after["coverage"]), bounds(pair))]
        row += [Cell(number(value)) for value in after["coverage_by_class"].values()]
        row += [Cell(number(after["mean_size"], 2)), Cell(percent(after["sizes"][0])), Cell(percent(after["sizes"][1]))]
        rows.append([*row, Cell(number(after["melanomas_ruled_out"]))])
    names = lookup(holdout, "selective.conformal.marginal.coverage_by_class")
    head = [
        "quantile",
        "coverage, val",
        "coverage, holdout",
        *names,
        "mean size",
        "empty",
        "of one",
        "melanomas ruled out",
    ]
    aim = percent(lookup(holdout, "selective.conformal.coverage_aimed_at"))
    return Table(
        f"Sets of diagnoses meant to hold the truth in {aim} of images; by diagnosis on the holdout.", head, rows
    )


def robustness_tables(results: Mapping[str, Metrics], mirrored: bool) -> list[Table]:
    """Clean, mean drop with interval, and the drop by corruption, model beside model.

    ``mirrored``: whether teachers answer to mirror images elsewhere, as they do not here.
    """
    mean_rows, by_rows = [], []
    for model, found in results.items():
        clean = [Cell(number(found["clean"][figure])) for figure in ("roc_auc", "macro_f1")]
        means = [found["mean_drop"][figure] for figure in ("roc_auc", "macro_f1")]
        lost = [Cell(number(one["drop"]), bounds(one["interval"])) for one in means]
        mean_rows.append([Cell(model), clean[0], lost[0], clean[1], lost[1], Cell(percent(found["least_moved"]))])
    first = next(iter(results.values()))
    for name in first["conditions"]:
        pairs = [found["drop_by_corruption"][name] for found in results.values()]
        drops = [pair[figure] for figure in ("roc_auc", "macro_f1") for pair in pairs]
        by_rows.append([Cell(name), *(Cell(number(drop)) for drop in drops)])
    n = first["n"]
    caption = (
        f"{n['images']:,} images of the holdout ({n['melanoma']:,} melanomas), clean and corrupted in "
        f"{len(first['conditions'])} ways at five severities. Mean drop: clean minus the mean over all cells, 95 % "
        "interval over lesions. Last column: the share of images whose probabilities even the mildest cell moved by "
        "over 1 %."
    )
    if mirrored:
        caption += (
            " Teachers are asked once an image here, without mirror images, so their clean figures differ from those "
            "above."
        )
    head = ["model", "AUC, clean", "mean drop", "macro-F1, clean", "mean drop", "least moved"]
    shown = [f"{figure}, {model}" for figure in ("AUC", "F1") for model in results]
    return [
        Table(caption, head, mean_rows),
        Table("Mean drop over five severities, by corruption.", ["corruption", *shown], by_rows),
    ]


def rows_of(found: Mapping[str, Any], model: str) -> list[list[float | None]]:
    """AUC by corruption (rows) and severity (columns, clean first) of one model, for the heat map."""
    clean = found[model]["clean"]["roc_auc"]
    return [[clean, *(cell["roc_auc"] for cell in row.values())] for row in found[model]["conditions"].values()]

"""The tables inside README, model card and guides: what they show, and how they get there.

The report stage writes ``docs/tables/NAME.md``; ``make readme`` puts each between the lines ``<!-- NAME -->`` and
``<!-- /NAME -->`` of the documents in :data:`DOCUMENTS`. The tables of ablation and of quantization candidates are not
the report's: they are made from committed JSON and CSV right there, so that these documents change without a run.
``verify`` compares all of them. So prose is written by hand, numbers are not, and no stage owns a file with prose.

``published.csv`` holds the results of two earlier public pipelines, as they report them; ``docs/related.md`` tells how
they differ from this one.
"""

import csv
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from dermdistill import params
from dermdistill.core import parts
from dermdistill.core.files import read_json, write_text
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError, run
from dermdistill.evaluation import ablation, pareto
from dermdistill.params import Params
from dermdistill.reporting.render import (
    Cell,
    Metrics,
    Table,
    cell,
    environment,
    estimate,
    labels,
    lookup,
    markdown,
    named,
    number,
    table,
)
from dermdistill.reporting.results import Results
from dermdistill.reporting.tables import others_table, tables

FOLDER = "docs/tables"
DOCUMENTS = {
    "README.md": ("headline",),
    "docs/results.md": ("results",),
    "docs/related.md": ("published",),
    "docs/model_card.md": ("card_metrics", "card_diagnoses", "card_subgroups", "card_abstention", "card_robustness"),
}
CANDIDATES, MEASURED = "docs/deployment.md", "plots/quantize/candidates"
ABLATION = "docs/distillation.md"
PUBLISHED = Path(__file__).parent / "published.csv"


def texts(results: Results, benchmark: Metrics) -> dict[str, str]:
    """Name → Markdown of every table that the report writes; ``benchmark``: that stage's metrics."""
    made = tables(results)
    documents = {
        "published": [published_table(results)],
        "card_metrics": [card_metrics_table(results)],
        "card_diagnoses": [diagnoses_table(results)],
        "card_subgroups": [made["subgroups"]],
        "card_abstention": [made["deferral"], made["conformal"]],
        "card_robustness": [made["robustness"]],
    }
    first = [readme_table(results)] + [made["seeds"]] * bool(made["seeds"].rows)
    first += [others_table(results)] * bool(results.others)
    whole = fill("results.md.j2", tables=first, comparisons=results.comparisons)
    return {"headline": headline(results, benchmark), "results": whole} | {
        name: "\n\n".join(map(markdown, some)) + "\n" for name, some in documents.items()
    }


def fill(template: str, **values: Any) -> str:
    return environment(html=False).get_template(template).render(**values).rstrip() + "\n"


def headline(results: Results, benchmark: Metrics) -> str:
    """The six rows of the README, and in a sentence each what teacher and network added."""
    student, baseline = results.settings.ship.student, best_baseline(results)
    wanted = {"distillation": (f"student_{student}", f"control_{student}")}
    if baseline is not None:
        wanted["baseline"] = (f"int8_{student}", baseline)
    pairs = {(pair["a"], pair["b"]): pair["metrics"] for pair in results.compared["pairs"]}
    gaps = {name: pairs[pair] for name, pair in wanted.items()}
    return fill("headline.md.j2", table=headline_table(results, benchmark, baseline), gaps=gaps)


def best_baseline(results: Results) -> str | None:
    """The baseline with the best melanoma AUC on val, if any was run; the holdout chooses nothing."""
    ran = [model for model in results.val if ModelId.parse(model).kind == "baseline"]
    return max(ran, key=lambda model: results.val[model]["raw"]["melanoma_roc_auc"] or 0.0, default=None)


def headline_table(results: Results, benchmark: Metrics, baseline: str | None) -> Table:
    """Teacher, student, control, deployed model, best baseline, best published: AUC on the holdout and cost.

    Student and control are means over seeds. The control is the student's network, so it costs the same.
    """
    settings, sides = results.settings, {"val": results.val, "holdout": results.holdout}
    points = pareto.points(pareto.networks(settings), settings.predict.passes, benchmark, sides)
    costs: dict[str, dict[Hashable, Any]] = {row["model"]: row for row in points.to_dict("records")}
    costs[results.roles["control"]] = costs[results.roles["student"]]
    rows: list[dict[str, Any]] = []
    for role, model in (results.roles | ({"baseline": baseline} if baseline else {})).items():
        family = ModelId.parse(model).family if role in ("student", "control") else model
        row = {"role": role, "model": Cell(family, code=True)}
        row["auc"] = auc_cell(results.holdout, results.compared, model, family)
        for part, other in results.others.items():
            row[part] = auc_cell(other.models, other.compared, model, family)
        cost = costs.get(model, {"megabytes": None, "latency_ms": None})
        rows.append(row | {key: cost[key] for key in ("megabytes", "latency_ms")})
    system, auc = max(((line[0], line[1]) for line in published() if line[1] != "–"), key=lambda line: float(line[1]))
    theirs = {"model": system.partition(": ")[2].split(",")[0], "auc": Cell(f"{auc}, own test set")}
    unknown = dict.fromkeys(["megabytes", "latency_ms", *results.others])
    rows.append({"role": "published"} | unknown | theirs)
    names = labels("roles")
    for row in rows:
        row["role"] = names[str(row["role"])]
    more = {f"AUC, {parts.label(part)}": part for part in results.others}
    n = results.holdout[settings.shipped]["n"]
    return table("headline", rows, more, strong=names["int8"], n=n, passes=settings.predict.passes)


def auc_cell(models: Metrics, compared: Metrics, model: str, family: str) -> Cell:
    """Melanoma AUC of a model, or of its family, the mean over seeds, if that has another name."""
    if family == model:
        return cell(models[model], "melanoma.roc_auc")
    mean = compared["families"][family]["melanoma.roc_auc"]
    return estimate(mean["mean"], (mean["low"], mean["high"]))


def readme_table(results: Results) -> Table:
    """One row per model, the deployed one in bold."""
    deployed = results.settings.shipped
    rows = [{"val": results.val[row["model"]], **row} for row in named(results.holdout)]
    return table("readme", rows, strong=deployed, n=results.holdout[deployed]["n"])


def published() -> list[list[str]]:
    """System and metrics of each earlier result, as text; a dash where one was not reported."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def published_table(results: Results) -> Table:
    """The results that others report beside ours."""
    theirs = [[Cell(text) for text in line] for line in published()]
    models = [results.roles[role] for role in ("int8", "student", "teacher")]
    rows = named({f"here: `{model}`": results.holdout[model] for model in models})
    low, high = rows[0]["intervals"]["melanoma.roc_auc"] or (None, None)
    ours = table("published", rows, model=models[0], theirs=float(theirs[0][1].value), low=low, high=high)
    return ours._replace(rows=theirs + ours.rows)


def card_metrics_table(results: Results) -> Table:
    models = {model: results.holdout[model] for model in (results.settings.shipped, results.roles["teacher"])}
    rows = [
        {"metric": label} | {model: cell(metrics, key) for model, metrics in models.items()}
        for key, label in labels("card_metrics").items()
    ]
    columns = {f"`{model}`": model for model in models}
    return table("card_metrics", rows, columns, n=next(iter(models.values()))["n"])


def diagnoses_table(results: Results) -> Table:
    model = results.settings.shipped
    per_class = lookup(results.holdout[model], "diagnosis.per_class")
    return table("card_diagnoses", named(per_class, "dx"), model=model)


# Tables that no stage writes ----------------------------------------------------------------------


def candidates_text(root: str | Path, settings: Params) -> str:
    """The INT8 candidates of each student with the deployed seed, as ``quantize`` measured them.

    Raises:
        UserError: candidates have not been measured.
    """
    models = [str(ModelId("int8", student, settings.ship.seed)) for student in settings.run.students]
    return "\n\n".join(markdown(candidates_table(model, Path(root))) for model in models) + "\n"


def candidates_table(model: str, root: Path) -> Table:
    """The selected scheme is in bold."""
    text = read_text(root / MEASURED / f"{model}.csv", "`dvc repro quantize` makes it")
    rows: list[dict[str, Any]] = []
    for row in csv.DictReader(text.splitlines()):
        rows.append({key: float(row[key]) for key in ("agreement", "equal_decisions", "time_ratio")})
        rows[-1] |= {"scheme": row["scheme"], "kilobytes": f"{int(row['bytes']) / 1000:,.0f}"}
        rows[-1] |= {"auc_drop": round(float(row["auc_drop"]), 3) + 0.0}  # −0 is 0
        rows[-1] |= {"violations": ", ".join(f"`{one.split()[0]}`" for one in row["violations"].split(", ") if one)}
    selected = next((row["scheme"] for row in rows if not row["violations"]), "")
    return table("candidates", rows, strong=selected, model=model)


def ablation_text(ranking: Metrics) -> str:
    """The ways to distil, the best first and in bold, then the student as it is and its other shapes."""
    shapes = [row for row in ranking["rows"] if "shape" in row]
    return fill(
        "ablation.md.j2",
        methods=methods_table(ranking),
        shapes=shapes_table(shapes) if any(row["shape"] for row in shapes) else None,
        left=ranking["left"],
    )


def methods_table(ranking: Metrics) -> Table:
    marks = {"better": " ↑", "worse": " ↓"}  # really differs from the control
    rows = []
    for row in _with_gaps([row for row in ranking["rows"] if not row.get("shape")]):
        for metric, one in row["metrics"].items():
            mark = marks.get(one.get("from_control", {}).get("verdict"), "")
            row[metric] = f"{number(one['value'])}{mark}"
        rows.append(row)
    return table("methods", rows, strong=ranking["best"], shared=ranking["shared"])


def shapes_table(shapes: list[Metrics]) -> Table:
    """The student as it is and its other shapes."""
    rows = _with_gaps(sorted(shapes, key=lambda row: bool(row["shape"])))
    for row in rows:
        changes = yaml.safe_dump(row["shape"], default_flow_style=True, width=1000).strip()[1:-1]
        row["differs"] = Cell(changes, code=True) if changes else "nothing"
        row["cost"] = row["cost"] or {"parameters": None, "macs": None}
    return table("shapes", rows)


def _with_gaps(rows: list[Metrics]) -> list[dict[str, Any]]:
    """The rows with AUC and differences as cells; a dash for what a run is not compared with."""

    def as_cell(one: Metrics | None, key: str) -> Cell:
        return Cell("–") if one is None else estimate(one[key], (one["low"], one["high"]))

    gaps = ("from_control", "from_best", "from_asis")
    return [
        {**row, "auc": as_cell(row["metrics"][ablation.AUC], "value")}
        | {gap: as_cell(row.get(gap), "difference") for gap in gaps}
        for row in rows
    ]


# Into the documents ---------------------------------------------------------------------------------


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def insert(document: str | Path, name: str, text: str) -> None:
    """Put the text between its two markers."""
    before, _, after = split_at_markers(document, name)
    start, end = markers(name)
    write_text(document, f"{before}{start}\n{text.strip()}\n{end}{after}")


def split_at_markers(document: str | Path, name: str) -> tuple[str, str, str]:
    """Text before, between and after the two markers.

    Raises:
        UserError: if the file is missing or does not hold each marker once, in order.
    """
    start, end = markers(name)
    text = read_text(document, f"name the file that holds the line {start}")
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise UserError(
            f"{document} needs one line {start} and, below it, one line {end}; add them where the table belongs"
        )
    before, rest = text.split(start)
    between, after = rest.split(end)
    return before, between.strip(), after


def read_text(path: str | Path, remedy: str = "`dvc repro report` makes it") -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {remedy}") from None


def main() -> None:
    for document, names in DOCUMENTS.items():
        for name in names:
            insert(document, name, read_text(f"{FOLDER}/{name}.md"))
    insert(CANDIDATES, "candidates", candidates_text(".", params.load()))
    if Path(ablation.METRICS).exists():
        insert(ABLATION, "ablation", ablation_text(read_json(ablation.METRICS)))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Tables in Markdown for README and model card, and how they get there.

The report stage writes ``docs/fragments/NAME.md``; ``make readme`` puts each between the lines ``<!-- NAME -->`` and
``<!-- /NAME -->`` of the documents in :data:`DOCUMENTS`, and ``verify`` compares. So prose is written by hand, numbers
are not, and no stage owns a file with prose in it.

``published.csv`` holds the figures of two earlier public pipelines, as they report them; the README says what differs.
"""

import csv
import sys
from pathlib import Path

from dermdistill.core.files import write_text
from dermdistill.errors import UserError, run
from dermdistill.evaluation import cases
from dermdistill.evaluation.model_pairs import METRICS, families
from dermdistill.reporting import protocol_tables, tables
from dermdistill.reporting.cells import Cell, Metrics, Table, bounds, cell, lookup, number
from dermdistill.reporting.results import Results

FOLDER = "docs/fragments"
DOCUMENTS = {
    "README.md": ("results", "published"),
    "docs/model_card.md": ("card_metrics", "card_diagnoses", "card_slices", "card_abstention", "card_robustness"),
}
PUBLISHED = Path(__file__).parent / "published.csv"


def texts(found: Results) -> dict[str, str]:
    """Name → Markdown of every fragment."""
    shipped, teacher = found.settings.shipped, cases.roles(found.settings)["teacher"]
    val, holdout = found.val[shipped], found.holdout[shipped]
    robust = protocol_tables.robustness_tables(found.robustness, found.settings.predict.flips)[:1]
    kept = [protocol_tables.keep_table(val, holdout), protocol_tables.conformal_table(val, holdout)]
    return {
        "results": _results(found),
        "published": _published(found),
        "card_metrics": markdown(_metrics({name: found.holdout[name] for name in (shipped, teacher)})),
        "card_diagnoses": markdown(_diagnoses(shipped, holdout)),
        "card_slices": markdown(protocol_tables.slices_table(shipped, holdout)),
        "card_abstention": "\n".join(map(markdown, kept)),
        "card_robustness": "\n".join(map(markdown, robust)),
    }


def markdown(table: Table) -> str:
    """A table of the report as Markdown, its caption below; intervals stand in brackets."""
    lines = [table.head, ["---"] * len(table.head), *([_plain(one) for one in row] for row in table.rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", table.caption]) + "\n"


def _plain(shown: Cell) -> str:
    text = f"{shown.value} [{shown.interval.replace(' to ', ', ')}]" if shown.interval else shown.value
    return text.replace("|", "\\|")


def _results(found: Results) -> str:
    """The README's table: one row per model, the shipped one in bold, then what the differences mean."""
    shipped, val, holdout = found.settings.shipped, found.val, found.holdout
    head = [
        "model",
        "melanoma AUC, val, raw",
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
        "All columns but the first AUC are measured on it, calibrated on val; that one is of val and raw. "
        "Intervals: 95 %, bootstrap of lesions. "
        "Sensitivity / specificity: at the threshold chosen on val. **Bold**: the file that ships."
    )
    sentences = [f"- {tables.verdict(item, '`')}" for item in found.comparisons]
    return "\n".join([*lines, "", note, "", *_seeds(found.compared), *sentences]).rstrip() + "\n"


def _seeds(compared: Metrics) -> list[str]:
    """Mean ± standard deviation over seeds, with the interval over lesions and seeds; nothing with one seed."""
    several = {name: row for name, row in compared["families"].items() if row["melanoma.roc_auc"]["seeds"] > 1}
    if not several:
        return []
    close = {"agreement": "same diagnosis as the teacher", "kl": "KL to the teacher"}
    head = [*(f"{name} [95 %]" for name in METRICS.values()), *close.values()]
    lines = [f"| mean over seeds, holdout | seeds | {' | '.join(head)} |", "|---|---|" + "---|" * len(head)]
    members = families(list(compared["fidelity"]))
    for name, row in several.items():
        figures = [f"{number(row[k]['mean'])} ± {number(row[k]['sd'])} [{_bounds(row[k])}]" for k in METRICS]
        found = [compared["fidelity"][member]["holdout"] for member in members[name]]
        figures += [number(sum(one[k] for one in found) / len(found)) for k in close]
        lines.append(f"| `{name}` | {row['melanoma.roc_auc']['seeds']} | " + " | ".join(figures) + " |")
    note = (
        "Mean ± standard deviation over seeds; these intervals resample lesions and seeds. The last two columns "
        "compare raw probabilities with the teacher's as it is judged."
    )
    return [*lines, "", note, ""]


def _bounds(row: Metrics) -> str:
    return bounds((row["low"], row["high"])).replace(" to ", ", ") or "–"


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
        number(lookup(val, "raw.melanoma_roc_auc")),
        f"{auc.value} [{auc.interval.replace(' to ', ', ')}]" if auc.interval else auc.value,
        *(number(lookup(holdout, key)) for key in keys),
        " / ".join(number(lookup(holdout, f"{tables.POINT}.{key}")) for key in ("sensitivity", "specificity")),
    ]


def _published(found: Results) -> str:
    """The figures others report beside ours; a dash where a figure was not reported."""
    head = [
        "system",
        "melanoma AUC",
        "PR-AUC",
        "melanoma F1",
        "melanoma ECE",
        "accuracy, 7 classes",
        "macro-F1, 7 classes",
    ]
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        rows = [[Cell(value) for value in line] for line in list(csv.reader(file))[1:]]
    keys = ["melanoma.roc_auc", "melanoma.pr_auc", "operating_points.f1.f1", "melanoma.ece", "diagnosis.accuracy"]
    for role in ("int8", "student", "teacher"):
        model = cases.roles(found.settings)[role]
        shown = [cell(found.holdout[model], key) for key in [*keys, "diagnosis.macro_f1"]]
        rows.append([Cell(f"here: `{model}`"), *shown])
    said = f"Theirs as they report them, each on a test set of its own. {_against(found, float(rows[0][1].value))}"
    return markdown(Table(said, head, rows))


def _against(found: Results, theirs: float) -> str:
    """Where the AUC of the first row stands to our interval."""
    model = found.settings.shipped
    pair = found.holdout[model]["intervals"]["melanoma.roc_auc"]
    if pair is None or None in pair:
        return f"The AUC of `{model}` has no interval here."
    relation = "below" if theirs < pair[0] else "above" if theirs > pair[1] else "inside"
    return f"The AUC of {number(theirs)} in the first row is {relation} the 95 % interval of `{model}`."


def _metrics(models: dict[str, Metrics]) -> Table:
    names = {
        "melanoma.roc_auc": "melanoma ROC-AUC",
        "melanoma.histology.roc_auc": "melanoma ROC-AUC against histology-confirmed benign",
        "melanoma.pr_auc": "melanoma PR-AUC",
        "melanoma.brier": "melanoma Brier score",
        "melanoma.ece": "melanoma ECE",
        f"{tables.POINT}.sensitivity": "sensitivity at the threshold that ships",
        f"{tables.POINT}.specificity": "specificity at that threshold",
        f"{tables.POINT}.ppv": "PPV at that threshold",
        f"{tables.POINT}.npv": "NPV at that threshold",
        "diagnosis.accuracy": "accuracy, seven diagnoses",
        "diagnosis.balanced_accuracy": "balanced accuracy, seven diagnoses",
        "diagnosis.macro_f1": "macro-F1, seven diagnoses",
    }
    rows = [[Cell(name), *(cell(metrics, key) for metrics in models.values())] for key, name in names.items()]
    n = next(iter(models.values()))["n"]
    caption = (
        f"Holdout: {n['images']:,} images of {n['lesions']:,} lesions, {n['melanoma']:,} images of melanoma; 95 % "
        "intervals resample lesions."
    )
    return Table(caption, ["figure", *(f"`{name}`" for name in models)], rows)


def _diagnoses(model: str, metrics: Metrics) -> Table:
    found = lookup(metrics, "diagnosis.per_class")
    rows = [
        [Cell(dx), Cell(f"{row['n']:,}"), *(Cell(number(row[key])) for key in ("precision", "recall", "f1"))]
        for dx, row in found.items()
    ]
    return Table(f"`{model}` on the holdout.", ["diagnosis", "images", "precision", "recall", "F1"], rows)


# Into the documents ------------------------------------------------------------------------------


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def insert(document: str | Path, name: str, fragment: str | Path) -> None:
    """Put the fragment's text between its two markers."""
    before, _, after = split_at_markers(document, name)
    try:
        text = Path(fragment).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{fragment} does not exist; `dvc repro report` makes it") from None
    start, end = markers(name)
    write_text(document, f"{before}{start}\n{text}\n{end}{after}")


def split_at_markers(document: str | Path, name: str) -> tuple[str, str, str]:
    """Text before, between and after the two markers.

    Raises:
        UserError: if the file is missing or does not hold each marker once, in order.
    """
    start, end = markers(name)
    try:
        text = Path(document).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{document} does not exist; name the file that holds the line {start}") from None
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise UserError(
            f"{document} needs one line {start} and, below it, one line {end}; add them where the table belongs"
        )
    before, rest = text.split(start)
    between, after = rest.split(end)
    return before, between.strip(), after


def main() -> None:
    for document, names in DOCUMENTS.items():
        for name in names:
            insert(document, name, f"{FOLDER}/{name}.md")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""One self-contained HTML page, one Markdown table and one small JSON, all from files of metrics.

Everything is read by model id, never by listing a folder, so a file left over from an earlier run
cannot slip into a table. The page fetches nothing and runs no script, so that it can be opened in a
clinic without network and kept as a record.

Deliberately absent: any metric of its own (``evaluation`` computes, ``tables`` words, this module
arranges) and any date or revision, which would make two equal reports differ.
"""

import base64
import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from dermdistill.errors import UserError, run
from dermdistill.evaluation import predictions
from dermdistill.files import read_json, write_json, write_text
from dermdistill.params import Params
from dermdistill.reporting import cases, error_tables, figures, plots, protocol_tables, tables
from dermdistill.reporting.cells import facts, percent
from dermdistill.reporting.figures import Drawn, Results

START, END = "<!-- results -->", "<!-- /results -->"
FRAGMENT = "docs/fragments/results.md"
PHANTOM = "HAM_9"  # the embedded phantom's lesions carry ids that HAM10000 does not use


PARETO = (
    "Accuracy against cost",
    "Bubbles: melanoma AUC and macro-F1 on the holdout against latency and bytes; the table below has the numbers.",
    "Arrows lead from the teacher over the student to its INT8 file; numbers: plots/pareto/points.csv.",
)


class Picture(NamedTuple):
    title: str
    uri: str
    alt: str
    caption: str


def build(root: str | Path, settings: Params) -> None:
    """Write report, figures, summary and fragment below ``root``.

    Raises:
        UserError: naming the first file that is missing.
    """
    root = Path(root)
    results = figures.load(root, settings)
    write_json(root / "metrics/summary.json", tables.summary(results.val, results.holdout))
    write_text(root / FRAGMENT, tables.fragment(settings.shipped, results.val, results.holdout, results.comparisons))
    drawn = figures.figures(root, results)
    for item in drawn:
        plots.save(item.figure, root / f"plots/figures/{item.name}.png")
    write_text(root / "reports/report.html", page(root, results, drawn))


def picture(path: str | Path, title: str, alt: str, caption: str, photograph: bool = False) -> Picture:
    """A PNG as a data URI; photographs become JPEG, which keeps the page small enough to mail."""
    try:
        content, kind = Path(path).read_bytes(), "png"
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro` makes it") from None
    if photograph:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(content)).convert("RGB").save(buffer, "JPEG", quality=85)
        content, kind = buffer.getvalue(), "jpeg"
    return Picture(title, f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt, caption)


# The page -----------------------------------------------------------------------------------------


def page(root: Path, results: Results, drawn: Sequence[Drawn]) -> str:
    """The report as HTML; the ``drawn`` figures must have been saved to ``plots/figures``."""
    shipped = results.settings.shipped
    val, holdout = results.val[shipped], results.holdout[shipped]
    n = holdout["n"]
    context = {
        "shipped": shipped,
        "phantom": is_phantom(root, shipped),
        "headline": tables.headline(holdout, read_json(root / f"metrics/quantize/{shipped}.json")),
        "comparisons": [tables.verdict(item) for item in results.comparisons],
        "figures": [_drawn_picture(root, item) for item in drawn],
        "target": tables.target_sentence(results.settings.calibrate.sensitivity, holdout),
        "prevalence": percent(n["melanoma"] / n["images"]),
        "worst": protocol_tables.worst_sentences(holdout),
        "slower": read_json(root / "metrics/benchmark.json")["sentences"],
        "pareto": picture(root / "plots/pareto/pareto.png", *PARETO),
        "errors": error_tables.sentences(read_json(root / "metrics/analyze_errors.json")),
        "error_figures": _error_pictures(root),
        "panels": _panels(root),
        "tables": _tables(root, results, val, holdout),
    }
    return render(context)


def is_phantom(root: Path, model: str) -> bool:
    known = predictions.read(root / f"predictions/holdout/{model}.csv")
    return all(str(lesion).startswith(PHANTOM) for lesion in known.lesion_id)


def _drawn_picture(root: Path, item: Drawn) -> Picture:
    return picture(root / f"plots/figures/{item.name}.png", item.title, item.alt, item.caption)


def _error_pictures(root: Path) -> list[Picture]:
    folder = root / "plots/errors"
    return [
        picture(
            folder / "per_class.png",
            "F1 by diagnosis",
            "Bars of F1 per diagnosis for teacher, student and INT8, and the change against the teacher.",
            "Bars below zero: the small model does worse than its teacher.",
        ),
        picture(
            folder / "confidence.png",
            "Confidence, right and wrong",
            "Histograms of the largest probability for right and wrong diagnoses, by model.",
            "Wrong answers far to the right are the dangerous ones. Counts are logarithmic.",
        ),
    ]


def _panels(root: Path) -> list[Picture]:
    shown = figures.read_table(root, "plots/errors/cases.csv").groupby("kind")["image_id"].agg(", ".join)
    return [
        picture(root / f"reports/panels/{kind}.png", title, f"{title}: {shown[kind]}", note, True)
        for kind, (title, note) in cases.KINDS.items()
        if kind in shown.index
    ]


def _tables(root: Path, results: Results, val: Any, holdout: Any) -> dict[str, Any]:
    shipped, roles = results.settings.shipped, list(cases.roles(results.settings).values())
    stages = ("ship", "prepare", "split", "analyze_errors", "export", "benchmark")
    metrics = {stage: read_json(root / f"metrics/{stage}.json") for stage in stages}
    quantized = read_json(root / f"metrics/quantize/{shipped}.json")
    return {
        "val": tables.results_table("Validation", results.val),
        "holdout": tables.results_table("Holdout", results.holdout),
        "seeds": protocol_tables.seeds_table(results.compared),
        "pairs": protocol_tables.pairs_table(results.compared),
        "thresholds": tables.thresholds_table(val, holdout),
        "gap": protocol_tables.gap_table(roles, results.val, results.holdout),
        "decision": protocol_tables.decision_table(holdout),
        "calibration": tables.calibration_table(results.calibration, results.holdout),
        "maps": [protocol_tables.maps_table(shipped, results.maps), protocol_tables.maps_summary(results.maps)],
        "slices": [protocol_tables.slices_table(model, results.holdout[model]) for model in (shipped, roles[0])],
        "abstention": [protocol_tables.keep_table(val, holdout), protocol_tables.conformal_table(val, holdout)],
        "robustness": protocol_tables.robustness_tables(results.robustness) if results.robustness else [],
        "errors": error_tables.tables(metrics["analyze_errors"]),
        "shipped": facts("Quantization parity", quantized) + facts("Shipping checks", metrics["ship"]),
        "exports": facts("Exports against PyTorch, on val", metrics["export"]),
        "cost": facts("Cost", {k: v for k, v in metrics["benchmark"].items() if k != "sentences"}),
        "data": facts("Data", metrics["prepare"]) + facts("Split", metrics["split"]),
    }


def render(context: Mapping[str, Any]) -> str:
    """Fill the template; a name it needs and does not get is an error, and every value is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html.j2").render(**context) + "\n"


# The README's block -------------------------------------------------------------------------------


def insert_fragment(readme: str | Path, fragment: str | Path = FRAGMENT) -> None:
    """Put the fragment's text between the markers ``<!-- results -->`` and ``<!-- /results -->`` of ``readme``."""
    before, _, after = split_at_markers(readme)
    try:
        text = Path(fragment).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise UserError(f"{fragment} does not exist; `dvc repro report` makes it") from None
    write_text(readme, f"{before}{START}\n{text}\n{END}{after}")


def split_at_markers(readme: str | Path) -> tuple[str, str, str]:
    """Text before, between and after the two markers.

    Raises:
        UserError: if the file is missing or does not hold each marker once, in order.
    """
    try:
        text = Path(readme).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{readme} does not exist; name the file that holds the line {START}") from None
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise UserError(
            f"{readme} needs one line {START} and, below it, one line {END}; add them where the table belongs"
        )
    before, rest = text.split(START)
    between, after = rest.split(END)
    return before, between.strip(), after


def main(*arguments: str) -> None:
    if len(arguments) != 2 or arguments[0] != "--insert":
        raise UserError("usage: python -m dermdistill.reporting.report --insert README.md")
    insert_fragment(arguments[1])


if __name__ == "__main__":
    run(main, *sys.argv[1:])

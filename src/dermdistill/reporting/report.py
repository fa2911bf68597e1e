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
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from dermdistill.classes import CLASSES, NAMES
from dermdistill.errors import UserError, run
from dermdistill.evaluation import predictions, uncertainty
from dermdistill.files import read_json, write_json, write_text
from dermdistill.params import Params
from dermdistill.reporting import cases, plots, tables
from dermdistill.reporting.plots import Interval
from dermdistill.reporting.tables import Comparison, number

START, END = "<!-- results -->", "<!-- /results -->"
FRAGMENT = "docs/fragments/results.md"
PHANTOM = "HAM_9"  # the embedded phantom's lesions carry ids that HAM10000 does not use


class Results(NamedTuple):
    """The metrics files of every model of a run, by id in the run's order."""

    settings: Params
    val: dict[str, Any]
    holdout: dict[str, Any]
    calibration: dict[str, Any]
    comparisons: list[Comparison]


class Picture(NamedTuple):
    title: str
    uri: str
    alt: str
    caption: str


class Drawn(NamedTuple):
    name: str
    figure: Figure
    title: str
    alt: str
    caption: str


def build(root: str | Path, settings: Params) -> None:
    """Write report, figures, summary and fragment below ``root``.

    Raises:
        UserError: naming the first file that is missing.
    """
    root = Path(root)
    results = load(root, settings)
    write_json(root / "metrics/summary.json", tables.summary(results.val, results.holdout))
    write_text(root / FRAGMENT, tables.fragment(settings.shipped, results.val, results.holdout, results.comparisons))
    drawn = figures(root, results)
    for item in drawn:
        plots.save(item.figure, root / f"plots/figures/{item.name}.png")
    write_text(root / "reports/report.html", page(root, results, drawn))


# What is read -------------------------------------------------------------------------------------


def load(root: str | Path, settings: Params) -> Results:
    folder = Path(root) / "metrics"
    val, holdout, calibrate = (
        {model: read_json(folder / kind / f"{model}.json") for model in settings.model_ids()}
        for kind in ("val", "holdout", "calibrate")
    )
    return Results(settings, val, holdout, calibrate, compare(root, settings))


def compare(root: str | Path, settings: Params) -> list[Comparison]:
    """Student against control, student against teacher, INT8 against student: melanoma AUC on the holdout."""
    judged = cases.judge(root, cases.roles(settings))
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    found = []
    for first, second in (("student", "control"), ("student", "teacher"), ("int8", "student")):
        a, b = judged[first], judged[second]
        area_a, area_b = (uncertainty.roc_auc(one.known.melanoma, one.p_melanoma) for one in (a, b))
        difference = uncertainty.paired_difference(area_b, area_a, a.known.lesion_id, count, seed)  # a minus b
        if difference is not None:  # without any melanoma there is nothing to compare
            found.append(Comparison(a.model, b.model, *difference))
    return found


def _table(root: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(root / name)
    except FileNotFoundError:
        raise UserError(f"{root / name} does not exist; `dvc repro` makes it") from None


# Figures ------------------------------------------------------------------------------------------


def figures(root: Path, results: Results) -> list[Drawn]:
    """The figures of ``plots/figures``, in the order of the page."""
    return [_comparison(results), *_curves(root, results), *_shipped(root, results), _training(root, results)]


def _comparison(results: Results) -> Drawn:
    rows = []
    for model, metrics in results.holdout.items():
        low, high = metrics["intervals"]["melanoma.roc_auc"] or (None, None)
        rows.append(Interval(model, metrics["melanoma"]["roc_auc"], low, high))
    figure = plots.comparison(rows, "melanoma ROC-AUC, holdout", "Every model with its 95 % interval")
    spoken = ", ".join(f"{row.model} {number(row.value)}" for row in rows)
    return Drawn(
        "comparison",
        figure,
        "Melanoma AUC by model",
        f"Forest plot of melanoma ROC-AUC on the holdout: {spoken}.",
        "Whether two models differ cannot be read off overlapping intervals; see the paired differences.",
    )


def _curves(root: Path, results: Results) -> list[Drawn]:
    models = list(cases.roles(results.settings).values())
    points = {model: results.holdout[model]["operating_points"]["sensitivity"] for model in models}
    reached = {model: point for model, point in points.items() if None not in point.values()}
    roc, pr = ({model: _table(root, f"plots/curves/{kind}/{model}.csv") for model in models} for kind in ("roc", "pr"))
    areas = ", ".join(f"{model} {number(results.holdout[model]['melanoma']['roc_auc'])}" for model in models)
    precisions = ", ".join(f"{model} {number(results.holdout[model]['melanoma']['pr_auc'])}" for model in models)
    n = results.holdout[results.settings.shipped]["n"]
    roc_points = {model: (point["sensitivity"], point["specificity"]) for model, point in reached.items()}
    pr_points = {model: (point["sensitivity"], point["ppv"]) for model, point in reached.items()}
    return [
        Drawn(
            "roc",
            plots.roc(roc, roc_points),
            "ROC curves",
            f"ROC curves on the holdout; areas: {areas}.",
            "Marks: the threshold chosen on validation, as it fell on the holdout.",
        ),
        Drawn(
            "pr",
            plots.precision_recall(pr, pr_points, n["melanoma"] / n["images"]),
            "Precision and recall",
            f"Precision–recall curves on the holdout; areas: {precisions}.",
            "The dotted line is what guessing would reach. Marks: as in the ROC curves.",
        ),
    ]


def _shipped(root: Path, results: Results) -> list[Drawn]:
    model = results.settings.shipped
    metrics, thresholds = results.holdout[model], results.calibration[model]["thresholds"]
    chosen = {"ships": thresholds["sensitivity"], "Youden": thresholds["youden"]}
    error, accuracy = number(metrics["melanoma"]["ece"]), number(metrics["diagnosis"]["accuracy"])
    reliability, threshold = (_table(root, f"plots/curves/{kind}/{model}.csv") for kind in ("reliability", "threshold"))
    matrix = metrics["diagnosis"]["confusion"]
    return [
        Drawn(
            "reliability",
            plots.reliability(reliability, f"{model}, holdout"),
            "Stated against observed",
            f"Reliability diagram of {model}; expected calibration error {error}.",
            "On the diagonal, 30 of 100 images that are given a probability of 30 % are melanomas.",
        ),
        Drawn(
            "confusion",
            plots.confusion(matrix, CLASSES, f"{model}, holdout"),
            "Confusion matrix",
            f"Confusion matrix of {model} over seven diagnoses; accuracy {accuracy}.",
            "; ".join(f"{short}: {name}" for short, name in NAMES.items()) + ".",
        ),
        Drawn(
            "threshold",
            plots.threshold(threshold, chosen, f"{model}, holdout"),
            "What each threshold would do",
            f"Sensitivity, specificity and F1 of {model} by threshold on the holdout.",
            "Vertical lines: the thresholds chosen on validation.",
        ),
    ]


def _training(root: Path, results: Results) -> Drawn:
    trained = [model for model in results.settings.model_ids() if not model.startswith("int8")]
    figure = plots.training_curves({model: _table(root, f"plots/training/{model}.csv") for model in trained})
    alt = f"Validation loss and validation melanoma AUC by epoch of {', '.join(trained)}."
    return Drawn("training", figure, "Training", alt, "Validation only; the holdout plays no part in training.")


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
        "prevalence": tables.percent(n["melanoma"] / n["images"]),
        "errors": tables.error_sentences(read_json(root / "metrics/analyze_errors.json")),
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
    shown = _table(root, "plots/errors/cases.csv").groupby("kind")["image_id"].agg(", ".join)
    return [
        picture(root / f"reports/panels/{kind}.png", title, f"{title}: {shown[kind]}", note, True)
        for kind, (title, note) in cases.KINDS.items()
        if kind in shown.index
    ]


def _tables(root: Path, results: Results, val: Any, holdout: Any) -> dict[str, Any]:
    quantized = read_json(root / f"metrics/quantize/{results.settings.shipped}.json")
    return {
        "val": tables.results_table("Validation", results.val),
        "holdout": tables.results_table("Holdout", results.holdout),
        "seeds": tables.seeds_table(results.holdout),
        "thresholds": tables.thresholds_table(val, holdout),
        "calibration": tables.calibration_table(results.calibration, results.holdout),
        "errors": tables.error_tables(read_json(root / "metrics/analyze_errors.json")),
        "shipped": tables.facts("Quantization parity", quantized)
        + tables.facts("Shipping checks", read_json(root / "metrics/ship.json")),
        "data": tables.facts("Data", read_json(root / "metrics/prepare.json"))
        + tables.facts("Split", read_json(root / "metrics/split.json")),
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

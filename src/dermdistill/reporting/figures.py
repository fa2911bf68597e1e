"""Which figures the report shows, from which files, and what each says in words.

Every file is read by model id, never by listing a folder, so one left over from an earlier run cannot slip in.
``plots`` draws, this module reads and words. Deliberately absent: any number of its own.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from dermdistill.classes import CLASSES, NAMES
from dermdistill.errors import UserError
from dermdistill.evaluation import uncertainty
from dermdistill.files import read_json
from dermdistill.params import Params
from dermdistill.reporting import cases, comparisons, plots, protocol_plots, protocol_tables
from dermdistill.reporting.cells import number
from dermdistill.reporting.plots import Interval
from dermdistill.reporting.tables import Comparison


class Results(NamedTuple):
    """The metrics files of every model of a run, by id in the run's order."""

    settings: Params
    val: dict[str, Any]
    holdout: dict[str, Any]
    calibration: dict[str, Any]
    comparisons: list[Comparison]
    compared: dict[str, Any]  # every pair and family
    maps: dict[str, Any]  # every calibration map
    robustness: dict[str, Any]  # of teacher, student and shipped file, as far as measured


class Drawn(NamedTuple):
    name: str
    figure: Figure
    title: str
    alt: str
    caption: str


def read_table(root: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(root / name)
    except FileNotFoundError:
        raise UserError(f"{root / name} does not exist; `dvc repro` makes it") from None


def _curve(root: Path, kind: str, model: str) -> pd.DataFrame:
    return read_table(root, f"plots/curves/{kind}/{model}.csv")


def load(root: str | Path, settings: Params) -> Results:
    folder, models = Path(root) / "metrics", comparisons.published(root, settings)
    val, holdout, calibrate = (
        {model: read_json(folder / kind / f"{model}.json") for model in models}
        for kind in ("val", "holdout", "calibrate")
    )
    compared, maps = (read_json(folder / f"compare/{name}.json") for name in ("models", "calibration"))
    roles = cases.roles(settings)
    tried = {roles[role]: folder / f"robustness/{roles[role]}.json" for role in ("student", "int8")}
    tried = {roles["teacher"]: folder / "robustness/teacher_ensemble.json"} | tried  # be it of one
    robustness = {model: read_json(path) for model, path in tried.items() if path.exists()}
    return Results(settings, val, holdout, calibrate, compare(root, settings), compared, maps, robustness)


def compare(root: str | Path, settings: Params) -> list[Comparison]:
    """Student against control, student against teacher, INT8 against student: melanoma AUC on the holdout.

    Of the models of the seed that ships, or with several seeds of their means.
    """
    if len(settings.run.seeds) > 1:
        return _over_seeds(read_json(Path(root) / "metrics/compare/models.json"), settings)
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


def _over_seeds(compared: dict[str, Any], settings: Params) -> list[Comparison]:
    student, control, int8 = (f"{kind}_{settings.ship.student}" for kind in ("student", "control", "int8"))
    found = []
    for wanted in ((student, control), (student, settings.teacher_id), (int8, student)):
        pair = next(pair for pair in compared["pairs"] if (pair["a"], pair["b"]) == wanted)
        names = [f"{name} ({n} seeds)" if n > 1 else name for name, n in zip(wanted, pair["seeds"], strict=True)]
        gap = pair["metrics"]["melanoma.roc_auc"]
        if gap["difference"] is not None:
            found.append(Comparison(names[0], names[1], gap["difference"], gap["low"], gap["high"]))
    return found


def figures(root: Path, results: Results) -> list[Drawn]:
    """The figures of ``plots/figures``, in the order of the page."""
    drawn = [_comparison(results), *_curves(root, results), *_shipped(root, results), *_thresholds(root, results)]
    return [*drawn, *_use(root, results), *_robustness(results), _training(root, results)]


def _thresholds(root: Path, results: Results) -> list[Drawn]:
    """The threshold curves of teacher and student, as that of the shipped file."""
    roles, found = cases.roles(results.settings), []
    for role in ("teacher", "student"):
        model = roles[role]
        thresholds = results.calibration[model]["thresholds"]
        chosen = {"95 %" if name == "sensitivity" else name: value for name, value in thresholds.items()}
        figure = plots.threshold(_curve(root, "threshold", model), chosen, f"{model}, holdout")
        alt = f"Sensitivity, specificity and F1 of {model} by threshold on the holdout."
        text = "Vertical lines: the thresholds chosen on validation."
        found.append(Drawn(f"threshold_{role}", figure, f"Thresholds of the {role}", alt, text))
    return found


def _use(root: Path, results: Results) -> list[Drawn]:
    """Calibration before and after, decision curves, and what deferring gains."""
    roles, shipped = cases.roles(results.settings), results.settings.shipped
    models, n = list(roles.values()), results.holdout[shipped]["n"]
    raw, after = (_curve(root, kind, shipped) for kind in ("reliability_raw", "reliability"))
    decision, risk = ({model: _curve(root, kind, model) for model in models} for kind in ("decision", "risk_coverage"))
    here, screening = n["melanoma"] / n["images"], results.settings.evaluate.screening_prevalence
    areas = ", ".join(f"{model} {number(results.holdout[model]['selective']['aurc'])}" for model in models)
    errors = [
        number(results.holdout[shipped][part][key]) for part, key in (("raw", "melanoma_ece"), ("melanoma", "ece"))
    ]
    return [
        Drawn(
            "reliability_pair",
            protocol_plots.reliability_pair(raw, after, f"{shipped}, holdout"),
            "Before and after calibration",
            f"Reliability of {shipped}: calibration error {errors[0]} raw, {errors[1]} calibrated.",
            "Each point is a bin that holds images.",
        ),
        Drawn(
            "decision",
            protocol_plots.decision(decision, here, screening),
            "Decision curves",
            f"Net benefit by threshold of {', '.join(models)}, at the holdout's and at a screening prevalence.",
            "Above both grey lines the model does more good than referring everybody or nobody.",
        ),
        Drawn(
            "risk_coverage",
            protocol_plots.risk_coverage(risk),
            "Risk and coverage",
            f"Share of wrong diagnoses by share of images answered; areas: {areas}.",
            "What is left unanswered goes to a person.",
        ),
    ]


def _robustness(results: Results) -> list[Drawn]:
    found = results.robustness
    if not found:
        return []
    rows = {model: protocol_tables.rows_of(found, model) for model in found}
    names = list(next(iter(found.values()))["cells"])
    drops = ", ".join(f"{model} {number(one['mean_drop']['roc_auc']['drop'])}" for model, one in found.items())
    figure = protocol_plots.heat(rows, names)
    alt = f"Melanoma AUC by corruption and severity; mean drop against clean: {drops}."
    return [Drawn("robustness", figure, "Robustness", alt, "Melanoma AUC on corrupted images of the holdout.")]


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
    roc, pr = ({model: _curve(root, kind, model) for model in models} for kind in ("roc", "pr"))
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
    chosen = {"ships": thresholds["sensitivity"], "Youden": thresholds["youden"], "F1": thresholds["f1"]}
    error, accuracy = number(metrics["melanoma"]["ece"]), number(metrics["diagnosis"]["accuracy"])
    reliability, threshold = (
        read_table(root, f"plots/curves/{kind}/{model}.csv") for kind in ("reliability", "threshold")
    )
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
    figure = plots.training_curves({model: read_table(root, f"plots/training/{model}.csv") for model in trained})
    alt = f"Validation loss and validation melanoma AUC by epoch of {', '.join(trained)}."
    return Drawn("training", figure, "Training", alt, "Validation only; the holdout plays no part in training.")

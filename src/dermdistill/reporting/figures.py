"""Which figures the report shows, from which files, and what each says in words.

``curve_plots`` and its like draw, this module reads and words; comparisons of models and trainings have modules of
their own beside it. Deliberately absent: any number of its own.
"""

from pathlib import Path

from dermdistill.evaluation import cases
from dermdistill.reporting import compared_figures, curve_plots, model_plots, protocol_tables, training_figures
from dermdistill.reporting.cells import number
from dermdistill.reporting.results import Drawn, Results, curve, read_table


def figures(root: Path, results: Results) -> list[Drawn]:
    """The figures of ``plots/figures``, in the order of the story."""
    drawn = [*compared_figures.figures(results), *_curves(root, results), *_shipped(root, results)]
    drawn += [*_thresholds(root, results), *_use(root, results), _reliabilities(root, results)]
    return [*drawn, _robustness(results), *training_figures.figures(root, results)]


def _thresholds(root: Path, results: Results) -> list[Drawn]:
    """The threshold curves of teacher and student, as that of the shipped file."""
    roles, found = cases.roles(results.settings), []
    for role in ("teacher", "student"):
        model = roles[role]
        thresholds = results.calibration[model]["thresholds"]
        target = f"{100 * results.settings.calibrate.sensitivity:g} %"
        chosen = {target if name == "sensitivity" else name: value for name, value in thresholds.items()}
        figure = curve_plots.threshold(curve(root, "threshold", model), chosen, f"{model}, holdout")
        alt = f"Sensitivity, specificity and F1 of {model} by threshold on the holdout."
        text = "Vertical lines: the thresholds chosen on validation."
        found.append(Drawn(f"threshold_{role}", figure, f"Thresholds of the {role}", alt, text))
    return found


def _use(root: Path, results: Results) -> list[Drawn]:
    """Calibration before and after, decision curves, and what deferring gains."""
    roles, shipped = cases.roles(results.settings), results.settings.shipped
    models, n = list(roles.values()), results.holdout[shipped]["n"]
    raw, after = (curve(root, kind, shipped) for kind in ("reliability_raw", "reliability"))
    decision, risk = ({model: curve(root, kind, model) for model in models} for kind in ("decision", "risk_coverage"))
    here, screening = n["melanoma"] / n["images"], results.settings.evaluate.screening_prevalence
    areas = ", ".join(f"{model} {number(results.holdout[model]['selective']['aurc'])}" for model in models)
    errors = [
        number(results.holdout[shipped][part][key]) for part, key in (("raw", "melanoma_ece"), ("melanoma", "ece"))
    ]
    return [
        Drawn(
            "reliability_pair",
            curve_plots.reliability_pair(raw, after, f"{shipped}, holdout"),
            "Before and after calibration",
            f"Reliability of {shipped}: calibration error {errors[0]} raw, {errors[1]} calibrated.",
            "Each point is a bin that holds images.",
        ),
        Drawn(
            "decision",
            curve_plots.decision(decision, here, screening),
            "Decision curves",
            f"Net benefit by threshold of {', '.join(models)}, at the holdout's and at a screening prevalence.",
            "Above both grey lines the model does more good than referring everybody or nobody.",
        ),
        Drawn(
            "risk_coverage",
            curve_plots.risk_coverage(risk),
            "Risk and coverage",
            f"Share of wrong diagnoses by share of images answered; areas: {areas}.",
            "What is left unanswered goes to a person.",
        ),
    ]


def _robustness(results: Results) -> Drawn:
    found = results.robustness
    rows = {model: protocol_tables.rows_of(found, model) for model in found}
    names = list(next(iter(found.values()))["conditions"])
    drops = ", ".join(f"{model} {number(one['mean_drop']['roc_auc']['drop'])}" for model, one in found.items())
    figure = model_plots.heat(rows, names)
    alt = f"Melanoma AUC by corruption and severity; mean drop against clean: {drops}."
    return Drawn("robustness", figure, "Robustness", alt, "Melanoma AUC on corrupted images of the holdout.")


def _curves(root: Path, results: Results) -> list[Drawn]:
    models = list(cases.roles(results.settings).values())
    points = {model: results.holdout[model]["operating_points"]["sensitivity"] for model in models}
    reached = {model: point for model, point in points.items() if None not in point.values()}
    roc, pr = ({model: curve(root, kind, model) for model in models} for kind in ("roc", "pr"))
    areas = ", ".join(f"{model} {number(results.holdout[model]['melanoma']['roc_auc'])}" for model in models)
    precisions = ", ".join(f"{model} {number(results.holdout[model]['melanoma']['pr_auc'])}" for model in models)
    n = results.holdout[results.settings.shipped]["n"]
    roc_points = {model: (point["sensitivity"], point["specificity"]) for model, point in reached.items()}
    pr_points = {model: (point["sensitivity"], point["ppv"]) for model, point in reached.items()}
    return [
        Drawn(
            "roc",
            curve_plots.roc(roc, roc_points),
            "ROC curves",
            f"ROC curves on the holdout; areas: {areas}.",
            "Marks: the threshold chosen on validation, as it fell on the holdout.",
        ),
        Drawn(
            "pr",
            curve_plots.precision_recall(pr, pr_points, n["melanoma"] / n["images"]),
            "Precision and recall",
            f"Precision–recall curves on the holdout; areas: {precisions}.",
            "The dotted line is what guessing would reach. Marks: as in the ROC curves.",
        ),
    ]


def _shipped(root: Path, results: Results) -> list[Drawn]:
    model = results.settings.shipped
    metrics, thresholds = results.holdout[model], results.calibration[model]["thresholds"]
    chosen = {"ships": thresholds["sensitivity"], "Youden": thresholds["youden"], "F1": thresholds["f1"]}
    error = number(metrics["melanoma"]["ece"])
    reliability, threshold = (
        read_table(root, f"plots/curves/{kind}/{model}.csv") for kind in ("reliability", "threshold")
    )
    return [
        Drawn(
            "reliability",
            curve_plots.reliability(reliability, f"{model}, holdout"),
            "Stated against observed",
            f"Reliability diagram of {model}; expected calibration error {error}.",
            "On the diagonal, 30 of 100 images that are given a probability of 30 % are melanomas.",
        ),
        Drawn(
            "threshold",
            curve_plots.threshold(threshold, chosen, f"{model}, holdout"),
            "What each threshold would do",
            f"Sensitivity, specificity and F1 of {model} by threshold on the holdout.",
            "Vertical lines: the thresholds chosen on validation.",
        ),
    ]


def _reliabilities(root: Path, results: Results) -> Drawn:
    models = list(results.holdout)
    bins = {model: (curve(root, "reliability_raw", model), curve(root, "reliability", model)) for model in models}
    errors = ", ".join(f"{model} {number(results.holdout[model]['melanoma']['ece'])}" for model in models)
    return Drawn(
        "reliability_models",
        curve_plots.reliability_grid(bins),
        "Reliability of every model",
        f"Reliability diagrams of every model, raw and calibrated; calibration errors after: {errors}.",
        "Dashed: raw. Solid: with the calibration fitted on validation.",
    )

"""The sections of the report, in their order on the page.

A section is one function here (or in a module of its own) and its name in :data:`SECTIONS`: that is all there is to
adding one. It returns None where the run has nothing to show. Deliberately absent: numbers of its own.
"""

from collections.abc import Callable

from dermdistill.core.classes import NAMES
from dermdistill.core.files import read_json
from dermdistill.evaluation import cases
from dermdistill.reporting import (
    cost_tables,
    dataset,
    error_figures,
    error_tables,
    explain_panels,
    page,
    protocol_tables,
    tables,
)
from dermdistill.reporting.cells import facts
from dermdistill.reporting.page import Page, Picture, Section, bullets, heading, panels, table, text
from dermdistill.reporting.results import read_table

CODES = "; ".join(f"{short}: {name}" for short, name in NAMES.items()) + "."

PARETO = (
    "Accuracy against cost",
    "Bubbles: melanoma AUC and macro-F1 on the holdout against latency and bytes; the table below has the numbers.",
    "Arrows lead from the teacher over the student to its INT8 file. A mean of teachers costs the time of all, "
    "asked as often as for its scores (with mirror images: four times); numbers: plots/pareto/points.csv.",
)
LATENCY = (
    "Latency",
    "Bars: processor time of one image on one thread, for each model in each format; the table below has the numbers.",
    "Every network by itself, asked once. One machine on one day: compare bars with each other, not with another's.",
)


def results(at: Page) -> Section:
    said = text(
        "Each student stands beside its control: the same network, seed and budget, trained without a teacher. "
        "Everything that was chosen (thresholds, calibration, the quantized file) was chosen on validation; the "
        "holdout was only measured. Intervals are 95 % bootstrap intervals that resample lesions, not images."
    )
    seeds = protocol_tables.seeds_table(at.results.compared)
    shown = page.tables(
        tables.results_table("Holdout", at.results.holdout), tables.results_table("Validation", at.results.val), seeds
    )
    students = [f"student_{name}" for name in at.results.settings.run.students]
    drawn = at.figures("comparison", "holdout", "teachers", *students)
    return Section("results", "Every model, side by side", [said, *shown, drawn])


def comparisons(at: Page) -> Section:
    said = text(
        "Paired bootstrap by lesion on the holdout. When the interval contains zero the two models are called a tie."
    )
    verdicts = bullets(tables.verdict(item) for item in at.results.comparisons)
    pairs = table(protocol_tables.pairs_table(at.results.compared))
    fidelity = table(protocol_tables.fidelity_table(at.results.compared))
    drawn = at.figures("kd_effect", "differences")
    return Section("comparisons", "What may be said about the differences", [said, verdicts, drawn, pairs, fidelity])


def discrimination(at: Page) -> Section:
    drawn = at.figures("roc", "pr")
    return Section("curves", "Telling melanoma from the rest", [drawn])


def thresholds(at: Page) -> Section:
    shipped, roles = at.results.settings.shipped, list(cases.roles(at.results.settings).values())
    val, holdout = at.results.val[shipped], at.results.holdout[shipped]
    blocks = [
        text(tables.target_sentence(at.results.settings.calibrate.sensitivity, holdout)),
        table(tables.thresholds_table(val, holdout)),
        table(protocol_tables.gap_table(roles, at.results.val, at.results.holdout)),
        at.figures("threshold", "threshold_teacher", "threshold_student"),
        heading("Is acting on it worth it?"),
        table(protocol_tables.decision_table(holdout)),
        at.figures("decision"),
    ]
    return Section("thresholds", "Operating points of the shipped file", blocks)


def calibration(at: Page) -> Section:
    said = text(
        "A temperature and one bias per class are fitted on validation. The expected calibration error (ECE) is the "
        "mean gap between stated probability and observed share: smaller is better. No interval is shown for it: "
        "resampling adds noise to every bin, so that resampled errors lie above the one measured."
    )
    maps = at.results.maps
    shown = page.tables(
        tables.calibration_table(at.results.calibration, at.results.holdout),
        protocol_tables.maps_table(at.results.settings.shipped, maps),
        protocol_tables.maps_summary(maps),
    )
    drawn = at.figures("reliability", "reliability_pair", "reliability_models")
    return Section("calibration", "Calibration", [said, drawn, *shown])


def slices(at: Page) -> Section:
    shipped, teacher = at.results.settings.shipped, cases.roles(at.results.settings)["teacher"]
    said = text(*protocol_tables.worst_sentences(at.results.holdout[shipped]))
    shown = (protocol_tables.slices_table(model, at.results.holdout[model]) for model in (shipped, teacher))
    return Section("slices", "Slices", [said, *page.tables(*shown)])


def abstention(at: Page) -> Section:
    val, holdout = (side[at.results.settings.shipped] for side in (at.results.val, at.results.holdout))
    said = text(
        "Thresholds of confidence and quantiles are fitted on validation. A conformal set holds every diagnosis that "
        "cannot be excluded at the wanted error rate; the guarantee is about all images together, so the coverage of "
        "each diagnosis is shown beside it."
    )
    shown = page.tables(protocol_tables.keep_table(val, holdout), protocol_tables.conformal_table(val, holdout))
    return Section("abstention", "Knowing when not to answer", [said, *shown, at.figures("risk_coverage")])


def robustness(at: Page) -> Section:
    shown = page.tables(*protocol_tables.robustness_tables(at.results.robustness, at.results.settings.predict.flips))
    return Section("robustness", "Robustness", [*shown, at.figures("robustness")])


def errors(at: Page) -> Section:
    found = read_json(at.root / "metrics/analyze_errors.json")
    drawn = page.figures(
        page.picture(at.root / f"plots/errors/{name}.png", *words) for name, words in error_figures.FIGURES.items()
    )
    said = text(
        "Below each picture: image id, diagnosis on record, and the calibrated probability of melanoma by teacher (T), "
        f"student (S) and the INT8 file that ships (Q), then the diagnosis Q gives. {CODES}"
    )
    shown = [table(one) for one in error_tables.tables(found)]
    blocks = [text(*error_tables.sentences(found)), *shown, drawn, heading("Cases"), said, _cases(at, "panels")]
    return Section("errors", "Where the models err", blocks)


def _cases(at: Page, folder: str, note: str = "") -> page.Block:
    """The panels of ``reports/FOLDER``, with the ids they show as the text for who cannot see them."""
    ids = read_table(at.root, "plots/errors/cases.csv").groupby("kind")["image_id"].agg(list)
    most = len(max(ids, key=len)) if folder == "panels" else at.results.settings.explain.images
    found: list[Picture] = []
    for kind, (title, words) in cases.KINDS.items():
        if kind in ids.index:
            spoken = f"{title}: {', '.join(ids[kind][:most])}"
            found.append(page.picture(at.root / f"reports/{folder}/{kind}.png", title, spoken, note or words, True))
    return panels(found)


def explain(at: Page) -> Section:
    found = read_json(at.root / "metrics/explain.json")
    said = text(
        "Grad-CAM for melanoma: the brighter, the more that part of the picture speaks for melanoma in that network; "
        "each map is scaled to its own maximum. The maps are as coarse as the last feature map and describe the "
        "network, not the lesion: a plausible map does not make an answer right. The INT8 file has no gradients; the "
        "student it was made from stands in for it."
    )
    near = page.picture(
        at.root / "reports/explain/neighbours.png",
        "Nearest training images",
        "Each row: a melanoma that the shipped file finds unlikely, then the training images nearest to it.",
        "Distance: one minus the cosine of the student's features. Below each neighbour its diagnosis on record.",
        True,
    )
    teacher = at.results.settings.kd.teachers[0]
    note = f"Picture, then where teacher_{teacher} and the student find melanoma."
    blocks = [said, _cases(at, "explain", note), heading("What the least likely melanomas resemble")]
    return Section("explain", "Where they look", [*blocks, text(explain_panels.sentence(found)), panels([near])])


def shipped(at: Page) -> Section:
    quantized = read_json(at.root / f"metrics/quantize/{at.results.settings.shipped}.json")
    ship = read_json(at.root / "metrics/ship.json")
    shown = [*facts("Quantization parity", quantized), *facts("Shipping checks", ship)]
    return Section("shipped", "From student to the file on the phone", page.tables(*shown))


def cost(at: Page) -> Section:
    exports, benchmark = (read_json(at.root / f"metrics/{name}.json") for name in ("export", "benchmark"))
    machine = {key: benchmark[key] for key in ("machine", "predict_one_jpeg")}
    shown = [cost_tables.formats_table(exports), cost_tables.size_table(benchmark)]
    shown += [*cost_tables.latency_tables(benchmark), *facts("Machine, and the whole of predict on one JPEG", machine)]
    pictures = {"pareto": PARETO, "latency": LATENCY}
    drawn = page.figures([page.picture(at.root / f"plots/pareto/{name}.png", *said) for name, said in pictures.items()])
    return Section("cost", "What it costs to run", [bullets(benchmark["sentences"]), drawn, *page.tables(*shown)])


def data(at: Page) -> Section:
    said = text("The split is by lesion: images of one lesion never stand on two sides.")
    titles = {"prepare": "Data", "describe": "Raw files", "audit": "Leakage audit", "split": "Split"}
    metrics = {name: read_json(at.root / f"metrics/{name}.json") for name in titles}
    shown = [one for name, title in titles.items() for one in facts(title, metrics[name])]
    notes = text(*dataset.sentences(metrics["prepare"], metrics["audit"], metrics["split"]))
    drawn = page.figures(
        page.picture(at.root / f"plots/data/{name}.png", title, alt, note)
        for name, (title, alt, note) in dataset.FIGURES.items()
    )
    pictures = page.panels(
        page.picture(path, title, f"{title}: pictures of the data set with their ids.", note, True)
        for name, (title, note) in dataset.PICTURES.items()
        if (path := at.root / f"reports/data/{name}.png").exists()  # no pair may have been confirmed
    )
    return Section("data", "Data and split", [said, notes, *page.tables(*shown), drawn, pictures])


def training(at: Page) -> Section:
    families = [name for name in at.drawn if name.startswith("training_")]
    return Section("training", "Training", [at.figures(*families)])


SECTIONS: tuple[Callable[[Page], Section | None], ...] = (
    results,
    comparisons,
    discrimination,
    thresholds,
    calibration,
    slices,
    abstention,
    robustness,
    errors,
    explain,
    shipped,
    cost,
    data,
    training,
)

"""The figures of ``plots/errors``: what each shows, in a picture and in words."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.classes import CLASSES
from dermdistill.evaluation import errors
from dermdistill.evaluation.cases import Evaluated
from dermdistill.reporting import error_plots

CONFUSION = "Rows: the diagnosis on record, each summing to 100 %. Numbers: images and their share of the row."
CHANGE = "Change against the teacher: on the diagonal a plus is a gain, elsewhere a minus is."
AGREEMENT = "Dashed: each model's threshold. Upper left and lower right: the two decide differently."
FIGURES = {  # name → title, what it shows, what to make of it
    "per_class": (
        "F1 by diagnosis",
        "Bars per diagnosis: F1 of teacher, student and INT8; below, change of F1, of F1 relative to the teacher's, "
        "and of recall.",
        "Bars below zero: the small model does worse than its teacher.",
    ),
    "confidence": (
        "Confidence, right and wrong",
        "Histograms of the largest probability for right and wrong diagnoses, by model.",
        "Wrong answers far to the right are the dangerous ones. Counts are logarithmic.",
    ),
    "agreement_student": ("Teacher against student", "Scatter of P(melanoma) by teacher and student.", AGREEMENT),
    "agreement_int8": ("Teacher against shipped file", "Scatter of P(melanoma) by teacher and INT8.", AGREEMENT),
    "confusion_teacher": ("Confusion, teacher", "Confusion matrix of the teacher, seven diagnoses.", CONFUSION),
    "confusion_student": ("Confusion, student", "Confusion matrix of the student, seven diagnoses.", CONFUSION),
    "confusion_int8": ("Confusion, shipped file", "Confusion matrix of the INT8 file, seven diagnoses.", CONFUSION),
    "confusion_difference_student": (
        "Confusion, student − teacher",
        "Difference of the normalised confusion matrices of student and teacher, in percentage points.",
        CHANGE,
    ),
    "confusion_difference_int8": (
        "Confusion, shipped file − teacher",
        "Difference of the normalised confusion matrices of the INT8 file and the teacher, in percentage points.",
        CHANGE,
    ),
}


def draw(judged: Mapping[str, Evaluated], change: pd.DataFrame) -> dict[str, Figure]:
    """Every figure of ``plots/errors``, by the names of :data:`FIGURES`."""
    tables = {role: errors.confusion(one.predictions.labels, one.predicted) for role, one in judged.items()}
    found = {
        f"confusion_{role}": error_plots.confusion(
            table["count"].to_numpy().reshape(len(CLASSES), -1).tolist(), CLASSES, f"{judged[role].model}, holdout"
        )
        for role, table in tables.items()
    }
    sure = {one.model: (one.calibrated.max(axis=1), one.predicted == one.predictions.labels) for one in judged.values()}
    teacher = judged["teacher"]
    for role in ("student", "int8"):
        one = judged[role]
        gap = errors.confusion_change(tables["teacher"], tables[role])
        title = f"{one.model} − {teacher.model}, percentage points"
        found[f"confusion_difference_{role}"] = error_plots.confusion_difference(gap, CLASSES, title)
        a, b = ((side.model, side.p_melanoma, side.threshold) for side in (teacher, one))
        found[f"agreement_{role}"] = error_plots.agreement(a, b, teacher.predictions.melanoma, "Each image, holdout")
    found["per_class"] = error_plots.per_class(change, "F1 by diagnosis, holdout")
    return found | {"confidence": error_plots.confidence(sure, "How sure the models are, holdout")}

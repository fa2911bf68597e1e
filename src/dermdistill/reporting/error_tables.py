"""Where the models err, in sentences, tables and the words below the figures, from ``metrics/analyze_errors.json``."""

from dermdistill.reporting.cells import Cell, Metrics, Table, p_value, percent, short

VIEWS = {
    "melanoma": "Melanoma or not, each model at its own threshold",
    "melanoma_diagnosed": "Melanoma or not, called so when it is the likeliest of the seven",
    "diagnosis": "One of seven diagnoses",
}
COUNTS = {
    "total": "images",
    "agree": "agree",
    "disagree": "disagree",
    "a_correct": "A right",
    "b_correct": "B right",
    "both_correct": "both right",
    "only_a": "only A right",
    "only_b": "only B right",
    "both_wrong": "both wrong",
    "shared_false_negatives": "shared misses",
    "shared_false_positives": "shared false alarms",
}
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


def sentences(errors: Metrics) -> list[str]:
    """Teacher against shipped file in words, from ``metrics/analyze_errors.json``."""
    melanoma, diagnosis = errors["melanoma"]["teacher_int8"], errors["diagnosis"]["teacher_int8"]
    sure = errors["high_confidence_errors"]
    return [
        f"On melanoma, teacher and shipped file decide alike on {melanoma['agree']:,} of {melanoma['total']:,} images. "
        f"Of the {melanoma['disagree']:,} others the teacher is right on {melanoma['only_a']:,}, the shipped file on "
        f"{melanoma['only_b']:,}. Both miss {melanoma['shared_false_negatives']:,} melanomas and both raise "
        f"{melanoma['shared_false_positives']:,} false alarms.",
        f"Of the seven diagnoses they give the same one on {diagnosis['agree']:,} images and are both wrong on "
        f"{diagnosis['both_wrong']:,}. The shipped file is wrong with a probability of {percent(sure['at_least'])} "
        f"or more on {sure['int8']:,} images, the teacher on {sure['teacher']:,}.",
    ]


def tables(errors: Metrics) -> list[Table]:
    """Agreement of every pair in every view; A is the first of a pair."""
    note = "McNemar's exact test counts images of one lesion as independent: its p is somewhat too small."
    found = []
    for view, caption in VIEWS.items():
        shown = [key for key in COUNTS if key in next(iter(errors[view].values()))]
        rows = [
            [
                Cell(f"{errors['models'][a]} (A), {errors['models'][b]} (B)"),
                *(Cell(short(counts[key])) for key in shown),
                Cell(p_value(counts["mcnemar_p"])),
            ]
            for (a, b), counts in ((pair.split("_"), counts) for pair, counts in errors[view].items())
        ]
        found.append(Table(f"{caption}. {note}", ["pair", *(COUNTS[key] for key in shown), "McNemar's p"], rows))
    return found

"""Where the models err, in sentences and tables, from ``metrics/analyze_errors.json``."""

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

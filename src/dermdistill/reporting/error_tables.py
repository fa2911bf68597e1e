"""Where the models err, in sentences and tables, from ``metrics/analyze_errors.json``."""

from dermdistill.reporting.cells import Cell, Metrics, Table, p_value, percent, short


def sentences(errors: Metrics) -> list[str]:
    """Teacher against shipped file in words, from ``metrics/analyze_errors.json``."""
    melanoma, diagnosis = errors["melanoma"]["teacher_int8"], errors["diagnosis"]["teacher_int8"]
    sure = errors["high_confidence_errors"]
    return [
        f"On melanoma, teacher and shipped file decide alike on {melanoma['agree']:,} of {melanoma['total']:,} images. "
        f"The teacher alone is right on {melanoma['only_a']:,}, the shipped file alone on {melanoma['only_b']:,}. "
        f"Both miss {melanoma['shared_false_negatives']:,} melanomas and both raise "
        f"{melanoma['shared_false_positives']:,} false alarms.",
        f"Of the seven diagnoses they give the same one on {diagnosis['agree']:,} images and are both wrong on "
        f"{diagnosis['both_wrong']:,}. The shipped file is wrong with a probability of {percent(sure['at_least'])} "
        f"or more on {sure['int8']:,} images, the teacher on {sure['teacher']:,}.",
    ]


def tables(errors: Metrics) -> list[Table]:
    """Agreement of every pair; A is the first of a pair."""
    columns = {
        "total": "images",
        "both_correct": "both right",
        "only_a": "only A right",
        "only_b": "only B right",
        "both_wrong": "both wrong",
        "mcnemar_p": "McNemar's p",
    }
    found = []
    for task, caption in (
        ("melanoma", "Melanoma or not, each model at its own threshold"),
        ("diagnosis", "One of seven diagnoses"),
    ):
        rows = []
        for pair, counts in errors[task].items():
            a, b = (errors["models"][role] for role in pair.split("_"))
            rows.append(
                [
                    Cell(f"{a} (A), {b} (B)"),
                    *(Cell(p_value(counts[key]) if key == "mcnemar_p" else short(counts[key])) for key in columns),
                ]
            )
        found.append(
            Table(
                f"{caption}. McNemar's test counts images of one lesion as independent: its p is somewhat too small.",
                ["pair", *columns.values()],
                rows,
            )
        )
    return found

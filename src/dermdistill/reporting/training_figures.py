"""Training curves: each training by itself, and together by family (teachers; each student with its control)."""

from pathlib import Path

from dermdistill.reporting import curve_plots
from dermdistill.reporting.results import Drawn, Results, read_table

NOTE = "Validation only; the holdout plays no part in training."


def figures(root: Path, results: Results) -> list[Drawn]:
    """``training_teachers``, ``training_STUDENT`` and one ``training/MODEL`` for each trained model."""
    settings = results.settings
    trained = [f"teacher_{name}" for name in settings.run.teachers]  # their mean was not trained
    trained += [model for model in settings.model_ids() if model.startswith(("student_", "control_"))]
    histories = {model: read_table(root, f"plots/training/{model}.csv") for model in trained}
    families = {"teachers": [model for model in trained if model.startswith("teacher_")]}
    for name in settings.run.students:
        heads = (f"student_{name}_s", f"control_{name}_s")
        families[name] = [model for model in trained if model.startswith(heads)]
    together = [
        Drawn(
            f"training_{family}",
            curve_plots.training_curves({model: histories[model] for model in models}),
            f"Training, {family}",
            f"Validation loss and validation melanoma AUC by epoch of {', '.join(models)}.",
            NOTE,
        )
        for family, models in families.items()
    ]
    alone = [
        Drawn(
            f"training/{model}",
            curve_plots.training_curve(history, model),
            f"Training of {model}",
            f"Loss on training and validation, melanoma AUC and balanced accuracy by epoch of {model}.",
            NOTE,
        )
        for model, history in histories.items()
    ]
    return together + alone

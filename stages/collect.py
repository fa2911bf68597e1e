"""Copy into git what it carries of the expensive stages: predictions, histories, reports of INT8; mean of the teachers.

With a SOURCE it copies the predictions on both halves of that: collect [SOURCE].

Outputs of those stages lie in DVC's cache alone, because DVC remembers runs of no other stage. Whatever the parameters
name is copied, never what lies in a folder.
"""

import sys

from dermdistill import params
from dermdistill.core import parts
from dermdistill.core.files import copy
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.metrics import predictions

QUANTIZED = {  # in the folder of an INT8 model → in git
    "report.json": "metrics/quantize/{}.json",
    "candidates.csv": "plots/quantize/candidates/{}.csv",
    "sensitivity.csv": "plots/quantize/sensitivity/{}.csv",
}


def main(source: str | None = None) -> None:
    settings = params.load()
    names, folders = (parts.OTHER, parts.of_source(source)) if source else (parts.EVALUATED, parts.EVALUATED)
    for part, folder in zip(names, folders, strict=True):
        copy_predictions(part, folder, source, settings)
    if not source:
        copy_reports(settings)


def copy_predictions(part: str, folder: str, source: str | None, settings: params.Params) -> None:
    """Of every model; of several teachers the mean too."""
    for model_id in settings.single_ids():
        copy(ModelId.parse(model_id).predictions(part, source), f"predictions/{folder}/{model_id}.csv")
    if len(settings.kd.teachers) > 1:
        teachers = [predictions.read(f"predictions/{folder}/teacher_{name}.csv") for name in settings.kd.teachers]
        predictions.write_mean(f"predictions/{folder}/{settings.teacher_id}.csv", teachers)


def copy_reports(settings: params.Params) -> None:
    """Histories of trainings, reports of quantization."""
    for model_id in map(ModelId.parse, settings.single_ids()):
        if model_id.kind in ("teacher", "student", "control"):
            copy(model_id.folder / "history.csv", f"plots/training/{model_id}.csv")
        if model_id.kind == "int8":
            for name, target in QUANTIZED.items():
                copy(model_id.folder / name, target.format(model_id))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Copy into git what it carries of the expensive stages: predictions, histories, reports of INT8; mean of the teachers.

Outputs of those stages lie in DVC's cache alone, because DVC remembers runs of no other stage. Whatever the parameters
name is copied, never what lies in a folder.
"""

import sys

from dermdistill import params
from dermdistill.core.files import copy
from dermdistill.core.model_id import ModelId
from dermdistill.errors import run
from dermdistill.metrics import predictions

PARTS = ("val", "holdout")
QUANTIZED = {  # in the folder of an INT8 model → in git
    "report.json": "metrics/quantize/{}.json",
    "candidates.csv": "plots/quantize/candidates/{}.csv",
    "sensitivity.csv": "plots/quantize/sensitivity/{}.csv",
}


def main() -> None:
    settings = params.load()
    for model_id in map(ModelId.parse, settings.single_ids()):
        for part in PARTS:
            copy(model_id.predictions(part), f"predictions/{part}/{model_id}.csv")
        if model_id.kind in ("teacher", "student", "control"):
            copy(model_id.folder / "history.csv", f"plots/training/{model_id}.csv")
        if model_id.kind == "int8":
            for name, target in QUANTIZED.items():
                copy(model_id.folder / name, target.format(model_id))
    if len(settings.kd.teachers) > 1:
        for part in PARTS:
            teachers = [predictions.read(f"predictions/{part}/teacher_{name}.csv") for name in settings.kd.teachers]
            predictions.write_mean(f"predictions/{part}/{settings.teacher_id}.csv", teachers)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

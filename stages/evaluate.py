"""evaluate@MODEL: every figure and curve of one model, from its predictions; needs no model and no image."""

import sys

import numpy as np
import pandas as pd

from dermdistill import params
from dermdistill.errors import UserError, run
from dermdistill.evaluation import calibration, metrics, predictions, protocol
from dermdistill.files import atomic, write_json


def main(model_id: str) -> None:
    settings = params.load().evaluate
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    for part in ("val", "holdout"):
        known = predictions.read(f"predictions/{part}/{model_id}.csv")
        calibrated, histology = fitted.apply(known.probabilities), known.lookup(read_histology(part))
        numbers = settings.bins, settings.bootstrap, settings.seed
        result = protocol.measure(known, calibrated, fitted.thresholds, histology, *numbers)
        write_json(f"metrics/{part}/{model_id}.json", result)
    write_curves(model_id, known.labels, calibrated, settings.bins)  # of the holdout, the last of the two


def read_histology(part: str) -> pd.Series:
    """Whether histology confirmed each image's diagnosis, by image_id: a slice, never an input."""
    path = f"data/splits/{part}.csv"
    try:
        table = pd.read_csv(path, usecols=["image_id", "dx_type"], dtype=str)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro split` makes it") from None
    return table.set_index("image_id")["dx_type"] == "histo"


def write_curves(model_id: str, labels: np.ndarray, calibrated: np.ndarray, bins: int) -> None:
    tables = {f"curves/{name}": table for name, table in metrics.curves(labels, calibrated, bins).items()}
    tables["confusion"] = metrics.confusion_rows(labels, calibrated.argmax(axis=1))
    for name, table in tables.items():
        with atomic(f"plots/{name}/{model_id}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""calibrate@MODEL: all that is fitted on val predictions: temperature, biases, thresholds, rules for deferral."""

import sys

from dermdistill import params
from dermdistill.core.files import write_json
from dermdistill.errors import run
from dermdistill.metrics import calibration, predictions, selective


def main(model_id: str) -> None:
    settings = params.load().calibrate
    val = predictions.read(f"predictions/val/{model_id}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, settings.sensitivity)
    rules = selective.fit(val.labels, fitted.apply(val.probabilities), settings.coverage, settings.keep)
    write_json(f"metrics/calibrate/{model_id}.json", fitted.to_dict() | rules.to_dict())


if __name__ == "__main__":
    run(main, *sys.argv[1:])

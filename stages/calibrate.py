"""calibrate@MODEL: temperature, class biases and thresholds of one model, from its val predictions alone."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.evaluation import calibration, predictions
from dermdistill.files import write_json


def main(model_id: str) -> None:
    settings = params.load().calibrate
    val = predictions.read(f"predictions/val/{model_id}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, settings.sensitivity)
    write_json(f"metrics/calibrate/{model_id}.json", fitted.to_dict())


if __name__ == "__main__":
    run(main, *sys.argv[1:])

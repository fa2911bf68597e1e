"""All that is fitted on val predictions, for every model: temperature, biases, thresholds, when not to answer."""

import sys

from dermdistill import params
from dermdistill.core.files import write_json
from dermdistill.errors import run
from dermdistill.metrics import calibration, predictions, selective


def main() -> None:
    settings = params.load()
    options = settings.calibrate
    for model_id in settings.evaluated_ids():
        val = predictions.read(f"predictions/val/{model_id}.csv")
        fitted = calibration.fit(val.labels, val.probabilities, options.sensitivity)
        rules = selective.fit(val.labels, fitted.apply(val.probabilities), options.coverage, options.keep)
        write_json(f"metrics/calibrate/{model_id}.json", fitted.to_dict() | rules.to_dict())


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""evaluate@MODEL: every metric and curve of one model, from its predictions; needs no model and no image."""

import sys

from dermdistill import params
from dermdistill.core.files import atomic, write_json
from dermdistill.errors import run
from dermdistill.evaluation import protocol, subgroups
from dermdistill.metrics import calibration, predictions, selective


def main(model_id: str) -> None:
    settings = protocol.Settings(**params.load().evaluate.model_dump())
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    rules = selective.read(f"metrics/calibrate/{model_id}.json")
    for part in ("val", "holdout"):
        raw = predictions.read(f"predictions/{part}/{model_id}.csv")
        calibrated, metadata = fitted.apply(raw.probabilities), subgroups.read(".", part)
        result = protocol.measure(raw, calibrated, fitted.thresholds, rules, metadata, settings)
        write_json(f"metrics/{part}/{model_id}.json", result)
    for name, table in protocol.tables(raw, calibrated, settings).items():  # of the holdout, the last part
        with atomic(f"plots/{name}/{model_id}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

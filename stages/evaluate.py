"""Every metric and curve of every model, from predictions alone: no model, no image, all cores, minutes.

On val and holdout, or on both halves of another SOURCE, there with every comparison of models: evaluate [SOURCE].
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm

from dermdistill import params
from dermdistill.core import parts
from dermdistill.core.files import write_json, write_table
from dermdistill.errors import run
from dermdistill.evaluation import model_pairs, protocol, subgroups
from dermdistill.metrics import calibration, predictions, selective


def main(source: str | None = None) -> None:
    settings = params.load()
    options = protocol.Settings(**settings.evaluate.model_dump())
    model_ids = settings.evaluated_ids()
    with ProcessPoolExecutor(os.cpu_count()) as pool:  # models do not depend on each other: the same files either way
        done = pool.map(evaluate, model_ids, [options] * len(model_ids), [source] * len(model_ids))
        list(tqdm(done, "evaluate", len(model_ids), unit="model", mininterval=1))
    if source:
        write_json(f"metrics/other/{source}/compare.json", model_pairs.compare_source(".", settings, source))


def evaluate(model_id: str, options: protocol.Settings, source: str | None) -> None:
    """Write the metrics of one model on each part, and its curves on the holdout."""
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    rules = selective.read(f"metrics/calibrate/{model_id}.json")
    for part in parts.of_source(source) if source else parts.EVALUATED:
        raw = predictions.read(f"predictions/{part}/{model_id}.csv")
        calibrated, metadata = fitted.apply(raw.probabilities), subgroups.read(".", part)
        result = protocol.measure(raw, calibrated, fitted.thresholds, rules, metadata, options)
        write_json(f"metrics/{part}/{model_id}.json", result)
    if not source:
        for name, table in protocol.tables(raw, calibrated, options).items():  # of the holdout, the last part
            write_table(f"plots/{name}/{model_id}.csv", table)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

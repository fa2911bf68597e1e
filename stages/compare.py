"""compare: every pair of models that matters, and every calibration map, from predictions alone."""

import sys

from dermdistill import params
from dermdistill.core.files import write_json
from dermdistill.errors import run
from dermdistill.evaluation import model_pairs


def main() -> None:
    settings = params.load()
    write_json("metrics/compare/models.json", model_pairs.compare_models(".", settings))
    write_json("metrics/compare/calibration.json", model_pairs.compare_calibrations(".", settings))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

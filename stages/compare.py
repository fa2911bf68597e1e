"""compare: every pair of models that matters, and every calibration map, from predictions alone."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.files import write_json
from dermdistill.reporting import comparisons


def main() -> None:
    settings = params.load()
    write_json("metrics/compare/models.json", comparisons.compare_models(".", settings))
    write_json("metrics/compare/calibration.json", comparisons.compare_calibrations(".", settings))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

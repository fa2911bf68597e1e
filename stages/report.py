"""report: one HTML page, the documents' tables, the summary and the figures, from metrics of every model."""

import sys
from pathlib import Path

from dermdistill import params, tracking
from dermdistill.core.files import read_json
from dermdistill.errors import run
from dermdistill.reporting import report


def main() -> None:
    settings = params.load()
    report.build(".", settings)
    metrics = {
        model_id: {part: read_json(f"metrics/{part}/{model_id}.json") for part in ("val", "holdout")}
        for model_id in settings.model_ids()
    }
    figures = sorted(Path("plots/figures").glob("*.png"))
    tracking.pipeline(settings.model_dump(), read_json("metrics/summary.json"), metrics, figures)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

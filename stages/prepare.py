"""prepare: decode the raw images into one array, and clean the metadata table."""

import sys

from dermdistill import params
from dermdistill.core.files import write_json
from dermdistill.errors import run
from dermdistill.ingest.prepare import open_raw, prepare


def main() -> None:
    size = params.load().data
    report = prepare(open_raw("data/raw"), "data/prepared", size.height, size.width)
    write_json("metrics/prepare.json", report)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

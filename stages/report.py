"""report: one HTML page, the README's table, the summary and the figures, from metrics of every model."""

import sys

from dermdistill import params
from dermdistill.errors import run
from dermdistill.reporting import report


def main() -> None:
    report.build(".", params.load())


if __name__ == "__main__":
    run(main, *sys.argv[1:])

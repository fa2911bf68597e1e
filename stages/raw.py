"""raw: check that the raw data are complete, before anything else runs."""

import sys

from dermdistill.errors import run
from dermdistill.ingest.prepare import open_raw


def main() -> None:
    raw = open_raw("data/raw")
    print(f"data/raw: {len(raw.table):,} images of {raw.table['lesion_id'].nunique():,} lesions")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

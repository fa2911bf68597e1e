"""raw, raw_other@SOURCE: check that the raw data are complete, before anything else runs."""

import sys

from dermdistill.errors import run
from dermdistill.ingest.prepare import open_raw


def main(source: str | None = None) -> None:
    folder = f"data/raw_other/{source}" if source else "data/raw"
    raw = open_raw(folder)
    print(f"{folder}: {len(raw.table):,} images of {raw.table['lesion_id'].nunique():,} lesions")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

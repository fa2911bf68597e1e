"""prepare_other@SOURCE: prepare the images of another source and halve it, without lesions that HAM10000 shows."""

import sys

from dermdistill import params
from dermdistill.core.dataset import load_images
from dermdistill.core.files import read_table, write_json, write_table
from dermdistill.errors import run
from dermdistill.ingest.prepare import open_raw, prepare
from dermdistill.splitting import duplicates, other_source


def main(source: str) -> None:
    settings, folder = params.load(), f"data/other/{source}"
    report = prepare(open_raw(f"data/raw_other/{source}"), folder, settings.data.height, settings.data.width)
    table, ham = read_table(f"{folder}/metadata.csv"), read_table("data/prepared/metadata.csv")
    thresholds = duplicates.Thresholds(**settings.audit.thresholds())
    found = other_source.find_shared(load_images(folder), list(table["image_id"]), load_images(), thresholds)
    shared = {image: str(ham["image_id"][row]) for image, row in found.items()}
    tables = other_source.halves(table.drop(columns="pixels_sha256"), shared)
    for part, rows in tables.items():
        write_table(f"{folder}/{part}.csv", rows)
    write_json(f"metrics/other/{source}/prepare.json", report | other_source.counts(tables, shared))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

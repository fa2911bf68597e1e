"""audit: find photographs of one lesion under two lesion ids, by candidate pairs and a geometric check."""

import sys

from dermdistill import params
from dermdistill.core.dataset import load_images
from dermdistill.core.files import atomic, read_table, write_json
from dermdistill.errors import run
from dermdistill.splitting import duplicates


def main() -> None:
    settings, labels = params.load().audit, duplicates.read_labels()
    thresholds = duplicates.Thresholds(**settings.thresholds())
    images, metadata = load_images(), read_table("data/prepared/metadata.csv")
    lists = duplicates.read_lists(labels)
    pairs = duplicates.find_pairs(images, metadata, thresholds, settings.confirmed_by, lists)
    confirmed = duplicates.confirmed_duplicates(pairs)
    for name, table in (("pairs", pairs), ("duplicates", confirmed.drop(columns="confirmed_by"))):
        with atomic(f"data/audit/{name}.csv") as path:
            table.to_csv(path, index=False, lineterminator="\n")
    summary = duplicates.summary(pairs, metadata, labels)
    write_json("metrics/audit.json", {"thresholds": thresholds._asdict()} | summary)
    print(f"{len(pairs):,} candidate pairs, {len(confirmed)} confirmed duplicates with different lesion ids")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

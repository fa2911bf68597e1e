"""metadata: patient metadata of val and holdout, image hashes of train and val; both are committed beside the splits.

With the first anybody can recompute the subgroups from git; the second lets ``dermdistill evaluate`` refuse an external
set that shares images with train or val. Neither is ever an input of a model.
"""

import sys

from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import read_table, write_table
from dermdistill.errors import run
from dermdistill.splitting import image_hashes
from dermdistill.splitting.splits import PARTS

PATIENT_COLUMNS = ["image_id", "age", "sex", "localization"]


def main() -> None:
    parts = {part: load_split(part) for part in PARTS}
    table = read_table("data/prepared/metadata.csv")
    judging = table["image_id"].isin(parts["val"].image_id + parts["holdout"].image_id)
    write_table("data/patient_metadata.csv", table[judging].sort_values("image_id")[PATIENT_COLUMNS])
    choosing = {part: parts[part] for part in ("train", "val")}
    write_table("data/image_hashes.csv", image_hashes.table_of_parts(load_images(), choosing))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

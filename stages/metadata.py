"""metadata: patient metadata of val and holdout, an index of the images of train and val; both are committed.

With the first anybody can recompute the subgroups from git; the second lets ``dermdistill evaluate`` refuse an external
set that shares images with train or val. Neither is ever an input of a model. The index takes some minutes.
"""

import sys

from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import read_table, write_table
from dermdistill.errors import run
from dermdistill.splitting import image_index
from dermdistill.splitting.splits import PARTS

PATIENT_COLUMNS = ["image_id", "age", "sex", "localization"]


def main() -> None:
    parts = {part: load_split(part) for part in PARTS}
    table = read_table("data/prepared/metadata.csv")
    judging = table["image_id"].isin(parts["val"].image_id + parts["holdout"].image_id)
    write_table("data/patient_metadata.csv", table[judging].sort_values("image_id")[PATIENT_COLUMNS])
    image_index.write("data/image_index.npz", image_index.build(load_images(), [parts["train"], parts["val"]]))


if __name__ == "__main__":
    run(main, *sys.argv[1:])

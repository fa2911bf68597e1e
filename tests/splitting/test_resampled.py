"""What counts as one piece of evidence: patients before lesions before pictures, and repeated pictures with them."""

import numpy as np
import pandas as pd
import pytest

from dermdistill.splitting import resampled

IMAGES = ["a", "b", "c", "d", "e", "f"]


def table(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"image_id": IMAGES, "lesion_id": IMAGES} | columns)


@pytest.mark.parametrize(
    ("columns", "skin", "wanted", "lesions", "sentence"),
    [
        ({}, None, "abcdef", 6, "no ids of lesions or patients, so each of 6 pictures"),
        ({}, [0, 1, 0, 2, 1, 3], "ababde"[:3] + "dbf", 4, "2 repeated pictures count with their first"),
        ({"lesion_id": list("xxyyzf")}, None, "xxyyzf", 4, "resample 4 lesions; 1 images without an id"),
        ({"lesion_id": list("xxyyzz")}, [0, 1, 2, 3, 1, 4], "xxyyxx", 2, "resample 2 lesions; 1 repeated"),
        ({"patient_id": ["p", "p", "q", "q", "", ""]}, None, "aaccef", 6, "4 patients; 2 images without an id"),
        (
            {"lesion_id": list("xyyzzf"), "patient_id": ["p", "p", "", "q", "q", "r"]},
            None,
            "xxxzzf",
            4,
            "3 patients; 1",
        ),
    ],
)
def test_images_that_depend_on_each_other_are_one_group(
    columns: dict[str, list[str]], skin: list[int] | None, wanted: str, lesions: int, sentence: str
) -> None:
    groups = resampled.of(table(**columns), None if skin is None else np.array(skin))
    assert "".join(groups.id) == wanted
    assert groups.lesions == lesions and sentence in groups.sentence()
    assert groups.summary()["groups"] == len(set(wanted))

"""Subgroups hold the right images, hide metrics of too few images, and name the worst."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.errors import UserError
from dermdistill.evaluation import subgroups


def some(count: int = 900) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    random = np.random.default_rng(0)
    labels = random.choice(7, count, p=[0.45, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05])
    sex = random.choice(["male", "female", ""], count, p=[0.5, 0.49, 0.01])
    hard = sex == "female"  # here the score is uninformative
    y_score = np.where(hard, random.random(count), np.clip((labels == 1) * 0.4 + random.random(count) * 0.6, 0, 1))
    metadata = pd.DataFrame({
        "dx_type": np.where(random.random(count) < 0.5, "histo", "follow_up"),
        "sex": sex,
        "age": random.choice(["", "5.0", "29.9", "30", "75.0"], count),
        "localization": random.choice(["back", "face"], count),
    })  # fmt: skip
    lesions = np.array([f"l{n}" for n in random.integers(0, count // 2, count)])
    return labels, lesions, y_score, metadata


def measured(minimum: int = 20) -> dict:
    labels, lesions, y_score, metadata = some()
    return subgroups.measure(labels, lesions, y_score, 0.4, metadata, minimum, 50, 0)


def row(found: dict, group: str, name: str) -> dict:
    return next(one for one in found["rows"] if (one["group"], one["name"]) == (group, name))


def test_a_subgroup_is_the_metric_of_its_images() -> None:
    labels, _, y_score, metadata = some()
    male = (metadata["sex"] == "male").to_numpy()
    found = row(measured(), "sex", "male")
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels[male] == MELANOMA, y_score[male]))
    assert found["sensitivity"] == pytest.approx((y_score[male & (labels == MELANOMA)] >= 0.4).mean())
    assert found["specificity"] == pytest.approx((y_score[male & (labels != MELANOMA)] < 0.4).mean())
    assert found["roc_auc_interval"][0] < found["roc_auc"] < found["roc_auc_interval"][1]
    assert found["melanoma"] + found["others"] == male.sum()


def test_groups_of_patients_divide_the_set() -> None:
    labels, lesions, _, metadata = some()
    for group in ("sex", "age", "site", "images of the lesion"):
        members = [one.among for one in subgroups.define(labels, lesions, metadata) if one.group == group]
        together = np.sum(members, axis=0)
        assert (together == 1).all(), group
    names = {one.name: one.among for one in subgroups.define(labels, lesions, metadata) if one.group == "age"}
    assert (metadata["age"][names["under 30"]].isin(["5.0", "29.9"])).all() and (
        metadata["age"][names["unknown"]] == ""
    ).all()
    assert names["30 to 44"].sum() == (metadata["age"] == "30").sum()


def test_a_diagnosis_stands_against_all_melanomas_and_histology_leaves_out_the_malignant() -> None:
    labels, lesions, _, metadata = some()
    found = {one.name: one.among for one in subgroups.define(labels, lesions, metadata)}
    assert set(labels[found["melanocytic nevus"]].tolist()) == {0, MELANOMA}
    assert found["melanocytic nevus"][labels == MELANOMA].all()
    hard = found["benign confirmed by histology"]
    assert not np.isin(labels[hard], [CLASSES.index("bcc"), CLASSES.index("akiec")]).any()
    assert (metadata["dx_type"][hard & (labels != MELANOMA)] == "histo").all()


def test_too_few_is_null_and_says_so() -> None:
    found = measured(minimum=20)
    unknown = row(found, "sex", "unknown")
    assert unknown["too_few"] and unknown["roc_auc"] is None and unknown["sensitivity_interval"] is None
    assert not row(found, "sex", "male")["too_few"]
    everything = measured(minimum=10_000)
    assert everything["worst"] is None and all(one["too_few"] for one in everything["rows"])
    sides = row(measured(minimum=100), "diagnosis", "dermatofibroma")  # some 180 melanomas, 45 others
    assert sides["too_few"] and sides["sensitivity"] is not None and sides["specificity"] is None


def test_the_worst_subgroup_is_named() -> None:
    found = measured()
    assert (found["worst_of_patients"]["group"], found["worst_of_patients"]["name"]) == ("sex", "female")
    lowest = min(one["roc_auc"] for one in found["rows"] if one["roc_auc"] is not None)
    assert found["worst"]["roc_auc"] == lowest


def test_patient_metadata_are_read_and_what_is_missing_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data/splits").mkdir(parents=True)
    (tmp_path / "data/splits/val.csv").write_text("image_id,dx,dx_type\na,nv,histo\nb,mel,\n")
    with pytest.raises(UserError, match=r"patient_metadata\.csv does not exist"):
        subgroups.read(tmp_path, "val")
    (tmp_path / "data/patient_metadata.csv").write_text("image_id,age,sex,localization\na,40.0,male,back\n")
    table = subgroups.read(tmp_path, "val")
    assert table.loc["a"].tolist() == ["histo", "male", "40.0", "back"] and table.loc["b", "sex"] == ""
    (tmp_path / "data/patient_metadata.csv").write_text("image_id,age\na,40.0\n")
    with pytest.raises(UserError, match="lacks"):
        subgroups.read(tmp_path, "val")

"""Predictions files: written once, read back exactly, refused when they cannot be what they claim."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.errors import UserError
from dermdistill.metrics import predictions

HEADER = "image_id,lesion_id,dx,p_nv,p_mel,p_bkl,p_bcc,p_akiec,p_vasc,p_df\n"
ROW = "a,l1,mel,0.5,0.5,0,0,0,0,0\n"


def some(count: int = 40) -> tuple[list[str], list[str], list[str], np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(size=(count, 7)).astype(np.float32) * 8
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"i{number:03d}" for number in random.permutation(count)]
    return ids, [f"l{name[1:-1]}" for name in ids], [CLASSES[k] for k in random.integers(0, 7, count)], values


def test_reading_and_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    predictions.write(tmp_path / "first.csv", *some())
    known = predictions.read(tmp_path / "first.csv")
    names = [CLASSES[label] for label in known.labels]
    predictions.write(tmp_path / "second.csv", known.image_id, known.lesion_id, names, known.probabilities)
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes()


def test_rows_are_sorted_and_stay_together(tmp_path: Path) -> None:
    ids, lesions, names, values = some()
    predictions.write(tmp_path / "p.csv", ids, lesions, names, values)
    known = predictions.read(tmp_path / "p.csv")
    order = np.argsort(ids)
    assert known.image_id.tolist() == sorted(ids)
    assert known.lesion_id.tolist() == [lesions[k] for k in order]
    assert [CLASSES[label] for label in known.labels] == [names[k] for k in order]
    assert known.probabilities.dtype == np.float64
    np.testing.assert_allclose(known.probabilities, values[order], rtol=1e-7)


def test_accessors(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(HEADER + ROW + "b,l2,df,0.1,0.2,0,0,0,0,0.7\n")
    known = predictions.read(tmp_path / "p.csv")
    assert len(known) == 2
    assert known.labels.tolist() == [MELANOMA, CLASSES.index("df")]
    assert known.melanoma.tolist() == [True, False]
    assert known.p_melanoma.tolist() == [0.5, 0.2]


def test_ids_that_look_like_numbers_or_missing_values_stay_text(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(HEADER + "007,NA,mel,0.5,0.5,0,0,0,0,0\n")
    known = predictions.read(tmp_path / "p.csv")
    assert (known.image_id[0], known.lesion_id[0]) == ("007", "NA")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "not a readable CSV"),
        (HEADER, "no images"),
        (HEADER.replace(",p_df", "") + ROW.replace(",0\n", "\n"), "no column p_df"),
        (HEADER.replace("lesion_id,", "") + ROW.replace("l1,", ""), "no column lesion_id"),
        (HEADER + ROW.replace("0.5,0.5", "0.5,"), "not a number"),
        (HEADER + ROW.replace("0.5,0.5", "0.5,nan"), "image a has a probability that is not a finite number"),
        (HEADER + ROW.replace("0.5,0.5", "1.5,-0.5"), "outside 0 to 1"),
        (HEADER + ROW.replace("0.5,0.5", "0.5,0.4998"), "sum to 0.9998"),
        (HEADER + ROW.replace("mel", "melanoma"), "unknown diagnosis 'melanoma'"),
        (HEADER + ROW + ROW, "image a stands there more than once"),
        (HEADER + ROW.replace("l1", ""), "empty image_id or lesion_id"),
    ],
)
def test_what_cannot_be_predictions_is_refused_in_a_sentence(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "p.csv").write_text(content)
    with pytest.raises(UserError, match=complaint) as caught:
        predictions.read(tmp_path / "p.csv")
    assert "\n" not in str(caught.value)
    assert "p.csv" in str(caught.value)


def test_rounding_noise_in_the_sum_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(HEADER + ROW.replace("0.5,0.5", "0.5,0.49995"))
    assert len(predictions.read(tmp_path / "p.csv")) == 1


def test_a_missing_file_names_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        predictions.read(tmp_path / "none.csv")


def test_write_refuses_logits_and_leaves_no_file(tmp_path: Path) -> None:
    ids, lesions, names, values = some()
    with pytest.raises(UserError, match="softmax"):
        predictions.write(tmp_path / "p.csv", ids, lesions, names, np.log(values))
    with pytest.raises(UserError, match="7 probabilities"):
        predictions.write(tmp_path / "p.csv", ids, lesions, names, values[:, :6])
    assert list(tmp_path.iterdir()) == []


def test_lookup_follows_the_images_not_the_table() -> None:
    known = predictions.build(*some(3))
    column = pd.Series({"i002": "c", "i001": "b", "i000": "a", "other": "x"})
    assert known.lookup(column).tolist() == ["a", "b", "c"]
    with pytest.raises(UserError, match="image i001 is predicted but not in"):
        known.lookup(column.drop("i001"))
    with pytest.raises(UserError, match="stands twice"):
        known.lookup(pd.concat([column, column[["other"]]]))


def test_models_of_other_images_are_not_compared() -> None:
    ids, lesions, names, values = some()
    known = predictions.build(ids, lesions, names, values)
    predictions.require_same_images(known, predictions.build(ids, lesions, names, values[::-1]))
    with pytest.raises(UserError, match="differ"):
        predictions.require_same_images(known, predictions.build(ids, lesions, names[::-1], values))
    with pytest.raises(UserError, match="differ"):
        predictions.require_same_images(known, predictions.build(ids[:9], lesions[:9], names[:9], values[:9]))


def test_the_mean_of_several_models_is_that_of_their_probabilities(tmp_path: Path) -> None:
    ids, lesions, dx, p = some()
    one, other = (
        predictions.build(ids, lesions, dx, p),
        predictions.build(ids, lesions, dx, np.full((len(ids), 7), 1 / 7)),
    )
    predictions.write_mean(tmp_path / "mean.csv", [one, other])
    mean = predictions.read(tmp_path / "mean.csv").probabilities
    assert mean == pytest.approx((one.probabilities + 1 / 7) / 2, abs=1e-7)
    with pytest.raises(UserError, match="differ in images"):
        predictions.write_mean(tmp_path / "no.csv", [one, predictions.build(ids[:9], lesions[:9], dx[:9], p[:9])])

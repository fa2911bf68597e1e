"""Agreement of two models, counted by hand; and the two stages that turn predictions into figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.evaluation import errors
from dermdistill.metrics import predictions
from stages import calibrate, evaluate

NV, MEL, BKL = range(3)
ROOT = REPOSITORY


def truth_at(labels: list[int], values: list[float], instead: int = 6) -> np.ndarray:
    """Probabilities with the given value at the truth and the rest at class ``instead``."""
    p = np.zeros((len(labels), 7))
    p[np.arange(len(labels)), labels] = values
    p[:, instead] += 1 - p.sum(axis=1)
    return p


def test_melanoma_agreement_by_hand() -> None:
    positive = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    a = np.array([1, 1, 0, 0, 0, 1, 1, 0, 0], bool)
    b = np.array([1, 0, 0, 0, 0, 1, 0, 1, 0], bool)
    found = errors.melanoma_agreement(positive, a, b)
    assert found.pop("mcnemar_p") == pytest.approx(1.0)  # 2 against 1
    assert found == {
        "total": 9,
        "agree": 6,
        "disagree": 3,
        "a_correct": 5,
        "b_correct": 4,
        "both_correct": 3,
        "both_wrong": 3,
        "only_a": 2,
        "only_b": 1,
        "shared_false_negatives": 2,
        "shared_false_positives": 1,
    }


def test_diagnoses_may_disagree_and_both_be_wrong() -> None:
    found = errors.diagnosis_agreement(np.array([NV, NV, MEL]), np.array([NV, MEL, NV]), np.array([NV, BKL, MEL]))
    assert (found["agree"], found["disagree"], found["both_wrong"], found["only_b"]) == (1, 2, 1, 1)
    assert found["both_correct"] + found["both_wrong"] + found["only_a"] + found["only_b"] == found["total"]


def test_mcnemar_by_hand() -> None:
    assert errors.mcnemar(0, 0) == 1.0
    assert errors.mcnemar(5, 0) == errors.mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert errors.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert errors.mcnemar(4, 4) == 1.0


def test_high_confidence_errors() -> None:
    ids, labels = np.array(["a", "b", "c", "d"]), np.array([NV, NV, MEL, MEL])
    p = truth_at([NV, NV, MEL, MEL], [0.95, 0.02, 0.1, 0.2])
    assert errors.high_confidence_errors(ids, labels, p, 0.9) == ["b", "c"]
    assert errors.high_confidence_errors(ids, labels, p, 0.99) == []


def test_per_class_change_by_hand() -> None:
    labels = np.array([NV, NV, MEL, MEL, BKL])
    table = errors.per_class_change(labels, np.array([NV, NV, MEL, NV, NV]), np.array([NV, MEL, MEL, MEL, BKL]))
    rows = table.set_index("dx")
    assert tuple(table["dx"]) == CLASSES
    assert rows.loc["nv", ["f1_a", "f1_b"]].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert rows.loc["mel", "delta_f1"] == pytest.approx(0.8 - 2 / 3)
    assert rows.loc["mel", "relative_delta_f1"] == pytest.approx(0.2)
    assert rows.loc["mel", "delta_recall"] == pytest.approx(0.5)
    assert (rows.loc["bkl", "f1_a"], rows.loc["bkl", "delta_f1"]) == (0.0, 1.0)
    assert rows["relative_delta_f1"].isna()["bkl"]  # nothing is relative to 0
    assert rows.loc["df", "n"] == 0
    assert table.iloc[-1:].drop(columns=["dx", "n"]).isna().all(axis=None)


def test_cases_by_hand() -> None:
    ids = np.array(["easy2", "easy1", "hard", "only_a2", "only_a1", "only_b", "wrong1", "wrong2"])
    labels = [NV] * 8
    a = truth_at(labels, [0.8, 0.9, 0.55, 0.6, 0.9, 0.45, 0.05, 0.3])
    b = truth_at(labels, [0.8, 0.9, 0.55, 0.4, 0.1, 0.9, 0.02, 0.4])
    found = errors.cases(ids, np.array(labels), a, b, high_confidence=0.9)
    assert found == {
        "easy": ["easy1", "easy2", "hard"],
        "challenging": ["only_a1", "only_a2", "hard", "only_b", "easy2", "easy1"],
        "both_wrong": ["wrong1", "wrong2"],
        "only_a": ["only_a1", "only_a2"],
        "only_b": ["only_b"],
        "high_confidence": ["wrong1", "only_a1"],
    }


def test_cases_of_two_perfect_models() -> None:
    p = np.eye(7)[[NV, MEL]]
    found = errors.cases(np.array(["b", "a"]), np.array([NV, MEL]), p, p, high_confidence=0.0)
    assert found.pop("easy") == found.pop("challenging") == ["a", "b"]  # equal ranks: by id
    assert not any(found.values())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params, predictions of one model and splits; and nothing else."""
    content = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("bootstrap: 2000", "bootstrap: 100")
    (tmp_path / "params.yaml").write_text(content, encoding="utf-8")
    random = np.random.default_rng(0)
    for part in ("val", "holdout"):
        labels = random.choice(7, 300, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])
        ids = [f"{part}{number:04d}" for number in range(300)]
        p = np.exp(random.normal(size=(300, 7)) + 2 * np.eye(7)[labels])
        dx = [CLASSES[label] for label in labels]
        lesions = [name[:-1] for name in ids]
        predictions.write(tmp_path / f"predictions/{part}/m.csv", ids, lesions, dx, p / p.sum(axis=1, keepdims=True))
        table = pd.DataFrame({"image_id": ids, "dx_type": np.where(random.random(300) < 0.5, "histo", "")})
        (tmp_path / "data/splits").mkdir(parents=True, exist_ok=True)
        table.to_csv(tmp_path / f"data/splits/{part}.csv", index=False)
    (tmp_path / "data/traits.csv").write_text("image_id,age,sex,localization\n")  # nothing is known of any
    monkeypatch.chdir(tmp_path)
    return tmp_path


CURVES = ("roc", "pr", "reliability", "threshold", "reliability_raw", "decision", "risk_coverage")
PROTOCOL = {"selective", "net_benefit", "slices"}


def at(content: dict, path: str) -> float:
    """What stands at a dotted path; a key (a threshold, say) may hold dots itself."""
    if path in content:
        return content[path]
    key = next(key for key in content if path.startswith(f"{key}."))
    return at(content[key], path.removeprefix(f"{key}."))


def files_of(folder: Path) -> dict[str, bytes]:
    outputs = [path for name in ("metrics", "plots") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in outputs}


def test_stages_write_the_promised_files_twice_the_same(repository: Path) -> None:
    calibrate.main("m")
    evaluate.main("m")
    first = files_of(repository)
    assert set(first) == {
        *(f"metrics/{name}/m.json" for name in ("calibrate", "val", "holdout")),
        *(f"plots/curves/{name}/m.csv" for name in CURVES),
        "plots/confusion/m.csv",
    }
    calibrate.main("m")
    evaluate.main("m")
    assert files_of(repository) == first


def test_the_metrics_file_has_the_promised_shape(repository: Path) -> None:
    calibrate.main("m")
    evaluate.main("m")
    val, holdout = (json.loads((repository / f"metrics/{part}/m.json").read_text()) for part in ("val", "holdout"))
    assert set(holdout) == {"n", "melanoma", "diagnosis", "raw", "operating_points", "intervals"} | PROTOCOL
    assert holdout["n"]["images"] == 300 and holdout["n"]["lesions"] == 30
    assert val["operating_points"]["sensitivity"]["sensitivity"] >= 0.95
    for path, (low, high) in holdout["intervals"].items():
        value = at(holdout, path)
        assert low <= high
        assert path == "melanoma.ece" or low <= value <= high, path
    assert len((repository / "plots/confusion/m.csv").read_text().splitlines()) == 301


def test_curves_and_slices_are_those_of_the_holdout(repository: Path) -> None:
    calibrate.main("m")
    evaluate.main("m")
    holdout = json.loads((repository / "metrics/holdout/m.json").read_text())
    roc = pd.read_csv("plots/curves/roc/m.csv")
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(holdout["melanoma"]["roc_auc"], abs=1e-5)
    table = pd.read_csv("predictions/holdout/m.csv").merge(pd.read_csv("data/splits/holdout.csv"))
    assert pd.read_csv("plots/confusion/m.csv")["actual"].tolist() == table["dx"].tolist()
    confirmed = table[(table["dx_type"] == "histo") & table["dx"].isin(["nv", "bkl", "df", "vasc"])]
    assert holdout["melanoma"]["histology"]["n_benign"] == len(confirmed)


def test_calibration_and_val_metrics_do_not_see_the_holdout(repository: Path) -> None:
    calibrate.main("m")
    evaluate.main("m")
    before = files_of(repository)
    known = predictions.read("predictions/holdout/m.csv")
    scrambled = np.random.default_rng(1).permutation([CLASSES[label] for label in known.labels])
    predictions.write("predictions/holdout/m.csv", known.image_id, known.lesion_id, scrambled, known.probabilities)
    calibrate.main("m")
    evaluate.main("m")
    after = files_of(repository)
    assert before["metrics/calibrate/m.json"] == after["metrics/calibrate/m.json"]
    assert before["metrics/val/m.json"] == after["metrics/val/m.json"]
    assert before["metrics/holdout/m.json"] != after["metrics/holdout/m.json"]


def test_stages_say_what_is_missing(repository: Path) -> None:
    with pytest.raises(UserError, match=r"predictions/val/other.csv does not exist"):
        calibrate.main("other")
    with pytest.raises(UserError, match=r"metrics/calibrate/m.json does not exist"):
        evaluate.main("m")
    calibrate.main("m")
    (repository / "data/splits/val.csv").unlink()
    with pytest.raises(UserError, match=r"splits/val.csv does not exist"):
        evaluate.main("m")


def test_confusion_counts_and_shares_by_hand() -> None:
    labels, a, b = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    before, after = errors.confusion(labels, a), errors.confusion(labels, b)
    row = before[(before["actual"] == "nv") & (before["predicted"] == "mel")].iloc[0]
    assert row["count"] == 1 and row["share"] == pytest.approx(1 / 3)
    assert before["count"].sum() == 4 and before["share"].isna().sum() == 5 * 7  # five diagnoses do not occur
    change = errors.confusion_change(before, after)
    assert change[0, 0] == pytest.approx(-1 / 3) and change[0, 1] == pytest.approx(1 / 3) and change[1, 1] == 0
    assert np.isnan(change[2]).all()

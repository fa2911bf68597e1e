"""The stages ``calibrate`` and ``evaluate`` write what they promise, and val never sees the holdout."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, simulated

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.evaluation import bootstrap, protocol
from dermdistill.metrics import predictions, selective
from stages import calibrate, evaluate

CURVES = ("roc", "pr", "reliability", "threshold", "reliability_raw", "decision", "risk_coverage")
PROTOCOL = {"selective", "net_benefit", "subgroups"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params, predictions of one model and splits; and nothing else."""
    content = (REPOSITORY / "params.yaml").read_text(encoding="utf-8").replace("bootstrap: 2000", "bootstrap: 100")
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
    (tmp_path / "data/patient_metadata.csv").write_text("image_id,age,sex,localization\n")  # no row: all unknown
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(params.Params, "evaluated_ids", lambda settings: ["m"])
    return tmp_path


def at(content: dict, path: str) -> float:
    """The value at a dotted path; a key (a threshold, say) may hold dots itself."""
    if path in content:
        return content[path]
    key = next(key for key in content if path.startswith(f"{key}."))
    return at(content[key], path.removeprefix(f"{key}."))


def files_of(folder: Path) -> dict[str, bytes]:
    outputs = [path for name in ("metrics", "plots") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in outputs}


def test_stages_write_the_promised_files_twice_the_same(repository: Path) -> None:
    calibrate.main()
    evaluate.main()
    first = files_of(repository)
    assert set(first) == {
        *(f"metrics/{name}/m.json" for name in ("calibrate", "val", "holdout")),
        *(f"plots/curves/{name}/m.csv" for name in CURVES),
        "plots/confusion/m.csv",
    }
    calibrate.main()
    evaluate.main()
    assert files_of(repository) == first


def test_the_metrics_file_has_the_promised_shape(repository: Path) -> None:
    calibrate.main()
    evaluate.main()
    val, holdout = (json.loads((repository / f"metrics/{part}/m.json").read_text()) for part in ("val", "holdout"))
    assert set(holdout) == {"n", "melanoma", "diagnosis", "raw", "operating_points", "intervals"} | PROTOCOL
    assert holdout["n"]["images"] == 300 and holdout["n"]["lesions"] == 30
    assert val["operating_points"]["sensitivity"]["sensitivity"] >= 0.95
    for path, (low, high) in holdout["intervals"].items():
        value = at(holdout, path)
        assert low <= high
        assert path == "melanoma.ece" or low <= value <= high, path
    assert len((repository / "plots/confusion/m.csv").read_text().splitlines()) == 301


def test_curves_and_subgroups_are_those_of_the_holdout(repository: Path) -> None:
    calibrate.main()
    evaluate.main()
    holdout = json.loads((repository / "metrics/holdout/m.json").read_text())
    roc = pd.read_csv("plots/curves/roc/m.csv")
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(holdout["melanoma"]["roc_auc"], abs=1e-5)
    table = pd.read_csv("predictions/holdout/m.csv").merge(pd.read_csv("data/splits/holdout.csv"))
    assert pd.read_csv("plots/confusion/m.csv")["actual"].tolist() == table["dx"].tolist()
    confirmed = table[(table["dx_type"] == "histo") & table["dx"].isin(["nv", "bkl", "df", "vasc"])]
    assert holdout["melanoma"]["histology"]["n_benign"] == len(confirmed)


def test_calibration_and_val_metrics_do_not_see_the_holdout(repository: Path) -> None:
    calibrate.main()
    evaluate.main()
    before = files_of(repository)
    raw = predictions.read("predictions/holdout/m.csv")
    scrambled = np.random.default_rng(1).permutation([CLASSES[label] for label in raw.labels])
    predictions.write("predictions/holdout/m.csv", raw.image_id, raw.lesion_id, scrambled, raw.probabilities)
    calibrate.main()
    evaluate.main()
    after = files_of(repository)
    assert before["metrics/calibrate/m.json"] == after["metrics/calibrate/m.json"]
    assert before["metrics/val/m.json"] == after["metrics/val/m.json"]
    assert before["metrics/holdout/m.json"] != after["metrics/holdout/m.json"]


def test_stages_say_what_is_missing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(params.Params, "evaluated_ids", lambda settings: ["other"])
        with pytest.raises(UserError, match=r"predictions/val/other.csv does not exist"):
            calibrate.main()
    with pytest.raises(UserError, match=r"metrics/calibrate/m.json does not exist"):
        evaluate.main()
    calibrate.main()
    (repository / "data/splits/val.csv").unlink()
    with pytest.raises(UserError, match=r"splits/val.csv does not exist"):
        evaluate.main()


def test_the_coverage_with_an_interval_is_that_of_the_metrics_file() -> None:
    labels, p = simulated(400)
    rules = selective.fit(labels, p, 0.9, [0.9])
    conformal = selective.measure(labels, p, 0.2, rules)["conformal"]
    for kind in ("marginal", "class_conditional"):
        metric = protocol.coverage_metrics(labels, p, rules)[f"selective.conformal.{kind}.coverage"]
        assert bootstrap.value(metric, labels) == pytest.approx(conformal[kind]["coverage"])

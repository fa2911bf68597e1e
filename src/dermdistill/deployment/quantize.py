"""Static INT8 of an exported graph, and how far it strays from FP32.

Convolutions run on 8-bit activations (unsigned, per tensor) and weights (signed, per channel) by
explicit QuantizeLinear/DequantizeLinear pairs (Jacob et al., 2018). Weights use 7 of their 8 bits
(``reduce_range``): AVX2 kernels add two products in 16 bits and saturate otherwise, which costs 10 %
of the diagnoses; phones (NEON) and VNNI do not saturate, so only the comparison with the unoptimised
graph in :func:`parity`, run on such a processor, would show it.

Seven bits move the mean output of the first layers, whose channels see few weights (3 × 3 × 1 in a
depthwise convolution). Biases are corrected for it (Nagel et al., ICCV 2019, section 4.2).

What comes before the first convolution (pixels, normalisation)
and after the last (pooling, classifier, calibration, softmax) stays in float: together a few kilobytes
and microseconds, but there rounding reaches the probabilities directly.

Deliberately absent: quantization-aware training (far slower than the training itself on a CPU) and
ONNX Runtime's ``quant_pre_process`` (saves 0.14 MB at most, changes nothing else).
"""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from dermdistill.classes import MELANOMA
from dermdistill.deployment import export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.files import atomic

BATCH = 16  # calibration images whose activations are in memory at a time

Method = Literal["minmax", "percentile", "entropy"]


def quantize(source: str | Path, target: str | Path, images: np.ndarray, method: Method) -> None:
    """Write the INT8 version of the exported graph ``source``; same input, output and metadata.

    ``images`` are uint8 (N, H, W, 3), N ≥ 1, from the training split; their activations set the ranges
    and the corrected biases. The same graph and images give the same bytes.

    Raises:
        UserError: if there is no image, or no convolution to quantize.
    """
    if len(images) == 0:
        raise UserError("INT8 needs at least one calibration image; raise quantize.calibration_images")
    model = onnx.load(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, fp32)  # a copy: ONNX Runtime writes scratch files beside its input
        _static(fp32, int8, images, method)
        _correct_biases(model, onnx.load(int8), _channel_means(fp32, images))
        onnx.save(model, fp32)
        _static(fp32, int8, images, method)
        quantized = onnx.load(int8)
    del quantized.metadata_props[:]
    export.describe(quantized, metadata)
    with atomic(target) as temporary:
        export.save(quantized, temporary)


def choose(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``count`` (or all, if fewer) of the training ``rows``, by ``seed``, ascending."""
    chosen = np.random.default_rng(seed).choice(rows, size=min(count, len(rows)), replace=False)
    return np.sort(chosen)


def parity(
    fp32: str | Path, int8: str | Path, images: np.ndarray, rows: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """How INT8 compares with FP32, and with itself when the runtime's optimisations are off.

    ``images`` uint8 (N, H, W, 3), of which ``rows`` (n,) are used; ``labels`` (n,) int. The comparison
    with optimisations off shows kernels that saturate on this processor. ``melanoma_roc_auc`` is null
    unless melanoma and another diagnosis are present.
    """
    full, small = Detector(fp32).predict(images, rows), Detector(int8).predict(images, rows)
    literal = Detector(int8, optimize=False).predict(images, rows)
    auc = [_auc(labels == MELANOMA, p[:, MELANOMA]) for p in (full, small)]
    return {
        "n": len(rows),
        "bytes": {"fp32": Path(fp32).stat().st_size, "int8": Path(int8).stat().st_size},
        "fp32": _compare(full, small),
        "optimisations_off": _compare(literal, small),
        "melanoma_roc_auc": {
            "fp32": auc[0],
            "int8": auc[1],
            "drop": None if auc[0] is None or auc[1] is None else auc[0] - auc[1],
        },
    }


def _static(source: Path, target: Path, images: np.ndarray, method: Method) -> None:
    from onnxruntime import quantization

    methods = {kind.name.lower(): kind for kind in quantization.CalibrationMethod}
    outside, types = _outside(onnx.load(source))
    with _quiet():
        quantization.quantize_static(
            source,
            target,
            _reader(images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=types,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=outside,
            calibrate_method=methods[method],
            extra_options={"CalibStridedMinMax": 1},  # batch by batch, whatever the method: bounds memory
        )


def _correct_biases(model: onnx.ModelProto, quantized: onnx.ModelProto, means: dict[str, np.ndarray]) -> None:
    """Add to each convolution's bias what its rounded weights lose on the average input, in place.

    With weights W, rounded Wq, and mean input E[x] per channel: b += Σ (W − Wq) E[x]. The border, where
    padding lowers the mean, is neglected.
    """
    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded = {tensor.name: tensor for tensor in quantized.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or f"{node.input[1]}_quantized" not in rounded:
            continue
        source, weight, bias = node.input
        whole, scale = (numpy_helper.to_array(rounded[weight + end]) for end in ("_quantized", "_scale"))
        error = numpy_helper.to_array(exact[weight]) - whole.astype(np.float64) * scale.reshape(-1, 1, 1, 1)
        groups = len(means[source]) // error.shape[1]
        per_group = error.sum(axis=(2, 3)).reshape(groups, -1, error.shape[1])
        lost = np.einsum("goi,gi->go", per_group, means[source].reshape(groups, -1)).ravel()
        corrected = numpy_helper.to_array(exact[bias]) + lost
        exact[bias].CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), bias))


def _channel_means(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Input of each convolution → its mean per channel (C,) over ``images``, in the FP32 graph."""
    model = onnx.load(path)
    names = sorted({node.input[0] for node in model.graph.node if node.op_type == "Conv"})
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = dict.fromkeys(names, np.zeros(1))
    for start in range(0, len(images), BATCH):
        outputs = session.run(names, {"image": images[start : start + BATCH]})
        for name, output in zip(names, outputs, strict=True):
            sums[name] = sums[name] + output.mean(axis=(2, 3), dtype=np.float64).sum(axis=0)
    return {name: total / len(images) for name, total in sums.items()}


def _compare(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    difference = np.abs(a - b)
    return {
        "max_abs_dp": float(difference.max()),
        "mean_abs_dp": float(difference.mean()),
        "agreement": float((a.argmax(axis=1) == b.argmax(axis=1)).mean()),
    }


def _auc(positive: np.ndarray, score: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else None


def _outside(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the nodes before the first and after the last convolution; the types of those between."""
    nodes = model.graph.node
    convolutions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if not convolutions:
        raise UserError("the model has no convolution to quantize; choose a convolutional student")
    first, last = convolutions[0], convolutions[-1]
    after = last + 1
    while nodes[after].op_type in ("Clip", "Relu", "HardSwish"):
        after += 1  # the last convolution's activation belongs to it
    names = [node.name for node in (*nodes[:first], *nodes[after:])]
    return names, sorted({node.op_type for node in nodes[first:after]})


def _reader(images: np.ndarray) -> Any:
    """What ONNX Runtime asks for: batches one by one, and a length with ``set_range`` for striding."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[int] = iter(())

        def __len__(self) -> int:
            return -(-len(images) // BATCH)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.batches = iter(range(start_index, end_index))

        def get_next(self) -> dict[str, np.ndarray] | None:
            index = next(self.batches, None)
            if index is None:
                return None
            return {"image": images[index * BATCH : (index + 1) * BATCH]}

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hush progress, and advice to run the pre-processing that the module docstring declines."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)

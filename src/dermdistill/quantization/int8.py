"""INT8 versions of an exported graph, from the default to the careful; :mod:`candidates` names and orders them.

Static quantization runs convolutions on 8-bit activations (unsigned, per tensor) and weights (signed) by
explicit QuantizeLinear/DequantizeLinear pairs (Jacob et al., 2018). Weights use 7 of their 8 bits
(``reduce_range``): AVX2 kernels add two products in 16 bits and overflow otherwise, which costs 10 %
of the diagnoses; phones (NEON) and VNNI do not overflow, so a machine that has VNNI would not notice.
2 · 255 · 64 = 32,640 fits into 16 bits: :func:`overflowing` looks at the weights, which no processor can hide.

Seven bits move the mean output of the first layers, whose channels see few weights (3 × 3 × 1 in a
depthwise convolution). Biases are corrected for it (Nagel et al., ICCV 2019, section 4.2).

What comes before the first convolution of the network (pixels, normalisation)
and after the last (pooling, classifier, calibration, softmax) stays in float: together a few kilobytes
and microseconds, but there rounding reaches the probabilities directly.

Deliberately absent: ONNX Runtime's ``quant_pre_process`` (saves 0.14 MB at most, changes nothing else).
"""

import contextlib
import copy
import io
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from dermdistill.core.files import atomic
from dermdistill.deployment import onnx_export
from dermdistill.errors import UserError

BATCH = 16  # calibration images whose activations are in memory at a time
LARGEST_SAFE = 64  # largest whole weight of which two products with 255 fit into 16 bits

Method = Literal["minmax", "percentile", "entropy"]


class Quantizer:
    """Makes INT8 files of one FP32 file; ranges of activations are measured once per method and kept.

    ``images`` are uint8 (N, H, W, 3), N ≥ 1, from the training split; their activations set the ranges
    and the corrected biases. The same graph and images give the same bytes.
    """

    def __init__(self, source: str | Path, images: np.ndarray, scratch: str | Path) -> None:
        """``scratch`` is an existing folder for the ranges and copies; ONNX Runtime writes beside its input.

        Raises:
            UserError: if there is no image, or no convolution to quantize.
        """
        if len(images) == 0:
            raise UserError("INT8 needs at least one calibration image; raise quantize.calibration_images")
        self.images, self.scratch = images, Path(scratch)
        self.model = onnx.load(source)
        self.layers = layers(self.model)
        self.plain = self.scratch / "plain.onnx"
        onnx.save(self.model, self.plain)
        self._corrected: dict[Method, onnx.ModelProto] = {}
        self._mean: dict[str, np.ndarray] = {}

    def default(self, target: str | Path, tail: bool) -> None:
        """The library's static default: every operator it knows, weights per tensor, no correction.

        With ``tail`` that includes the calibration and the softmax, whose output then comes in 256 steps.
        """
        nodes = [node.name for node in self.model.graph.node if tail or node.name not in onnx_export.TAIL]
        self._finish(self._static(self.plain, "minmax", nodes, "default", default=True), target)

    def static(self, target: str | Path, method: Method, in_float: Collection[str] = ()) -> None:
        """Per channel, biases corrected; the layers named ``in_float`` stay as they are."""
        if method not in self._corrected:
            first = self._static(self.plain, method, self._inner(), f"plain_{method}")
            model = onnx.load(self.plain)
            _correct_biases(model, first, self._means())
            self._corrected[method] = model
        source = self.scratch / "corrected.onnx"
        onnx.save(self._restored(self._corrected[method], in_float), source)
        kept = self._inner(set(self.layers) - set(in_float))
        self._finish(self._static(source, method, kept, f"corrected_{method}_{len(in_float)}"), target)

    def only(self, target: str | Path, layer: str) -> None:
        """One layer in INT8 and all others in float, to see what that layer alone costs."""
        self._finish(self._static(self.plain, "minmax", self.layers[layer], "plain_minmax"), target)

    def dynamic(self, target: str | Path) -> None:
        """Ranges of activations found at run time, per image; weights per tensor, the only way it knows."""
        from onnxruntime import quantization

        with _quiet():
            quantization.quantize_dynamic(
                self.plain,
                self.scratch / "int8.onnx",
                nodes_to_quantize=self._inner(),
                weight_type=quantization.QuantType.QInt8,
                reduce_range=True,
            )
        self._finish(onnx.load(self.scratch / "int8.onnx"), target)

    def weight_only(self, target: str | Path) -> None:
        """Weights of convolutions stored in 8 bits per channel; the arithmetic stays in float."""
        model = onnx.load(self.plain)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        names = sorted({node.input[1] for node in model.graph.node if node.op_type == "Conv"} & set(tensors))
        for name in reversed(names):
            weight = numpy_helper.to_array(tensors[name])
            scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3)) / 127, np.finfo(np.float32).tiny)
            whole = np.round(weight / scale.reshape(-1, 1, 1, 1)).astype(np.int8)
            model.graph.initializer.remove(tensors[name])
            parts = {f"{name}_quantized": whole, f"{name}_scale": scale.astype(np.float32)}
            model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in parts.items())
            node = helper.make_node("DequantizeLinear", list(parts), [name], f"{name}_dequantize", axis=0)
            model.graph.node.insert(0, node)
        self._finish(model, target)

    def _means(self) -> dict[str, np.ndarray]:
        if not self._mean:
            self._mean = _channel_means(self.plain, self.images)
        return self._mean

    def _restored(self, corrected: onnx.ModelProto, in_float: Collection[str]) -> onnx.ModelProto:
        """A layer that stays in float keeps its own bias: it has no rounded weights to correct for."""
        own = {tensor.name: tensor for tensor in self.model.graph.initializer}
        names = {self.layers[layer][0] for layer in in_float}
        biases = {node.input[2] for node in self.model.graph.node if node.name in names and len(node.input) > 2}
        model = copy.deepcopy(corrected)
        for tensor in model.graph.initializer:
            if tensor.name in biases:
                tensor.CopyFrom(own[tensor.name])
        return model

    def _inner(self, kept: Collection[str] | None = None) -> list[str]:
        """The nodes of the layers ``kept`` (None: all), in the graph's order."""
        return [name for layer, nodes in self.layers.items() if kept is None or layer in kept for name in nodes]

    def _static(
        self, source: Path, method: Method, nodes: list[str], ranges: str, default: bool = False
    ) -> onnx.ModelProto:
        """Quantize ``nodes``; ``ranges`` names the file in which the measured ranges are kept."""
        from onnxruntime import quantization

        methods = {kind.name.lower(): kind for kind in quantization.CalibrationMethod}
        chosen, inner = set(nodes), set(self._inner())
        types = sorted({node.op_type for node in self.model.graph.node if node.name in inner})
        with _quiet():
            quantization.quantize_static(
                source,
                self.scratch / "int8.onnx",
                _reader(self.images),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=[] if default else types,
                per_channel=not default,
                reduce_range=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=[node.name for node in self.model.graph.node if node.name not in chosen],
                calibrate_method=methods[method],
                calibration_cache_path=self.scratch / f"{ranges}.json",
                extra_options={"CalibStridedMinMax": 1},  # batch by batch, whatever the method: bounds memory
            )
        return onnx.load(self.scratch / "int8.onnx")

    def _finish(self, quantized: onnx.ModelProto, target: str | Path) -> None:
        del quantized.metadata_props[:]
        onnx_export.describe(quantized, {entry.key: entry.value for entry in self.model.metadata_props})
        with atomic(target) as temporary:
            onnx_export.save(quantized, temporary)


def layers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Each convolution of the network, named as its weights, with what follows it up to the next: names of nodes.

    What precedes the first, and what follows the last and its activation, belongs to no layer.

    Raises:
        UserError: if there is no convolution.
    """
    nodes = [node for node in model.graph.node if node.name != onnx_export.NORMALISE]
    positions = [index for index, node in enumerate(nodes) if node.op_type == "Conv"]
    if not positions:
        raise UserError("the model has no convolution to quantize; choose a convolutional student")
    end = positions[-1] + 1
    while nodes[end].op_type in ("Clip", "Relu", "HardSwish"):
        end += 1  # the last convolution's activation belongs to it
    bounds = zip(positions, [*positions[1:], end], strict=True)
    return {_layer(nodes[start]): [node.name for node in nodes[start:stop]] for start, stop in bounds}


def _layer(convolution: onnx.NodeProto) -> str:
    return str(convolution.input[1]).removeprefix("network.").removesuffix(".weight")


def overflowing(path: str | Path) -> int:
    """How many weights are too large for 8-bit kernels that add two products in 16 bits; 0 if computed in float."""
    model = onnx.load(path)
    whole = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.INT8}
    nodes = [node for node in model.graph.node if node.op_type in ("ConvInteger", "DequantizeLinear")]
    if not any(node.op_type in ("ConvInteger", "QuantizeLinear") for node in model.graph.node):
        return 0
    names = {name for node in nodes for name in node.input[:2] if name in whole}
    return sum(int((np.abs(numpy_helper.to_array(whole[name]).astype(int)) > LARGEST_SAFE).sum()) for name in names)


def choose(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """``count`` (or all, if fewer) of the training ``rows``, by ``seed``, ascending."""
    chosen = np.random.default_rng(seed).choice(rows, size=min(count, len(rows)), replace=False)
    return np.sort(chosen)


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

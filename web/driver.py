"""The page in a headless Chromium, asked from Python: what the tests and ``benchmarks/web.py`` have in common."""

import base64
import contextlib
import threading
from collections.abc import Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from playwright import sync_api as api

READY = "#files:enabled"
CHUNK = 25  # images in one message to the browser

# The page's own modules, with arrays as base64 in and out. Its detector has set up the runtime, threads included.
TOOLS = """async () => {
  const names = ["detector", "judge", "occlusion", "picture", "pixels"];
  const [{ openModel }, { judge }, { occlusionMap }, { Refusal, decode }, { fit, cut }] =
    await Promise.all(names.map((name) => import(new URL(`${name}.js`, location.href))));
  const description = await (await fetch("student.int8.json")).json();
  const models = {};
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const text = (array) => Array.from(array, (byte) => String.fromCharCode(byte)).join("");
  self.tools = {
    description,
    open: async ([name, file]) => { models[name] = await openModel(bytes(file), description); },
    fit: ([width, height, kind, rgba, down, across]) => {
      const data = new Uint8ClampedArray(bytes(rgba));
      return btoa(text(fit({ data, width, height, kind }, down, across)));
    },
    predict: async ([name, images]) => {
      const found = [];
      for (const image of images) {
        const pixels = bytes(image);
        const begun = performance.now();
        const probabilities = await models[name].predict(pixels);
        found.push([Array.from(probabilities), performance.now() - begun]);
      }
      return found;
    },
    answer: async ([name, files]) => {
      const found = [];
      const { height, width, predict, rules } = models[name];
      for (const file of files) {
        try {
          const probabilities = await predict(fit(await decode(new Blob([bytes(file)])), height, width));
          found.push({ probabilities: Array.from(probabilities), ...judge(probabilities, rules) });
        } catch (error) {
          if (!(error instanceof Refusal)) throw error;
          found.push({ decision: "cannot judge", code: error.code });
        }
      }
      return found;
    },
    occlude: async ([name, image]) => {
      const { change, ...rest } = await occlusionMap(models[name], bytes(image));
      return { ...rest, change: Array.from(change) };
    },
  };
}"""


class Asked:
    """A ready page whose modules answer; ``open`` a model before asking for its ``predict`` or ``answer``."""

    def __init__(self, page: api.Page) -> None:
        self.page = page
        page.evaluate(TOOLS)

    def open(self, name: str, model: Path) -> None:
        self.page.evaluate("args => self.tools.open(args)", [name, _text(model.read_bytes())])

    def fit(self, image: np.ndarray, height: int, width: int, kind: str = "png") -> np.ndarray:
        """The model's input (height, width, 3) uint8 of RGB pixels (H, W, 3) uint8, decoded from a file of ``kind``."""
        rgba = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
        size = [image.shape[1], image.shape[0], kind]
        found = self.page.evaluate("args => self.tools.fit(args)", [*size, _text(rgba.tobytes()), height, width])
        return np.frombuffer(base64.b64decode(found), np.uint8).reshape(height, width, 3)

    def predict(self, name: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N, 7) and milliseconds (N,) of prepared images (N, height, width, 3), one at a time."""
        found = self._chunks("predict", name, [image.tobytes() for image in images])
        return np.array([p for p, _ in found]), np.array([ms for _, ms in found])

    def answer(self, name: str, files: Sequence[bytes]) -> list[dict[str, Any]]:
        """What the page says of files of any kind: decision, probabilities, set, doubt, or the code of its refusal."""
        return self._chunks("answer", name, files)

    def occlude(self, name: str, image: np.ndarray) -> dict[str, Any]:
        return dict(self.page.evaluate("args => self.tools.occlude(args)", [name, _text(image.tobytes())]))

    def _chunks(self, tool: str, name: str, contents: Sequence[bytes]) -> list[Any]:
        found: list[Any] = []
        for start in range(0, len(contents), CHUNK):
            chunk = [_text(content) for content in contents[start : start + CHUNK]]
            found += self.page.evaluate("([tool, args]) => self.tools[tool](args)", [tool, [name, chunk]])
        return found


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[str]:
    """Run ``server`` in the background; gives its address at ``localhost``, which browsers trust as they do https."""
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def unquantized(source: Path, target: Path) -> Path:
    """Write the network of an INT8 file in FP32: the same layers and weights, no rounding between layers.

    Pairs of QuantizeLinear and DequantizeLinear become Clip to the range of their 8 bits, since that is what is left
    of ReLU6 there. Stands in for the student in FP32, whose file is not in git.
    """
    model = onnx.load(source)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantized = {node.output[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            continue
        if node.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        (output,), (name, scale, zero) = node.output, (*node.input[:2], constants[node.input[2]])
        if name in constants:
            value, axis = constants[name].astype(np.float32), next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if dimension == axis else 1 for dimension in range(value.ndim)]
            fit = [(part.reshape(shape) if part.size > 1 else part) for part in (constants[scale], zero)]
            tensor = ((value - fit[1]) * fit[0]).astype(np.float32)
            nodes.append(helper.make_node("Constant", [], [output], value=numpy_helper.from_array(tensor)))
        else:
            kind = np.iinfo(zero.dtype)
            ends = [np.float32((edge - zero.astype(int)) * constants[scale]) for edge in (kind.min, kind.max)]
            for end, value in zip(("min", "max"), ends, strict=True):
                constant = numpy_helper.from_array(value.reshape(()))
                nodes.append(helper.make_node("Constant", [], [f"{output}.{end}"], value=constant))
            inputs = [quantized[name].input[0], f"{output}.min", f"{output}.max"]
            nodes.append(helper.make_node("Clip", inputs, [output]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, target)
    return target


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()

"""Runs a deployed (or evaluated) ONNX file; what a phone does, and what every INT8 number came from.

Needs numpy, Pillow and ONNX Runtime only: no torch, so it starts in well under a second. It accepts
only self-contained files of this project. Deliberately absent: normalisation and calibration, which
are inside the graph; test-time augmentation.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json
from dermdistill.errors import UserError
from dermdistill.ingest import pixels

BATCH = 32  # images in memory at a time
FORMAT = "1"  # of a deployed file's metadata and of the JSON beside it; another one is refused
NEWER = (  # what ONNX Runtime says of a file that uses more than it knows
    "Unsupported model IR version",
    "ValidateOpsetForDomain",
    "No Op registered for",
    "Could not find an implementation",
)
EXTERNAL = b"\n\x08location\x12"  # how protobuf writes the key under which ONNX names a weights file


class Detector:
    """A model file, opened.

    Attributes:
        height, width: pixels of the images it takes.
        metadata: what the file says about itself, as strings.
        thresholds: operating point → threshold of P(melanoma); empty unless the file is calibrated.
    """

    def __init__(self, path: str | Path, threads: int | None = None, optimize: bool = True) -> None:
        """Open ``path`` on ``threads`` CPU threads (None: all); ``optimize=False`` runs the graph literally.

        Raises:
            UserError: if the file is missing, damaged, not one of this project's models, of another format, for a
                newer ONNX Runtime, or keeps weights in another file.
        """
        self.path = Path(path)
        self._session = _open(self.path, threads, optimize)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        _require_format(self.path, self.metadata.get("format", FORMAT))
        self.height, self.width = _check(self.path, self._session, self.metadata)
        self.thresholds = _thresholds(self.path, self.metadata)

    def predict(self, images: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Probabilities float32 (N, 7) in the order of ``CLASSES`` for uint8 (N, height, width, 3).

        With ``rows`` (n,) only those images, in that order, and never more than a batch of a
        memory-mapped array in memory. Batches change a result by float rounding at most (1e-7).
        """
        expected = (self.height, self.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected:
            raise UserError(
                f"{self.path.name} takes uint8 images of shape (N, {self.height}, {self.width}, 3), not "
                f"{images.dtype} {images.shape}; prepare them at that size"
            )
        rows = np.arange(len(images)) if rows is None else rows
        parts = [
            self._session.run(["probabilities"], {"image": images[rows[start : start + BATCH]]})[0]
            for start in range(0, len(rows), BATCH)
        ]
        return np.concatenate([np.zeros((0, len(CLASSES)), np.float32), *parts])

    def predict_files(self, paths: Sequence[str | Path]) -> np.ndarray:
        """Probabilities float32 (N, 7) of image files of any size; a bad file raises UserError."""
        parts = [np.zeros((0, len(CLASSES)), np.float32)]
        for start in range(0, len(paths), BATCH):
            chunk = paths[start : start + BATCH]
            images = [pixels.read(path, str(path), self.height, self.width) for path in chunk]
            parts.append(self.predict(np.stack(images)))
        return np.concatenate(parts)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The JSON beside a deployed file.

    Raises:
        UserError: it is missing, no JSON, or of another format than this version reads.
    """
    content = read_json(path)
    _require_format(path, content.get("format", FORMAT) if isinstance(content, dict) else None)
    return dict(content)


def without_optimisations(path: Path, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 7) of the graph run literally, and as the runtime optimises it.

    A difference beyond rounding means kernels that overflow on this processor.
    """
    literal, optimised = (Detector(path, optimize=flag).predict(images, rows) for flag in (False, True))
    return literal, optimised


def _open(path: Path, threads: int | None, optimize: bool) -> onnxruntime.InferenceSession:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"model {path} does not exist; `dvc repro ship` makes models/deploy") from None
    except OSError as error:
        raise UserError(f"model {path} cannot be read ({error.strerror}); give an .onnx file") from None
    if EXTERNAL in content:
        raise UserError(f"model {path} keeps weights in another file; use a file that contains all of them")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its failures are reported below, in one sentence
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a different class for each way in which a file is damaged
        if any(text in str(error) for text in NEWER):
            version = onnxruntime.__version__
            raise UserError(
                f"model {path} uses what ONNX Runtime {version} does not know; `pip install --upgrade onnxruntime`"
            ) from None
        raise UserError(f"model {path} is damaged or no ONNX model; restore it with `git checkout`") from None


def _require_format(path: str | Path, stored: object) -> None:
    """A file without a format is older than formats are, and reads as the first one."""
    if str(stored) != FORMAT:
        raise UserError(f"{path} has format {stored}, but this version reads {FORMAT}; install the one that made it")


def _check(path: Path, session: onnxruntime.InferenceSession, metadata: dict[str, str]) -> tuple[int, int]:
    """Height and width of the images, once the file has proved to be one of ours."""
    inputs = [(node.name, node.type, node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, node.type, node.shape[1:]) for node in session.get_outputs()]
    try:
        height, width = int(metadata["height"]), int(metadata["width"])
        ours = (
            metadata["classes"].split(",") == list(CLASSES)
            and inputs == [("image", "tensor(uint8)", [height, width, 3])]
            and outputs == [("probabilities", "tensor(float)", [len(CLASSES)])]
        )
    except (KeyError, ValueError):
        ours = False
    if not ours:
        raise UserError(
            f"model {path} is not a dermdistill model (its inputs, outputs or metadata differ); "
            "use models/deploy/student.int8.onnx"
        )
    return height, width


def _thresholds(path: Path, metadata: dict[str, str]) -> dict[str, float]:
    try:
        stored = json.loads(metadata.get("thresholds", "{}"))
        return {str(name): float(value) for name, value in stored.items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"model {path} has unreadable thresholds; restore it with `git checkout`") from None

"""INT8 candidates of one student, one per scheme, and the layers that suffer most from quantization.

``quantize.candidates`` lists schemes in order of preference; the first within all limits is selected:

- ``default``: what ONNX Runtime does to a whole graph when told nothing else.
- ``per_tensor``: the same, up to the logits: what follows them stays in float, as in every later scheme.
- ``minmax``, ``percentile``, ``entropy``: convolutions per channel with corrected biases; ranges of
  activations from their extremes, their 99.999th percentile, or least Kullback-Leibler divergence.
- ``mixed_N``: as ``minmax``, with the N most sensitive layers left in float. A layer's sensitivity is the
  mean |Δp| when it alone is quantized (Wu et al., 2020, arXiv:2004.09602, section 5), on training images.
- ``qat_N``: as ``minmax``, of a copy trained for N epochs to bear the rounding (:mod:`quantization.qat`).
- ``weight_only``: a small file, computed in float.
- ``dynamic``: ranges of activations measured anew for each image.

Which candidate is selected is decided by accuracy and size on val. Time is measured beside it and decides nothing, so
that two machines select the same file.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermdistill.blocks import Quantize
from dermdistill.core.dataset import Split
from dermdistill.deployment import onnx_export, timing
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.metrics import metrics, parity
from dermdistill.quantization.int8 import Quantizer, overflowing

METHODS = ("minmax", "percentile", "entropy")


def sensitivity(quantizer: Quantizer, images: np.ndarray) -> list[dict[str, Any]]:
    """``{layer, mean_abs_dp}`` of each layer when it alone is quantized, the most sensitive first.

    ``images`` uint8 (n, H, W, 3) are from the training split.
    """
    exact = Detector(quantizer.plain).predict(images)
    file, rows = quantizer.scratch / "one.onnx", []
    for layer in quantizer.layers:
        quantizer.only(file, layer)
        rows.append({"layer": layer, "mean_abs_dp": float(np.abs(Detector(file).predict(images) - exact).mean())})
    return sorted(rows, key=lambda row: -row["mean_abs_dp"])


def build(
    quantizer: Quantizer, schemes: Sequence[str], ranking: Sequence[str], tune: Callable[[int], Any]
) -> dict[str, Path]:
    """Write one file per scheme into the quantizer's scratch folder; ``ranking``: layers, the most sensitive first.

    ``tune(N)`` gives the student after N epochs of quantization-aware training, a training.models.Classifier.
    """
    files = {scheme: quantizer.scratch / f"scheme_{scheme}.onnx" for scheme in schemes}
    whole = {"default": True, "per_tensor": False}
    for scheme, file in files.items():
        if scheme in whole:
            quantizer.default(file, tail=whole[scheme])
        elif scheme in METHODS:
            quantizer.static(file, scheme)  # type: ignore[arg-type]
        elif scheme.startswith("mixed_"):
            quantizer.static(file, "minmax", in_float=ranking[: int(scheme.removeprefix("mixed_"))])
        elif scheme.startswith("qat_"):
            _static_of(tune(int(scheme.removeprefix("qat_"))), quantizer, file)
        else:
            {"dynamic": quantizer.dynamic, "weight_only": quantizer.weight_only}[scheme](file)
    return files


def _static_of(classifier: Any, quantizer: Quantizer, file: Path) -> None:
    """``minmax`` of another student than the quantizer's. Rounded weights leave no bias to correct."""
    folder = file.with_suffix("")
    folder.mkdir()
    onnx_export.to_onnx(classifier, quantizer.images.shape[1], quantizer.images.shape[2], folder / "fp32.onnx")
    Quantizer(folder / "fp32.onnx", quantizer.images, folder).static(file, "minmax")


def measure(
    fp32: Path, files: Mapping[str, Path], images: np.ndarray, val: Split, options: Quantize, sensitivity: float
) -> dict[str, dict[str, Any]]:
    """Scheme → what its file costs on val, its bytes, the limits it violates, and its time, which decides nothing.

    ``images`` uint8 (N, H, W, 3) of which ``val`` names rows; ``sensitivity`` is that of the operating point.
    """
    times, table = time_ratios(fp32, files, images[val.rows[:1]], options.timing_rounds), {}
    predicted = {name: Detector(file).predict(images, val.rows) for name, file in {"fp32": fp32, **files}.items()}
    versions = {name: parity.calibrated(val.labels, p, sensitivity) for name, p in predicted.items()}
    for scheme, file in files.items():
        row = parity.cost(val.labels, versions["fp32"], versions[scheme], options.bins)
        row |= {"bytes": file.stat().st_size, "overflowing_weights": overflowing(file)}
        row["sum_error"] = float(np.abs(predicted[scheme].sum(axis=1) - 1).max())
        violations = parity.violations(row, options.limits.model_dump())
        table[scheme] = metrics.rounded(row) | {"time_ratio": times[scheme], "violations": ", ".join(violations)}
    return table


def select_candidate(table: Mapping[str, Mapping[str, Any]], model_id: str) -> str:
    """The first scheme whose row has no ``violations`` of a limit.

    Raises:
        UserError: there is none; the message lists every violation.
    """
    for scheme, row in table.items():
        if not row["violations"]:
            return scheme
    violations = "; ".join(f"{scheme}: {row['violations']}" for scheme, row in table.items())
    raise UserError(
        f"no scheme of quantize.candidates satisfies quantize.limits for {model_id} on val ({violations}); "
        "add mixed_N or qat_N"
    )


def time_ratios(fp32: Path, files: Mapping[str, Path], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Each file's time for one ``image`` (1, H, W, 3) on one thread, as a share of the FP32 file's in the same run."""
    detectors = {name: Detector(path, threads=1) for name, path in {"fp32": fp32, **files}.items()}
    tasks = {name: functools.partial(detector.predict, image) for name, detector in detectors.items()}
    times = timing.interleaved(tasks, rounds)
    return {name: round(timing.ratio(times, name, "fp32"), 2) for name in files}

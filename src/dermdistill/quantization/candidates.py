"""The rungs of INT8 quantization, and the layers that suffer from it most.

A ladder is a list of rungs in order of preference, from the fastest arithmetic to the least harmful:

- ``naive``: what ONNX Runtime does to a whole graph when asked for nothing else.
- ``per_tensor``: the same, up to the logits: what follows them stays in float, as on every later rung.
- ``minmax``, ``percentile``, ``entropy``: convolutions per channel with corrected biases; ranges of
  activations from their extremes, their 99.999th percentile, or least Kullback-Leibler divergence.
- ``mixed_N``: as ``minmax``, with the N most sensitive layers left in float. A layer's sensitivity is the
  mean |Δp| when it alone is quantized (Wu et al., 2020, arXiv:2004.09602, section 5), on training images.
- ``qat_N``: as ``minmax``, of a copy trained for N epochs to bear the rounding (:mod:`quantization.qat`).
- ``weight_only``: a small file, computed in float.
- ``dynamic``: ranges of activations measured anew for each image.

Which rung is taken is decided by accuracy and size on val. Time is measured beside it and decides nothing, so
that two machines choose the same file.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dermdistill.deployment import onnx_export, timing
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.quantization.int8 import Quantizer

METHODS = ("minmax", "percentile", "entropy")


def sensitivity(maker: Quantizer, images: np.ndarray) -> list[dict[str, Any]]:
    """``{layer, mean_abs_dp}`` of each layer when it alone is quantized, the most sensitive first.

    ``images`` uint8 (n, H, W, 3) are from the training split.
    """
    exact = Detector(maker.plain).predict(images)
    file, found = maker.scratch / "one.onnx", []
    for layer in maker.layers:
        maker.only(file, layer)
        found.append({"layer": layer, "mean_abs_dp": float(np.abs(Detector(file).predict(images) - exact).mean())})
    return sorted(found, key=lambda row: -row["mean_abs_dp"])


def build(
    maker: Quantizer, rungs: Sequence[str], ranking: Sequence[str], tune: Callable[[int], Any]
) -> dict[str, Path]:
    """Write one file per rung into the maker's scratch folder; ``ranking``: layers, the most sensitive first.

    ``tune(N)`` gives the student after N epochs of quantization-aware training, a training.models.Classifier.
    """
    files = {rung: maker.scratch / f"rung_{rung}.onnx" for rung in rungs}
    whole = {"naive": True, "per_tensor": False}
    for rung, file in files.items():
        if rung in whole:
            maker.default(file, tail=whole[rung])
        elif rung in METHODS:
            maker.static(file, rung)  # type: ignore[arg-type]
        elif rung.startswith("mixed_"):
            maker.static(file, "minmax", in_float=ranking[: int(rung.removeprefix("mixed_"))])
        elif rung.startswith("qat_"):
            _static_of(tune(int(rung.removeprefix("qat_"))), maker, file)
        else:
            {"dynamic": maker.dynamic, "weight_only": maker.weight_only}[rung](file)
    return files


def _static_of(classifier: Any, maker: Quantizer, file: Path) -> None:
    """``minmax`` of another student than the maker's. Rounded weights leave no bias to correct."""
    folder = file.with_suffix("")
    folder.mkdir()
    onnx_export.to_onnx(classifier, maker.images.shape[1], maker.images.shape[2], folder / "fp32.onnx")
    Quantizer(folder / "fp32.onnx", maker.images, folder).static(file, "minmax")


def first(table: Mapping[str, Mapping[str, Any]], model_id: str) -> str:
    """The first rung whose row ``breaks`` no limit; UserError with every number that breaks one if there is none."""
    for rung, row in table.items():
        if not row["breaks"]:
            return rung
    told = "; ".join(f"{rung}: {row['breaks']}" for rung, row in table.items())
    raise UserError(
        f"no rung of quantize.ladder holds quantize.limits for {model_id} on val ({told}); add mixed_N or qat_N"
    )


def time_ratios(fp32: Path, files: Mapping[str, Path], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Each file's time for one ``image`` (1, H, W, 3) on one thread, as a share of the FP32 file's in the same run."""
    detectors = {name: Detector(path, threads=1) for name, path in {"fp32": fp32, **files}.items()}
    tasks = {name: functools.partial(detector.predict, image) for name, detector in detectors.items()}
    times = timing.interleaved(tasks, rounds)
    return {name: round(timing.ratio(times, name, "fp32"), 2) for name in files}


def without_optimisations(path: Path, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 7) of the graph run literally, and as the runtime optimises it.

    A difference beyond rounding means kernels that saturate on this processor.
    """
    literal, optimised = (Detector(path, optimize=flag).predict(images, rows) for flag in (False, True))
    return literal, optimised

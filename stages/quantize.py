"""quantize@STUDENT-SEED: climb the ladder of INT8 rungs on val; the first that holds every limit is taken."""

import functools
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, sha256, write_json
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import run
from dermdistill.metrics import metrics, parity
from dermdistill.quantization import candidates, int8, qat
from dermdistill.training import models


def main(student: str, seed: str) -> None:
    settings, model_id = params.load(), f"int8_{student}_s{seed}"
    numbers, folder = settings.quantize, Path(f"models/quantized/{model_id}")
    classifier, card = models.load(f"models/students/student_{student}_s{seed}")
    images, train = load_images(), load_split("train")
    fp32, quantized = folder / "fp32.onnx", folder / "model.onnx"
    exported = onnx_export.to_onnx(classifier, images.shape[1], images.shape[2], fp32)
    rows = int8.choose(train.rows, numbers.calibration_images, numbers.seed)
    with tempfile.TemporaryDirectory() as scratch:
        maker = int8.Quantizer(fp32, images[rows], scratch)
        layers = candidates.sensitivity(maker, images[rows[: numbers.sensitivity_images]])
        tune = functools.partial(qat.fine_tune, classifier, images, train.rows, settings)
        files = candidates.build(maker, numbers.ladder, [row["layer"] for row in layers], tune)
        table = measure(fp32, files, images, settings)
        shutil.copyfile(files[chosen := candidates.first(table, model_id)], quantized)
    write_table(f"plots/quantize/ladder/{model_id}.csv", [{"rung": rung} | row for rung, row in table.items()])
    write_table(f"plots/quantize/sensitivity/{model_id}.csv", layers)
    made = {"calibration_images": len(rows), "seed": numbers.seed, "rung": chosen}
    write_json(folder / "model.json", card | {"id": model_id, "sha256": sha256(quantized), "quantize": made})
    sizes = {"fp32": fp32.stat().st_size, "int8": quantized.stat().st_size}
    report = {"rung": chosen, "bytes": sizes, "ladder": table, "export_logit_difference": exported}
    report |= {
        "optimisations_off": parity.compare(
            *candidates.without_optimisations(quantized, images, load_split("val").rows)
        )
    }
    write_json(f"metrics/quantize/{model_id}.json", metrics.rounded(report, 9))
    tracking.record(f"quantize {model_id}", made, report)


def measure(fp32: Path, files: dict[str, Path], images: np.ndarray, settings: params.Params) -> dict[str, Any]:
    """Every rung on val: what it costs, its bytes, and its time as a share of FP32's, which decides nothing."""
    val, table = load_split("val"), {}
    times = candidates.time_ratios(fp32, files, images[val.rows[:1]], settings.quantize.timing_rounds)
    predicted = {name: Detector(file).predict(images, val.rows) for name, file in {"fp32": fp32, **files}.items()}
    versions = {n: parity.calibrated(val.labels, p, settings.calibrate.sensitivity) for n, p in predicted.items()}
    for rung, file in files.items():
        found = parity.cost(val.labels, versions["fp32"], versions[rung], settings.quantize.bins)
        found |= {"bytes": file.stat().st_size, "saturating_weights": int8.saturating(file)}
        found["sum_error"] = float(np.abs(predicted[rung].sum(axis=1) - 1).max())
        wrong = parity.violations(found, settings.quantize.limits.model_dump())
        table[rung] = metrics.rounded(found) | {"time_ratio": times[rung], "breaks": ", ".join(wrong)}
    return table


def write_table(path: str, rows: list[dict[str, Any]]) -> None:
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Quantize one student to INT8 by every scheme; the first candidate that satisfies all limits on val is selected."""

import functools
import shutil
import sys
import tempfile

import pandas as pd

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import sha256, write_json, write_table
from dermdistill.core.model_id import ModelId
from dermdistill.deployment import onnx_export
from dermdistill.deployment.runtime import without_optimisations
from dermdistill.errors import run
from dermdistill.metrics import metrics, parity
from dermdistill.quantization import candidates, qat
from dermdistill.quantization.int8 import Quantizer, choose
from dermdistill.training import models


def main(name: str, seed: str) -> None:
    settings, student = params.load(), ModelId("student", name, int(seed))
    options, model_id = settings.quantize, student.of_kind("int8")
    folder, (classifier, metadata) = model_id.folder, models.load(student.folder)
    images, train, val = load_images(), load_split("train"), load_split("val")
    fp32, int8 = folder / "fp32.onnx", folder / "model.onnx"
    difference = onnx_export.to_onnx(classifier, images.shape[1], images.shape[2], fp32)
    rows = choose(train.rows, options.calibration_images, options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        quantizer = Quantizer(fp32, images[rows], scratch)
        layers = candidates.sensitivity(quantizer, images[rows[: options.sensitivity_images]])
        tune = functools.partial(qat.fine_tune, classifier, images, train.rows, settings)
        files = candidates.build(quantizer, options.candidates, [row["layer"] for row in layers], tune)
        table = candidates.measure(fp32, files, images, val, options, settings.calibrate.sensitivity)
        shutil.copyfile(files[scheme := candidates.select_candidate(table, str(model_id))], int8)
    write_table(folder / "candidates.csv", pd.DataFrame([{"scheme": name} | row for name, row in table.items()]))
    write_table(folder / "sensitivity.csv", pd.DataFrame(layers))
    made = {"calibration_images": len(rows), "seed": options.seed, "scheme": scheme}
    write_json(folder / "model.json", metadata | {"id": str(model_id), "sha256": sha256(int8), "quantize": made})
    sizes = {"fp32": fp32.stat().st_size, "int8": int8.stat().st_size}
    report = {"scheme": scheme, "bytes": sizes, "candidates": table, "export_logit_difference": difference}
    report |= {"optimisations_off": parity.compare(*without_optimisations(int8, images, val.rows))}
    write_json(folder / "report.json", metrics.rounded(report, 9))
    tracking.record(f"quantize {model_id}", made, report)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

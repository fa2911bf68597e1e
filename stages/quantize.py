"""quantize@STUDENT-SEED: export a student, make it INT8 with training images, measure the change on val."""

import sys
from pathlib import Path

from dermdistill import params, tracking
from dermdistill.data.dataset import load_images, load_split
from dermdistill.deployment import export, quantize
from dermdistill.errors import run
from dermdistill.files import sha256, write_json
from dermdistill.learning import models


def main(student: str, seed: str) -> None:
    settings = params.load().quantize
    model_id, folder = f"int8_{student}_s{seed}", Path(f"models/quantized/int8_{student}_s{seed}")
    classifier, card = models.load(f"models/students/student_{student}_s{seed}")
    images, train, val = load_images(), load_split("train"), load_split("val")
    height, width = images.shape[1:3]
    fp32, int8 = folder / "fp32.onnx", folder / "model.onnx"
    exported = export.to_onnx(classifier, height, width, fp32)
    rows = quantize.choose(train.rows, settings.calibration_images, settings.seed)
    quantize.quantize(fp32, int8, images[rows], settings.method)
    report = quantize.parity(fp32, int8, images, val.rows, val.labels)
    numbers = settings.model_dump() | {"calibration_images": len(rows)}
    write_json(folder / "model.json", card | {"id": model_id, "sha256": sha256(int8), "quantize": numbers})
    report |= {"export_logit_difference": exported}
    write_json(f"metrics/quantize/{model_id}.json", report)
    tracking.record(f"quantize {model_id}", numbers, report)


if __name__ == "__main__":
    run(main, *sys.argv[1:])

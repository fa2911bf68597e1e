"""Calibrate and label the chosen INT8 model; refuse to deploy it unless val proves that it is what was evaluated.

What INT8 may lose against its FP32 student is the business of `quantize`, which selects no candidate that loses more.
"""

import sys
from pathlib import Path

import numpy as np

from dermdistill import params, tracking
from dermdistill.core.classes import MELANOMA
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, read_json, sha256, write_json
from dermdistill.core.model_id import ModelId
from dermdistill.deployment import example, onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError, run
from dermdistill.metrics import calibration, metrics, parity, predictions, selective

TARGET = Path("models/deploy/student.int8.onnx")
LARGEST = 4_000_000  # bytes: it stands in git, and phones download it


def main() -> None:
    settings = params.load()
    model_id = settings.shipped
    folder, calibrated = ModelId.parse(model_id).folder, f"metrics/calibrate/{model_id}.json"
    fitted, rules = calibration.read(calibrated), selective.read(calibrated)
    val = predictions.read(f"predictions/val/{model_id}.csv")
    weights = str(read_json(folder / "model.json")["initial_weights"])
    origin = {"id": model_id, "initial_weights": weights, "selective": rules.to_text()}
    origin["calibration_sha256"] = sha256(calibrated)
    with atomic(TARGET) as path:
        metadata = onnx_export.ship(folder / "model.onnx", path, fitted.to_dict(), origin)
        report = {"bytes": path.stat().st_size} | deviation(path, val, fitted)
        limits = {"max_bytes": LARGEST, "max_decisions_differ": 0, "max_max_abs_dp": settings.ship.tolerance}
        if violations := parity.violations(report, limits):
            raise UserError(f"{TARGET} is not deployed: on val {', '.join(violations)}; change quantize.* or retrain")
        answer = example.write(path, TARGET.parent)
    metadata = {"model": TARGET.name, "bytes": report["bytes"]} | metadata | {"example": answer}
    write_json(TARGET.with_suffix(".json"), metadata)
    write_json("metrics/ship.json", {"id": model_id, "sha256": metadata["sha256"]} | metrics.rounded(report, 9))
    tracking.shipped(TARGET, metadata)


def deviation(path: Path, val: predictions.Predictions, fitted: calibration.Calibration) -> dict[str, float]:
    """On val, how far the file's probabilities are from those evaluated, and how many decisions differ."""
    split = load_split("val")
    if split.image_id != val.image_id.tolist():
        raise UserError("the val predictions are not of the images in data/splits/val.csv; run `dvc repro`")
    deployed, evaluated = Detector(path).predict(load_images(), split.rows), fitted.apply(val.probabilities)
    both = [p[:, MELANOMA, None] >= np.array(list(fitted.thresholds.values())) for p in (deployed, evaluated)]
    return parity.compare(evaluated, deployed) | {"decisions_differ": int((both[0] != both[1]).sum())}


if __name__ == "__main__":
    run(main, *sys.argv[1:])

"""Calibrate and label the chosen INT8 file; refuse unless val proves that it is what was evaluated.

What INT8 may lose against its FP32 student is the business of `quantize`, which took no rung that loses more.
"""

import sys
from pathlib import Path

import numpy as np

from dermdistill import params, tracking
from dermdistill.core.classes import MELANOMA
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, read_json, sha256, write_json
from dermdistill.deployment import example, onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError, run
from dermdistill.metrics import calibration, metrics, parity, predictions, selective

TARGET = Path("models/deploy/student.int8.onnx")
LARGEST = 4_000_000  # bytes: it stands in git, and phones download it


def main() -> None:
    model_id, tolerance = params.load().shipped, params.load().ship.tolerance
    source = f"metrics/calibrate/{model_id}.json"
    fitted, rules = calibration.read(source), selective.read(source)
    val = predictions.read(f"predictions/val/{model_id}.csv")
    card = read_json(f"models/quantized/{model_id}/model.json")
    origin = {"id": model_id, "initial_weights": str(card["initial_weights"]), "selective": rules.to_text()}
    origin["calibration_sha256"] = sha256(source)
    with atomic(TARGET) as path:
        text = onnx_export.ship(f"models/quantized/{model_id}/model.onnx", path, fitted.to_dict(), origin)
        report = {"bytes": path.stat().st_size} | strays(path, val, fitted)
        limits = {"max_bytes": LARGEST, "max_decisions_differ": 0, "max_max_abs_dp": tolerance}
        if wrong := parity.violations(report, limits):
            raise UserError(f"{TARGET} is not shipped: on val {', '.join(wrong)}; change quantize.* or retrain")
        shown, told = example.write(path, TARGET.parent)
    card_shipped = {"model": TARGET.name, "bytes": report["bytes"]} | text | {"example": told}
    write_json(TARGET.with_suffix(".json"), card_shipped)
    write_json("metrics/ship.json", {"id": model_id, "sha256": text["sha256"]} | metrics.rounded(report, 9))
    tracking.shipped(TARGET, card_shipped, shown, np.array([told["probabilities"]], np.float32))


def strays(path: Path, val: predictions.Predictions, fitted: calibration.Calibration) -> dict[str, float]:
    """On val, how far the file's probabilities are from those evaluated, and how many decisions differ."""
    split = load_split("val")
    if split.image_id != val.image_id.tolist():
        raise UserError("the val predictions are not of the images in data/splits/val.csv; run `dvc repro`")
    shipped, evaluated = Detector(path).predict(load_images(), split.rows), fitted.apply(val.probabilities)
    both = [p[:, MELANOMA, None] >= np.array(list(fitted.thresholds.values())) for p in (shipped, evaluated)]
    return parity.compare(evaluated, shipped) | {"decisions_differ": int((both[0] != both[1]).sum())}


if __name__ == "__main__":
    run(main, *sys.argv[1:])

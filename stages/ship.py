"""Calibrate and label the chosen INT8 file; refuse unless val proves that it is what was evaluated."""

import sys
from pathlib import Path

import numpy as np

from dermdistill import params, tracking
from dermdistill.classes import MELANOMA
from dermdistill.data.dataset import load_images, load_split
from dermdistill.deployment import export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError, run
from dermdistill.evaluation import calibration, metrics, predictions, selective
from dermdistill.files import atomic, read_json, write_json

TARGET = Path("models/deploy/student.int8.onnx")
LARGEST = 4_000_000  # bytes: it stands in git, and phones download it


def main() -> None:
    model_id, limits = params.load().shipped, params.load().ship
    fitted = calibration.read(f"metrics/calibrate/{model_id}.json")
    pair = (f"student_{limits.student}_s{limits.seed}", model_id)
    fp32, int8 = (predictions.read(f"predictions/val/{name}.csv") for name in pair)
    card = read_json(f"models/quantized/{model_id}/model.json")
    rules = selective.read(f"metrics/calibrate/{model_id}.json")
    origin = {"id": model_id, "initial_weights": str(card["initial_weights"]), "selective": rules.to_text()}
    with atomic(TARGET) as path:
        text = export.ship(f"models/quantized/{model_id}/model.onnx", path, fitted.to_dict(), origin)
        report = {"bytes": path.stat().st_size} | strays(path, int8, fitted) | cost(fp32, int8)
        refuse(report, limits)
    card_shipped = {"model": TARGET.name, "bytes": report["bytes"]} | text
    write_json(TARGET.with_suffix(".json"), card_shipped)
    write_json("metrics/ship.json", {"id": model_id, "sha256": text["sha256"]} | metrics.rounded(report, 9))
    shipped = Detector(TARGET)
    example = np.full((1, shipped.height, shipped.width, 3), 180, np.uint8)  # no image of the data set leaves here
    tracking.shipped(TARGET, card_shipped, example, shipped.predict(example))


def strays(path: Path, val: predictions.Predictions, fitted: calibration.Calibration) -> dict[str, float]:
    """On val, how far the file's probabilities are from those evaluated, and how many decisions differ."""
    split = load_split("val")
    if split.image_id != val.image_id.tolist():
        raise UserError("the val predictions are not of the images in data/splits/val.csv; run `dvc repro`")
    shipped, evaluated = Detector(path).predict(load_images(), split.rows), fitted.apply(val.probabilities)
    both = [p[:, MELANOMA, None] >= np.array(list(fitted.thresholds.values())) for p in (shipped, evaluated)]
    return {"max_abs_dp": float(np.abs(shipped - evaluated).max()), "decisions_differ": int((both[0] != both[1]).sum())}


def cost(fp32: predictions.Predictions, int8: predictions.Predictions) -> dict[str, float]:
    """What INT8 lost on val, from raw probabilities."""
    predictions.require_same_images(fp32, int8)
    auc = [metrics.roc_auc(p.melanoma, p.p_melanoma) or 0.0 for p in (fp32, int8)]
    same = fp32.probabilities.argmax(axis=1) == int8.probabilities.argmax(axis=1)
    return {"auc_fp32": auc[0], "auc_int8": auc[1], "auc_drop": auc[0] - auc[1], "agreement": float(same.mean())}


def refuse(report: dict[str, float], limits: params.Ship) -> None:
    """Raise UserError naming every limit that is broken; NaN breaks any."""
    most = {"bytes": LARGEST, "decisions_differ": 0, "max_abs_dp": limits.tolerance, "auc_drop": limits.max_auc_drop}
    wrong = [f"{key} {report[key]:.4g} (allowed {limit:g})" for key, limit in most.items() if not report[key] <= limit]
    if not report["agreement"] >= limits.min_agreement:
        wrong.append(f"agreement {report['agreement']:.4g} (needed {limits.min_agreement:g})")
    if wrong:
        raise UserError(f"{TARGET} is not shipped: on val {', '.join(wrong)}; change quantize.* or retrain")


if __name__ == "__main__":
    run(main, *sys.argv[1:])

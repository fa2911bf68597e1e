"""Write the student that ships in every format, run each on all of val, and refuse what strays from PyTorch."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, write_json
from dermdistill.deployment import formats, onnx_export
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError, run
from dermdistill.evaluation import comparison
from dermdistill.metrics import calibration, metrics, parity, predictions
from dermdistill.quantization import candidates, int8
from dermdistill.training import models

FOLDER, SHIPPED = Path("models/exported"), Path("models/deploy/student.int8.onnx")


def main() -> None:
    settings = params.load()
    student = settings.shipped.replace("int8", "student", 1)
    fitted = calibration.read(f"metrics/calibrate/{student}.json")
    val = predictions.read(f"predictions/val/{student}.csv")
    exact = parity.Version(fitted.apply(val.probabilities), fitted.thresholds["sensitivity"])
    limits = settings.export.max_dp, settings.quantize.limits.model_dump(), settings.export.max_dp_unoptimised
    with ExitStack() as unfinished:  # what is refused never has its final name
        files = write(settings, student, fitted, unfinished)
        found = {name: measure(name, path, val, exact, settings) for name, path in files.items()}
        if wrong := [
            f"{name}: {item}" for name, row in found.items() for item in parity.export_violations(row, *limits)
        ]:
            raise UserError(f"exports stray from PyTorch on val ({'; '.join(wrong)}); change export.* or quantize.*")
    report = {"reference": f"{student}, PyTorch", "n": len(val), "formats": found}
    write_json("metrics/export.json", metrics.rounded(report, 9))
    tracking.record(f"export {student}", settings.export.model_dump(), report)


def write(
    settings: params.Params, student: str, fitted: calibration.Calibration, unfinished: ExitStack
) -> dict[str, Path]:
    """The files by format, all calibrated, ``unfinished`` until that ends; INT8 ONNX is the shipped file itself."""
    rows = int8.choose(load_split("train").rows, settings.quantize.calibration_images, settings.quantize.seed)
    classifier, card = models.load(f"models/students/{student}")
    model = formats.calibrated(classifier, fitted.temperature, fitted.bias)
    files = {name: unfinished.enter_context(atomic(FOLDER / formats.FILES[name])) for name in settings.export.formats}
    for name, path in files.items():
        if name == "onnx":
            source, origin = f"models/quantized/{settings.shipped}/fp32.onnx", {"id": student}
            onnx_export.ship(source, path, fitted.to_dict(), origin | {"initial_weights": str(card["initial_weights"])})
        else:
            formats.write(name, model, path, load_images()[rows])
    return files | {"onnx_int8": SHIPPED}


def measure(name: str, path: Path, val: predictions.Predictions, exact: parity.Version, settings: params.Params) -> Any:
    """All of val through one file, at each batch size."""
    images, rows, run_on = load_images(), load_split("val").rows, formats.runner(name, path)
    answers = {batch: formats.batched(run_on, images, rows, batch) for batch in formats.batches(name)}
    true, draws = exact.probabilities, (settings.evaluate.bootstrap, settings.evaluate.seed)
    row: dict[str, Any] = {f"batch_{batch}": parity.compare(true, p) for batch, p in answers.items()}
    row |= {"bytes": path.stat().st_size} | comparison.auc_change(val.labels, val.lesion_id, true, answers[1], *draws)
    if name.endswith("int8"):
        threshold = Detector(path).thresholds["sensitivity"] if name == "onnx_int8" else exact.threshold
        row["cost"] = parity.cost(val.labels, exact, parity.Version(answers[1], threshold), settings.quantize.bins)
    if name == "onnx_int8":
        row["optimisations_off"] = parity.compare(*candidates.without_optimisations(path, images, rows))
    return row


if __name__ == "__main__":
    run(main, *sys.argv[1:])

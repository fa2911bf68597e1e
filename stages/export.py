"""Write the deployed student in every format, run each on all of val, and refuse what deviates from PyTorch."""

import sys
from contextlib import ExitStack
from pathlib import Path

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images, load_split
from dermdistill.core.files import atomic, write_json
from dermdistill.core.model_id import ModelId
from dermdistill.deployment import exports, formats, onnx_export
from dermdistill.errors import UserError, run
from dermdistill.metrics import calibration, metrics, parity, predictions
from dermdistill.quantization.int8 import choose
from dermdistill.training import models

FOLDER, DEPLOYED = Path("models/exported"), Path("models/deploy/student.int8.onnx")


def main() -> None:
    settings = params.load()
    student = ModelId.parse(settings.shipped).of_kind("student")
    fitted = calibration.read(f"metrics/calibrate/{student}.json")
    val = predictions.read(f"predictions/val/{student}.csv")
    exact = parity.Version(fitted.apply(val.probabilities), fitted.thresholds["sensitivity"])
    limits = settings.export.max_dp, settings.quantize.limits.model_dump(), settings.export.max_dp_unoptimised
    with ExitStack() as unfinished:  # what is refused never has its final name
        files = write(settings, student, fitted, unfinished) | {"onnx_int8": DEPLOYED}
        bins, resamples = settings.quantize.bins, (settings.evaluate.bootstrap, settings.evaluate.seed)
        rows = {name: exports.measure(name, path, val, exact, bins, *resamples) for name, path in files.items()}
        if wrong := [f"{name}: {one}" for name, row in rows.items() for one in parity.export_violations(row, *limits)]:
            raise UserError(f"exports deviate from PyTorch on val ({'; '.join(wrong)}); change export.* or quantize.*")
    report = {"reference": f"{student}, PyTorch", "n": len(val), "formats": rows}
    write_json("metrics/export.json", metrics.rounded(report, 9))
    tracking.record(f"export {student}", settings.export.model_dump(), report)


def write(
    settings: params.Params, student: ModelId, fitted: calibration.Calibration, unfinished: ExitStack
) -> dict[str, Path]:
    """The files by format, all calibrated, ``unfinished`` until that ends."""
    rows = choose(load_split("train").rows, settings.quantize.calibration_images, settings.quantize.seed)
    classifier, metadata = models.load(student.folder)
    model = formats.calibrated(classifier, fitted.temperature, fitted.bias)
    files: dict[str, Path] = {
        name: unfinished.enter_context(atomic(FOLDER / formats.FILES[name])) for name in settings.export.formats
    }
    for name, path in files.items():
        if name == "onnx":
            origin = {"id": str(student), "initial_weights": str(metadata["initial_weights"])}
            onnx_export.ship(student.of_kind("int8").folder / "fp32.onnx", path, fitted.to_dict(), origin)
        else:
            formats.write(name, model, path, load_images()[rows])
    return files


if __name__ == "__main__":
    run(main, *sys.argv[1:])

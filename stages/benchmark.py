"""Time teachers, students and INT8 files beside each other on this machine; only the ratios mean anything elsewhere."""

import sys
import tempfile
from pathlib import Path

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images
from dermdistill.core.files import write_json
from dermdistill.core.model_id import ModelId
from dermdistill.deployment import benchmark, formats, onnx_export
from dermdistill.deployment.benchmark import Entry
from dermdistill.errors import run
from dermdistill.training import models

DEPLOYED = Path("models/deploy/student.int8.onnx")


def main() -> None:
    settings, size = params.load(), load_images().shape[1:3]
    options = settings.benchmark
    with tempfile.TemporaryDirectory() as scratch:
        entries = choose(settings, size, Path(scratch))
        times = f"{settings.shipped} onnx_int8"
        report = benchmark.report(entries, size, DEPLOYED, times, options.rounds, options.batch_rounds)
    write_json("metrics/benchmark.json", report)
    tracking.record("benchmark", options.model_dump(), report["times_int8"])


def choose(settings: params.Params, size: tuple[int, int], scratch: Path) -> list[Entry]:
    """Each teacher and the students in PyTorch and ONNX, INT8 files, and the exports of the deployed student."""
    entries = []
    for name in settings.kd.teachers:
        teacher, file = ModelId("teacher", name), scratch / f"{name}.onnx"
        onnx_export.to_onnx(models.load(teacher.folder)[0], size[0], size[1], file)
        entries += [Entry(str(teacher), "eager", teacher.folder), Entry(str(teacher), "onnx", file)]
    for name in settings.run.students:
        student = ModelId("student", name, settings.ship.seed)
        int8 = student.of_kind("int8")
        entries += [
            Entry(str(student), "eager", student.folder),
            Entry(str(student), "onnx", int8.folder / "fp32.onnx"),
        ]
        entries += [Entry(str(int8), "onnx_int8", int8.folder / "model.onnx")]
    deployed = str(ModelId.parse(settings.shipped).of_kind("student"))
    others = [name for name in settings.export.formats if name != "onnx"]
    entries += [Entry(deployed, name, Path("models/exported") / formats.FILES[name]) for name in others]
    return entries + [e._replace(kind="eager_cuda") for e in entries if e.kind == "eager" and benchmark.cuda()]


if __name__ == "__main__":
    run(main, *sys.argv[1:])

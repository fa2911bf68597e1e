"""Time teachers, students and INT8 files beside each other on this machine; only the ratios mean anything elsewhere."""

import os
import tempfile
from pathlib import Path
from typing import Any

from dermdistill import params, tracking
from dermdistill.core.dataset import load_images
from dermdistill.core.files import write_json
from dermdistill.deployment import benchmark, formats, onnx_export
from dermdistill.deployment.benchmark import Entry
from dermdistill.errors import run
from dermdistill.training import models


def main() -> None:
    settings = params.load()
    numbers, size, before = settings.benchmark, load_images().shape[1:3], benchmark.machine()
    with tempfile.TemporaryDirectory() as scratch:
        entries = chosen(settings, size, Path(scratch))
        report: dict[str, Any] = {
            "machine": before | {"note": "ratios hold within this run; a load average above the cores disturbed it"},
            "models": {model: facts(settings, model, size) for model in dict.fromkeys(e.model for e in entries)},
            "static": {e.name: benchmark.static(e, size) for e in entries},
            "latency": {},
            "predict_one_jpeg": benchmark.predict_one_jpeg(Path("models/deploy/student.int8.onnx"), numbers.rounds),
        }
        for threads in sorted({1, os.cpu_count() or 1}):
            for batch in (1, 32):
                rounds = numbers.rounds if batch == 1 else numbers.batch_rounds
                times = benchmark.measure(entries, size, threads, batch, rounds)
                rows = {name: benchmark.summary(one, batch, threads == 1) for name, one in times.items()}
                report["latency"][f"{threads} thread{'s' * (threads > 1)}, batch {batch}"] = rows
                if (threads, batch) == (1, 1):
                    int8 = f"{settings.shipped} onnx_int8"
                    report["times_int8"] = {c: benchmark.ratios(times, int8, c) for c in ("cpu", "wall")}
    report["sentences"] = benchmark.sentences(report["latency"])
    report["machine"]["load_average_after"] = benchmark.machine()["load_average"]
    write_json("metrics/benchmark.json", report)
    tracking.record("benchmark", numbers.model_dump(), report["times_int8"])


def chosen(settings: params.Params, size: Any, scratch: Path) -> list[Entry]:
    """Each teacher and the students in PyTorch and ONNX, INT8 files, and the exports of the student that ships."""
    seed, entries = settings.ship.seed, []
    for name in settings.kd.teachers:
        folder, file = Path(f"models/teachers/teacher_{name}"), scratch / f"{name}.onnx"
        onnx_export.to_onnx(models.load(folder)[0], size[0], size[1], file)
        entries += [Entry(folder.name, "eager", folder), Entry(folder.name, "onnx", file)]
    for name in settings.run.students:
        student, int8 = f"student_{name}_s{seed}", Path(f"models/quantized/int8_{name}_s{seed}")
        entries += [Entry(student, "eager", Path(f"models/students/{student}"))]
        entries += [Entry(student, "onnx", int8 / "fp32.onnx"), Entry(int8.name, "onnx_int8", int8 / "model.onnx")]
    shipped = settings.shipped.replace("int8", "student", 1)
    others = [name for name in settings.export.formats if name != "onnx"]
    entries += [Entry(shipped, name, Path("models/exported") / formats.FILES[name]) for name in others]
    return entries + [e._replace(kind="eager_cuda") for e in entries if e.kind == "eager" and benchmark.cuda()]


def facts(settings: params.Params, model: str, size: Any) -> dict[str, int]:
    """Parameters and multiply-adds of one image."""
    folder = Path("models") / ("teachers" if model.startswith("teacher_") else "students")
    folder /= model.replace("int8_", "student_", 1)
    return {"parameters": models.read_metadata(folder)["parameters"], "macs": benchmark.macs(folder, size)}


if __name__ == "__main__":
    run(main)

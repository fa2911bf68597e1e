"""What each model costs to run, in each format: size, work, load time, latency, throughput, memory.

All models of one condition (threads, batch) take turns, so what disturbs one disturbs all and only the
*ratios* carry over to another day or machine. Wall time is what a user waits; on one thread the processor
time of the same calls stands beside it, which other programs on the machine disturb far less. Peak memory
is that of a fresh process which loads the model, its libraries included, and predicts once.

Random pixels serve as input: no kernel here is faster or slower for another picture. Deliberately absent:
warm-up beyond three calls, and the choice of a fastest run (the spread is part of the result).
"""

import functools
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dermdistill.core.model_id import ModelId
from dermdistill.deployment import formats, timing
from dermdistill.deployment.runtime import Detector
from dermdistill.ingest import pixels

FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
THREAD_FREE = ("executorch", "executorch_int8")  # sizes its own thread pool: measured on all threads only


class Entry(NamedTuple):
    """One model in one format; ``kind``: eager | eager_cuda | onnx | onnx_int8 | torch_export | executorch…"""

    model: str
    kind: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.model} {self.kind}"


def report(
    entries: Sequence[Entry], size: tuple[int, int], deployed: Path, times: str, rounds: int, batch_rounds: int
) -> dict[str, Any]:
    """The content of ``metrics/benchmark.json``; ``times`` names the entry whose latency the others' are divided by."""
    result: dict[str, Any] = {
        "machine": machine() | {"note": "ratios hold within this run; a load average above the cores disturbed it"},
        "models": {model: network(ModelId.parse(model), size) for model in dict.fromkeys(e.model for e in entries)},
        "static": {e.name: static(e, size) for e in entries},
        "latency": {},
        "predict_one_jpeg": predict_one_jpeg(deployed, rounds),
    }
    for threads in sorted({1, os.cpu_count() or 1}):
        for batch in (1, 32):
            calls = measure(entries, size, threads, batch, rounds if batch == 1 else batch_rounds)
            rows = {name: summary(one, batch, threads == 1) for name, one in calls.items()}
            result["latency"][f"{threads} thread{'s' * (threads > 1)}, batch {batch}"] = rows
            if (threads, batch) == (1, 1):
                result["times_int8"] = {clock: ratios(calls, times, clock) for clock in ("cpu", "wall")}
    result["sentences"] = sentences(result["latency"])
    result["machine"]["load_average_after"] = machine()["load_average"]
    return result


def network(model_id: ModelId, size: tuple[int, int]) -> dict[str, int]:
    """Parameters, and multiply-adds for one image, of the PyTorch network that ``model_id`` is or was made from."""
    from dermdistill.training import models

    folder = (model_id.of_kind("student") if model_id.kind == "int8" else model_id).folder
    return {"parameters": models.read_metadata(folder)["parameters"], "macs": macs(folder, size)}


def load(entry: Entry, threads: int) -> formats.Runner:
    """Open a model on that many threads (of PyTorch: of the whole process)."""
    if entry.kind.startswith("onnx"):
        return Detector(entry.path, threads=threads).predict
    if entry.kind in THREAD_FREE:
        return formats.run_executorch(entry.path)
    import torch

    torch.set_num_threads(threads)
    if entry.kind == "torch_export":
        return formats.run_torch_export(entry.path)
    return formats.run_eager(entry.path, "cuda" if entry.kind.endswith("cuda") else "cpu")


def measure(
    entries: Sequence[Entry], size: tuple[int, int], threads: int, batch: int, rounds: int
) -> dict[str, dict[str, np.ndarray]]:
    """Seconds per call of each entry, taking turns: see :func:`timing.interleaved`.

    Formats that cannot be held to one thread, or take one image only, are left out where that does not apply.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    tasks = {e.name: functools.partial(load(e, threads), images) for e in entries if applies(e.kind, threads, batch)}
    return timing.interleaved(tasks, rounds)


def applies(kind: str, threads: int, batch: int) -> bool:
    cores = os.cpu_count() or 1
    return batch in formats.batches(kind) and (kind not in THREAD_FREE or threads == cores)


def summary(times: Mapping[str, np.ndarray], batch: int, single: bool) -> dict[str, float]:
    """Milliseconds per call, and images per second at the median."""
    wall = 1000 * times["wall"]
    p50, p90, p99 = np.quantile(wall, (0.5, 0.9, 0.99))
    row = {"mean": wall.mean(), "sd": wall.std(ddof=1) if len(wall) > 1 else 0.0, "p50": p50, "p90": p90, "p99": p99}
    row["images_per_second"] = 1000 * batch / p50
    if single:
        row["cpu_p50"] = float(np.median(1000 * times["cpu"]))
    return {name: round(float(value), 3) for name, value in row.items()}


def ratios(times: Mapping[str, Mapping[str, np.ndarray]], of: str, clock: str) -> dict[str, float]:
    """How many times as long as ``of`` every other one took, median over rounds."""
    return {name: round(timing.ratio(times, name, of, clock), 2) for name in times if name != of}


def static(entry: Entry, size: tuple[int, int]) -> dict[str, Any]:
    """Bytes, seconds to load (median of three, files warm), peak memory in MB of a fresh process."""
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        load(entry, 1)
        seconds.append(time.perf_counter() - start)
    files = [entry.path] if entry.path.is_file() else sorted(entry.path.glob("*.safetensors"))
    entry_code = f"b.Entry({entry.model!r}, {entry.kind!r}, {str(entry.path)!r}), {tuple(size)}"
    code = f"from dermdistill.deployment import benchmark as b; print(b.peak({entry_code}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=_environment())
    peak = float(done.stdout.splitlines()[-1])
    return {
        "bytes": sum(path.stat().st_size for path in files),
        "load_ms": round(1000 * statistics.median(seconds), 1),
        "peak_memory_mb": round(peak, 1),
    }


def peak(entry: Entry, size: tuple[int, int]) -> float:
    """MB this process has held at most, once it has opened the model and predicted."""
    load(entry._replace(path=Path(entry.path)), 1)(np.zeros((1, *size, 3), np.uint8))
    status = Path("/proc/self/status")
    if status.is_file():  # Linux's ru_maxrss begins with the parent's, which exec does not reset
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # macOS counts bytes


def macs(folder: Path, size: tuple[int, int]) -> int:
    """Multiply-adds for one image of the PyTorch model in ``folder``."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from dermdistill.training import models

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        models.load(folder)[0](torch.zeros(1, 3, *size))
    return int(counter.get_total_flops() // 2)


def sentences(latency: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Where a model's INT8 file is slower than its own FP32 file in the same runtime, in words; or that none is."""
    slower = []
    for condition, rows in latency.items():
        clock = "cpu_p50" if all("cpu_p50" in row for row in rows.values()) else "p50"
        for name, row in rows.items():
            model, kind = name.split()
            fp32 = f"{ModelId.parse(model).of_kind('student')} {kind.removesuffix('_int8')}"
            if name.endswith("_int8") and fp32 in rows and row[clock] > rows[fp32][clock]:
                ratio = row[clock] / rows[fp32][clock]
                slower.append(f"With {condition}, {name} is slower than {fp32}: it takes {ratio:.2f} times as long.")
    return slower or ["No INT8 file is slower than its FP32 file in the same runtime."]


def predict_one_jpeg(model: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of what `dermdistill predict` does with a 600 × 450 JPEG: decoding, predicting, and the command."""
    detector = Detector(model, threads=1)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "photo.jpg"
        shade = np.linspace(40, 220, 450 * 600 * 3).reshape(450, 600, 3)
        noise = np.random.default_rng(0).normal(0, 12, shade.shape)
        Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(path, quality=90)
        read = functools.partial(pixels.read, path, "photo.jpg", detector.height, detector.width)
        predict = functools.partial(detector.predict, read()[None])
        command = [sys.executable, "-m", "dermdistill.cli", "predict", str(path), "--model", str(model)]
        shell = functools.partial(subprocess.run, command, check=True, capture_output=True, env=_environment())
        times = timing.interleaved({"decode": read, "predict": predict}, rounds)
        times |= timing.interleaved({"command": shell}, 5, warmup=1)
    medians = {f"{name}_ms": round(1000 * float(np.median(one["wall"])), 2) for name, one in times.items()}
    return medians | {
        f"{name}_cpu_ms": round(1000 * float(np.median(times[name]["cpu"])), 2) for name in ("decode", "predict")
    }


def _environment() -> dict[str, str]:
    """For a fresh process that imports what this one does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def machine() -> dict[str, Any]:
    """Processor, those of its features that INT8 kernels use, cores, and what else it was doing."""
    flags: set[str] = set()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features"):
                flags |= set(value.split())
            elif key.strip() == "model name":
                name = value.strip()
    return {
        "processor": name,
        "features": [feature for feature in FEATURES if feature in flags],
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
    }

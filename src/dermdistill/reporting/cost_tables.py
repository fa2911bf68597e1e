"""Tables of what a model costs: formats beside PyTorch, size and memory, latency under each condition.

They word ``metrics/export.json`` and ``metrics/benchmark.json``. Deliberately absent: any figure of accuracy on the
holdout (that is beside the costs in ``pareto``), and a ranking.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dermdistill.reporting.cells import Cell, Table, bounds, number, percent


def formats_table(exports: Mapping[str, Any]) -> Table:
    """One row per exported format: how far it is from the student in PyTorch, on val."""
    rows = []
    for name, found in exports["formats"].items():
        one, cost = found["batch_1"], found.get("cost", {})
        change = Cell(number(found["auc_change"], 4), bounds((found["auc_low"], found["auc_high"]), 4))
        far = [Cell(f"{one[key]:.2g}") for key in ("max_abs_dp", "mean_abs_dp")]
        same = Cell(percent(cost.get("equal_decisions"), 1))
        size = Cell(f"{found['bytes'] / 1e6:.2f}")
        rows.append([Cell(name), size, *far, Cell(percent(one["agreement"], 1)), same, change])
    caption = (
        f"Each format run on all {exports['n']:,} images of validation, one by one, beside {exports['reference']}. "
        "INT8 formats: decisions at the threshold that ships. The change of melanoma AUC has a paired 95 % interval."
    )
    head = ["format", "MB", "largest |Δp|", "mean |Δp|", "same diagnosis", "same decision", "change of AUC"]
    return Table(caption, head, rows)


def size_table(benchmark: Mapping[str, Any]) -> Table:
    """One row per model and format: parameters, work, bytes, loading, memory."""
    rows = []
    for entry, found in benchmark["static"].items():
        model = benchmark["models"][entry.split()[0]]
        cells = [f"{model['parameters'] / 1e6:.2f}", f"{model['macs'] / 1e6:.0f}", f"{found['bytes'] / 1e6:.2f}"]
        cells += [f"{found['load_ms']:.0f}", f"{found['peak_memory_mb']:.0f}"]
        rows.append([Cell(entry), *map(Cell, cells)])
    head = ["model and format", "parameters, M", "multiply-adds, M", "MB", "load, ms", "peak memory, MB"]
    return Table("Size and memory; peak of a fresh process with its libraries, after one image.", head, rows)


def latency_tables(benchmark: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each number of threads and images at once; the first says how many times as long as INT8."""
    times = benchmark["times_int8"]["cpu"]
    for condition, found in benchmark["latency"].items():
        first = condition == next(iter(benchmark["latency"]))
        rows = []
        for entry, row in found.items():
            cells = [f"{row[key]:.3g}" for key in ("mean", "sd", "p50", "p90", "p99")]
            cells += [f"{row['images_per_second']:.0f}"] + ([f"{times.get(entry, 1):.2f} ×"] if first else [])
            rows.append([Cell(entry), *map(Cell, cells)])
        head = ["model and format", "mean", "sd", "p50", "p90", "p99", "images per second"]
        head += ["times the shipped file's"] if first else []
        caption = f"Latency in ms per call: {condition}. All take turns, so that ratios hold on this machine."
        yield Table(caption, head, rows)

"""How far an exported file deviates from PyTorch, on all of val."""

from pathlib import Path
from typing import Any

from dermdistill.core.dataset import load_images, load_split
from dermdistill.deployment import formats
from dermdistill.deployment.runtime import Detector, without_optimisations
from dermdistill.evaluation import comparison
from dermdistill.metrics import parity
from dermdistill.metrics.predictions import Predictions


def measure(
    name: str, path: Path, val: Predictions, exact: parity.Version, bins: int, resamples: int, seed: int
) -> dict[str, Any]:
    """The row of one format in ``metrics/export.json``; ``exact``: PyTorch's probabilities of ``val``, calibrated."""
    images, rows, predict = load_images(), load_split("val").rows, formats.runner(name, path)
    predicted = {batch: formats.batched(predict, images, rows, batch) for batch in formats.batches(name)}
    row: dict[str, Any] = {f"batch_{batch}": parity.compare(exact.probabilities, p) for batch, p in predicted.items()}
    pair = exact.probabilities, predicted[1]
    row |= {"bytes": path.stat().st_size} | comparison.auc_change(val.labels, val.lesion_id, *pair, resamples, seed)
    if name.endswith("int8"):
        threshold = Detector(path).thresholds["sensitivity"] if name == "onnx_int8" else exact.threshold
        row["cost"] = parity.cost(val.labels, exact, parity.Version(predicted[1], threshold), bins)
    if name == "onnx_int8":
        row["optimisations_off"] = parity.compare(*without_optimisations(path, images, rows))
    return row

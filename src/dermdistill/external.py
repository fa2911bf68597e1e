"""Evaluation of a deployed model on an outside data set, with a refusal of images that it was trained on.

It calls the functions of the pipeline with the model file's own thresholds, quantiles and deferral rules; nothing is
fitted on the outside set. Images are streamed, one batch in memory. Robustness is measured on request, since it runs
the model on some sixty corrupted copies of each image.

Deliberately absent: a verdict on whether the outside set resembles HAM10000. It hardly ever does.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dermdistill import binary_truth
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import atomic, read_table, write_json, write_table
from dermdistill.deployment.runtime import BATCH, Detector
from dermdistill.errors import UserError
from dermdistill.evaluation import corrupted, protocol, robustness
from dermdistill.ingest import external_set, pixels, truth
from dermdistill.ingest.archives import Reader
from dermdistill.ingest.vocabulary import REST
from dermdistill.metrics import calibration, predictions, selective
from dermdistill.metrics.metrics import rounded
from dermdistill.splitting import image_hashes, overlap

SETTINGS = protocol.Settings(1000, 15, 0, [0.05, 0.1, 0.2], 0.02, 20)
SHARED = ("refuse", "drop", "keep")


def evaluate(
    detector: Detector,
    thresholds: dict[str, float],
    images: Path,
    labels: Path,
    shared: str,
    corrupt: int,
    other: str = truth.REFUSE,
) -> tuple[predictions.Predictions, dict[str, Any]]:
    """Calibrated predictions and the content of a metrics file.

    Args:
        thresholds: of the operating points, on calibrated P(mel).
        images: folder or archive.
        labels: table of image ids and diagnoses.
        shared: what to do with images of train or val, which the model was made with: refuse the set, drop or keep.
        corrupt: number of images to corrupt for the section "robustness"; 0 leaves it out.
        other: what to do with rows outside our seven: refuse, drop or rest, which judges melanoma against the rest.
            Then, and where the truth is melanoma or not, the result is binary (:mod:`dermdistill.binary_truth`).

    Raises:
        UserError: if labels and images do not fit together, or some are of train or val and ``shared`` is refuse.
    """
    table = external_set.read_labels(labels, other)
    binary = other == REST or bool((table["dx"] == REST).any())
    table = table.replace({"dx": {REST: binary_truth.STAND_IN}})
    readers = dict(zip(table["image_id"], external_set.match(table, images, labels), strict=True))
    p, hashes = _run(detector, readers)
    duplicates = _shared(readers, hashes, shared, detector)
    kept = _unseen(table, duplicates)
    left_out, table = len(table) - len(kept), table.iloc[kept]
    image_id, lesion_id, dx = (table[key].to_numpy(dtype=str) for key in predictions.KEYS)
    calibrated = predictions.build(image_id, lesion_id, dx, p[kept], source=str(labels))
    metadata, rules = table.set_index("image_id"), None if binary else _rules(detector)
    result = protocol.measure(calibrated, calibrated.probabilities, thresholds, rules, metadata, SETTINGS)
    del result["raw"]  # calibration is inside the file
    result["shared"] = {"asked": shared, "left_out": left_out}
    if corrupt:
        result["robustness"] = _robustness(detector, thresholds, calibrated, readers, corrupt)
    return calibrated, binary_truth.only(result) if binary else result


def write(folder: Path, calibrated: predictions.Predictions, result: dict[str, Any]) -> None:
    """Write ``predictions.csv``, ``metrics.json`` and the curves as CSV: what :func:`evaluate` returns.

    Of a binary truth ``dx`` is mel or rest, and curves of seven classes are left out.
    """
    dx = np.array(CLASSES)[calibrated.labels]
    columns = calibrated.image_id, calibrated.lesion_id, dx, calibrated.probabilities
    predictions.write(folder / "predictions.csv", *columns)
    write_json(folder / "metrics.json", result)
    if binary := "truth" in result:
        rows = read_table(folder / "predictions.csv")
        with atomic(folder / "predictions.csv") as temporary:
            rows.assign(dx=rows["dx"].where(rows["dx"] == "mel", REST)).to_csv(temporary, index=False)
    for name, table in protocol.tables(calibrated, calibrated.probabilities, SETTINGS).items():
        if binary and name not in binary_truth.CURVES:
            continue
        write_table(folder / f"{name}.csv", table)


def _run(detector: Detector, readers: dict[str, Reader]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (N, 7) and image hashes (N, 32) uint8."""
    names = list(readers)
    parts: list[np.ndarray] = []
    hashes: list[np.ndarray] = []
    with tqdm(total=len(names), desc="evaluate", unit="image", disable=None) as bar:
        for start in range(0, len(names), BATCH):
            chunk = names[start : start + BATCH]
            batch = [pixels.read(readers[name](), name, detector.height, detector.width) for name in chunk]
            parts.append(detector.predict(np.stack(batch)))
            hashes += [np.frombuffer(image_hashes.image_hash(image), np.uint8) for image in batch]
            bar.update(len(chunk))
    return np.concatenate(parts), np.stack(hashes)


def _shared(readers: dict[str, Reader], hashes: np.ndarray, shared: str, detector: Detector) -> dict[str, str]:
    """Images to leave out → the image of train or val that each duplicates."""
    if shared == "keep":
        return {}
    folder = overlap.root()
    if folder is None:
        missing = overlap.IMAGE_HASHES
        raise UserError(f"{missing} is missing, so images of train or val would go unseen; use --shared keep")
    names = list(readers)
    duplicates = overlap.copies(names, hashes, folder)
    if not duplicates or shared == "drop":
        duplicates = _photographs(readers, folder) | duplicates
    some = ", ".join(f"{a} (as {b})" for a, b in list(duplicates.items())[:5])
    if duplicates and shared == "refuse":
        raise UserError(
            f"{len(duplicates)} of {len(names)} images look like ones that {detector.path.name} was made with: {some}; "
            "give others, or --shared drop to leave them out"
        )
    if duplicates:
        print(f"note: {len(duplicates)} images of train or val are left out: {some}", file=sys.stderr)
    return duplicates


def _unseen(table: pd.DataFrame, duplicates: dict[str, str]) -> np.ndarray:
    """Rows of ``table`` to evaluate: of no lesion that has an image among ``duplicates``."""
    seen = table["lesion_id"][table["image_id"].isin(list(duplicates))]
    kept = np.flatnonzero(~table["lesion_id"].isin(seen))
    if not len(kept):
        raise UserError("every lesion is one of train or val; nothing is left to judge on")
    if more := len(table) - len(kept) - len(duplicates):
        print(f"note: {more} more images of the same lesions are left out", file=sys.stderr)
    return kept


def _photographs(readers: dict[str, Reader], folder: Path) -> dict[str, str]:
    pairs = overlap.photographs(list(readers), lambda name, *size: pixels.read(readers[name](), name, *size), folder)
    if pairs is None:
        print("note: without the prepared images only copies are found, not new photographs", file=sys.stderr)
    return pairs or {}


def _rules(detector: Detector) -> selective.Rules | None:
    text = detector.metadata.get("selective")
    if text is None:
        print(f"note: {detector.path.name} carries no rules for deferral and conformal sets", file=sys.stderr)
        return None
    return selective.from_text(text, str(detector.path))


def _robustness(
    detector: Detector,
    thresholds: dict[str, float],
    calibrated: predictions.Predictions,
    readers: dict[str, Reader],
    count: int,
) -> dict[str, Any]:
    """Robustness on up to ``count`` of the evaluated images, evenly spaced."""
    chosen = np.linspace(0, len(calibrated) - 1, min(count, len(calibrated))).astype(int)
    identity = calibration.Calibration(1.0, np.zeros(len(CLASSES)), thresholds, {})
    names = [str(calibrated.image_id[i]) for i in chosen]
    images = np.stack([pixels.read(readers[name](), name, detector.height, detector.width) for name in names])
    content = corrupted.predict(detector.predict, images, calibrated.image_id[chosen], SETTINGS.seed)
    labels, lesions = calibrated.labels[chosen], calibrated.lesion_id[chosen]
    measured = robustness.measure(content, labels, lesions, identity, SETTINGS.bootstrap, SETTINGS.seed)
    result: dict[str, Any] = rounded(measured)
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The content of a metrics file as lines of text: name, value, 95 % interval."""
    rows = ["{images} images of {lesions} lesions, {melanoma} melanoma".format(**result["n"])]
    if "truth" in result:
        rows.append(f"truth: {result['truth']}, so nothing is said of other diagnoses")
    for group in ("melanoma", "diagnosis", "operating_points", "net_benefit", "selective"):
        for name, value in _flat(group, result.get(group, {})):
            rows.append(_line(name, value, result["intervals"].get(name)))
    for row in result["subgroups"]["rows"]:
        name = f"subgroup {row['group']}: {row['name']} ({row['melanoma']} / {row['others']})"
        rows.append(_line(name, "too few" if row["too_few"] else row["roc_auc"], row["roc_auc_interval"]))
    if result["subgroups"]["worst"]:
        rows.append("worst subgroup by AUC: {group}: {name}".format(**result["subgroups"]["worst"]))
    for name, row in result.get("robustness", {}).get("mean_drop", {}).items():
        rows.append(_line(f"robustness.mean_drop.{name}", row["drop"], row["interval"]))
    return rows


def _line(name: str, value: Any, bounds: list[float] | None) -> str:
    interval = f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
    text = "undefined" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
    return f"{name:<64}{text:>10}{interval}"


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [] if isinstance(value, list) else [(prefix, value)]
    return [pair for key, item in value.items() for pair in _flat(f"{prefix}.{key}", item)]

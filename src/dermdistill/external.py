"""Evaluation of a deployed model on an outside data set, with a refusal of images that it was trained on.

It calls the functions of the pipeline with the model file's own thresholds, quantiles and deferral rules; nothing is
fitted on the outside set. Intervals resample patients or lesions, and pictures that repeat each other together
(:mod:`dermdistill.splitting.resampled`). Images are streamed, one batch in memory. Robustness is measured on request,
since it runs the model on some sixty corrupted copies of each image.

Deliberately absent: a verdict on whether the outside set resembles HAM10000. It hardly ever does.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from dermdistill.core.classes import CLASSES
from dermdistill.core.files import write_json, write_table
from dermdistill.deployment.runtime import BATCH, Detector
from dermdistill.errors import UserError
from dermdistill.evaluation import corrupted, protocol, robustness
from dermdistill.ingest import external_set, pixels
from dermdistill.ingest.archives import Reader
from dermdistill.metrics import calibration, predictions, selective
from dermdistill.metrics.metrics import rounded
from dermdistill.splitting import image_index, overlap, resampled
from dermdistill.splitting.image_index import ImageIndex, Picture

SETTINGS = protocol.Settings(1000, 15, 0, [0.05, 0.1, 0.2], 0.02, 20)
SHARED = ("refuse", "drop", "keep")
SEEN = 150, 200  # height and width at which pictures are compared, if the model takes smaller ones


def evaluate(
    detector: Detector, thresholds: dict[str, float], images: Path, labels: Path, shared: str, corrupt: int
) -> tuple[predictions.Predictions, dict[str, Any]]:
    """Calibrated predictions and the content of a metrics file.

    Args:
        thresholds: of the operating points, on calibrated P(mel).
        images: folder or archive.
        labels: table of image ids and diagnoses.
        shared: what to do with images of train or val, which the model was made with: refuse the set, drop or keep.
        corrupt: number of images to corrupt for the section "robustness"; 0 leaves it out.

    Raises:
        UserError: if labels and images do not fit together, or some are of train or val and ``shared`` is refuse.
    """
    known, table = _index(shared), external_set.read_labels(labels)
    readers = dict(zip(table["image_id"], external_set.match(table, images, labels), strict=True))
    total = len(table)
    if known is not None and shared != "keep":
        table = table.iloc[_unseen(table, overlap.by_id(table, known), "have ids of", shared, detector)]
    names = list(table["image_id"])
    p, pictures = _run(detector, {name: readers[name] for name in names}, known)
    if known is not None and shared != "keep":
        kept = _unseen(table, overlap.by_content(names, pictures, known), "show the same as", shared, detector)
        table, p, pictures = table.iloc[kept], p[kept], [pictures[row] for row in kept]
    groups = resampled.of(table, image_index.groups(pictures) if pictures else None)
    table = table.assign(lesion_id=groups.id)
    image_id, lesion_id, dx = (table[key].to_numpy(dtype=str) for key in predictions.KEYS)
    calibrated = predictions.build(image_id, lesion_id, dx, p, source=str(labels))
    metadata, rules = table.set_index("image_id"), _rules(detector)
    result = protocol.measure(calibrated, calibrated.probabilities, thresholds, rules, metadata, SETTINGS)
    del result["raw"]  # calibration is inside the file
    result["n"]["lesions"] = groups.lesions
    result["resampled"] = groups.summary() | {"sentence": groups.sentence()}
    result["shared"] = {"asked": shared, "left_out": total - len(table)}
    if corrupt:
        result["robustness"] = _robustness(detector, thresholds, calibrated, readers, corrupt)
    return calibrated, result


def write(folder: Path, calibrated: predictions.Predictions, result: dict[str, Any]) -> None:
    """Write ``predictions.csv``, ``metrics.json`` and the curves as CSV: what :func:`evaluate` returns."""
    dx = np.array(CLASSES)[calibrated.labels]
    columns = calibrated.image_id, calibrated.lesion_id, dx, calibrated.probabilities
    predictions.write(folder / "predictions.csv", *columns)
    write_json(folder / "metrics.json", result)
    for name, table in protocol.tables(calibrated, calibrated.probabilities, SETTINGS).items():
        write_table(folder / f"{name}.csv", table)


def _index(shared: str) -> ImageIndex | None:
    known = overlap.index()
    if known is None and shared != "keep":
        raise UserError(f"{overlap.INDEX} is missing, so images of train or val would go unseen; use --shared keep")
    if known is None:
        print(f"note: without {overlap.INDEX} no repeated pictures are looked for", file=sys.stderr)
    return known


def _run(detector: Detector, readers: dict[str, Reader], known: ImageIndex | None) -> tuple[np.ndarray, list[Picture]]:
    """Probabilities (N, 7), and what there is to look up in an index; empty without one."""
    names = list(readers)
    parts: list[np.ndarray] = []
    pictures: list[Picture] = []
    size = detector.height, detector.width

    def prepare(name: str) -> tuple[np.ndarray, Picture | None]:
        content = readers[name]()
        picture = pixels.read(content, name, *size, margins=False)
        image = pixels.framed(picture, *size)
        if known is None:
            return image, None
        if size < SEEN:
            picture = pixels.read(content, name, *SEEN, margins=False)
        return image, known.picture(picture)

    with tqdm(total=len(names), desc="evaluate", unit="image", disable=None) as bar, ThreadPoolExecutor() as pool:
        for start in range(0, len(names), BATCH):
            prepared = list(pool.map(prepare, names[start : start + BATCH]))
            parts.append(detector.predict(np.stack([image for image, _ in prepared])))
            pictures += [picture for _, picture in prepared if picture is not None]
            bar.update(len(prepared))
    return np.concatenate(parts), pictures


def _unseen(table: pd.DataFrame, known: dict[str, str], what: str, shared: str, detector: Detector) -> np.ndarray:
    """Rows of ``table`` to evaluate: of no lesion that has an image among the ``known`` ones.

    Args:
        known: image → the image or lesion of train or val that it is.
        what: how it is known.

    Raises:
        UserError: there are known ones and ``shared`` is refuse, or nothing is left.
    """
    if not known:
        return np.arange(len(table))
    some = ", ".join(f"{a} ({b})" for a, b in list(known.items())[:5])
    if shared == "refuse":
        raise UserError(
            f"{len(known)} of {len(table)} images {what} ones that {detector.path.name} was made with: {some}; "
            "give others, or --shared drop to leave them out"
        )
    seen = table["lesion_id"][table["image_id"].isin(list(known))]
    kept = np.flatnonzero(~table["lesion_id"].isin(seen))
    print(f"note: {len(known)} images {what} ones of train or val and are left out: {some}", file=sys.stderr)
    if not len(kept):
        raise UserError("every lesion is one of train or val; nothing is left to judge on")
    if more := len(table) - len(kept) - len(known):
        print(f"note: {more} more images of the same lesions are left out", file=sys.stderr)
    return kept


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

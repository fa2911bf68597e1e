"""How a picture that is not 4:3 should enter the model: cropped, squeezed or padded, and padded with what.

    python -m benchmarks.aspect DERM7PT HAM10000    # in the repository; minutes; writes results/aspect.json
    python -m benchmarks.aspect DERM7PT --judge     # adds crop and the deployed rule on other_test, once chosen

DERM7PT: a folder with ``labels.csv`` (``image_id,dx``) and ``images.zip``, square pictures. HAM10000: a folder of its
images or zips. The deployed file predicts every picture under every rule:

- ``other_val``, the half of Derm7pt that recipes may be chosen by (:mod:`dermdistill.splitting.other_source`);
- val of HAM10000 cut to other shapes about its centre, and turned on its side. The rule must not hurt there.
  ``uncut`` is the same photographs whole: what the cut alone costs.

Melanoma AUC, balanced accuracy over the diagnoses there are, sensitivity and specificity at the deployed threshold.
Differences from crop are paired and resample lesions. Chosen is the highest melanoma AUC on ``other_val`` among the
rules whose AUC is on no shape worse than crop's. ``other_test`` is not read without ``--judge``.
"""

import argparse
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter, ImageOps

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import read_json, read_table, write_json
from dermdistill.deployment.runtime import BATCH, Detector
from dermdistill.evaluation import bootstrap
from dermdistill.evaluation.weighted_metrics import Metric, Proportion, balanced_accuracy, roc_auc
from dermdistill.ingest import pixels
from dermdistill.ingest.archives import Reader, find_images
from dermdistill.metrics.metrics import rounded
from dermdistill.splitting import other_source

RESULTS = Path("benchmarks/results/aspect.json")
MODEL, VAL = Path("models/deploy/student.int8.onnx"), Path("data/splits/val.csv")
RESAMPLES, BLUR = 2000, 8  # BLUR: standard deviation in pixels of the model's input
DEPLOYED = "pad: reflect"  # pixels.fit

Rule = Callable[[Image.Image, int, int], np.ndarray]  # upright RGB, height, width → (height, width, 3) uint8
Shape = Callable[[Image.Image], Image.Image]


def crop(image: Image.Image, height: int, width: int) -> np.ndarray:
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC))


def squeeze(image: Image.Image, height: int, width: int) -> np.ndarray:
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def inside(image: Image.Image, height: int, width: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The whole picture, scaled to fit, and how many pixels are missing above and below, left and right."""
    scaled = np.asarray(ImageOps.contain(image, (width, height), Image.Resampling.BICUBIC))
    missing = [size - side for size, side in zip((height, width), scaled.shape[:2], strict=True)]
    return scaled, [(count // 2, count - count // 2) for count in missing]


def edge(image: Image.Image, height: int, width: int) -> np.ndarray:
    scaled, margins = inside(image, height, width)
    return np.pad(scaled, [*margins, (0, 0)], "edge")


def blurred_edge(image: Image.Image, height: int, width: int) -> np.ndarray:
    scaled, ((top, _), (left, _)) = inside(image, height, width)
    padded = Image.fromarray(edge(image, height, width)).filter(ImageFilter.GaussianBlur(BLUR))
    padded.paste(Image.fromarray(scaled), (left, top))
    return np.asarray(padded)


def mean_colour(image: Image.Image, height: int, width: int) -> np.ndarray:
    scaled, ((top, _), (left, _)) = inside(image, height, width)
    padded = np.full((height, width, 3), scaled.mean((0, 1)).round(), np.uint8)
    padded[top : top + len(scaled), left : left + scaled.shape[1]] = scaled
    return padded


RULES: dict[str, Rule] = {
    "crop": crop, "squeeze": squeeze, DEPLOYED: pixels.fit, "pad: edge": edge,
    "pad: blurred edge": blurred_edge, "pad: mean colour": mean_colour,
}  # fmt: skip


def cut(image: Image.Image, across: int, down: int) -> Image.Image:
    """The largest part about the centre of aspect ``across:down``."""
    width, height = min(image.width, image.height * across // down), min(image.height, image.width * down // across)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def whole(image: Image.Image) -> Image.Image:
    return image


SHAPES: dict[str, Shape] = {
    "1:1": lambda image: cut(image, 1, 1),
    "16:9": lambda image: cut(image, 16, 9),
    "3:4": lambda image: cut(image, 3, 4),
    "3:4, turned and uncut": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}


def predict(
    detector: Detector, readers: Sequence[Reader], rules: Mapping[str, Rule], shape: Shape
) -> dict[str, np.ndarray]:
    """Rule → probabilities (N, 7)."""
    size = detector.height, detector.width
    parts: dict[str, list[np.ndarray]] = {name: [] for name in rules}
    for start in range(0, len(readers), BATCH):
        images = [shape(Image.open(io.BytesIO(read())).convert("RGB")) for read in readers[start : start + BATCH]]
        for name, rule in rules.items():
            fitted = np.stack([rule(image, *size) for image in images])
            parts[name].append(detector.predict(fitted))
    return {name: np.concatenate(rows) for name, rows in parts.items()}


def measure(table: pd.DataFrame, by_rule: Mapping[str, np.ndarray], threshold: float) -> dict[str, Any]:
    """Rule → metric → its value, and the difference from crop with its interval."""
    labels = np.array([CLASSES.index(dx) for dx in table["dx"]])
    lesions, melanoma = table["lesion_id"].to_numpy(str), labels == MELANOMA
    results = {}
    for name, p in by_rule.items():
        y_pred = p[:, MELANOMA] >= threshold
        metrics: dict[str, Metric] = {
            "melanoma_auc": roc_auc(melanoma, p[:, MELANOMA]),
            "balanced_accuracy": balanced_accuracy(labels, p.argmax(axis=1)),
            "sensitivity": Proportion(y_pred, among=melanoma),
            "specificity": Proportion(~y_pred, among=~melanoma),
        }
        results[name] = bootstrap.bootstrap(metrics, lesions, RESAMPLES, 0)
    rules: dict[str, Any] = {}
    for name, result in results.items():
        rules[name] = {metric: {"value": one.value, "interval": one.interval()} for metric, one in result.items()}
        for metric, row in rules[name].items() if name != "crop" else ():
            gap = result[metric].minus(results["crop"][metric])
            row |= {"minus_crop": gap.value, "minus_crop_interval": gap.interval()}
        auc, accuracy = rules[name]["melanoma_auc"], rules[name]["balanced_accuracy"]
        print(f"  {name}: AUC {_words(auc)}, balanced accuracy {_words(accuracy)}", flush=True)
    counts = {"images": len(table), "lesions": len(set(lesions)), "melanoma": int(melanoma.sum())}
    return counts | {"rules": rules}


def _words(row: dict[str, Any]) -> str:
    if "minus_crop" not in row:
        return f"{row['value']:.3f}"
    low, high = row["minus_crop_interval"]
    return f"{row['value']:.3f} ({row['minus_crop']:+.3f} [{low:+.3f}, {high:+.3f}])"


def second_source(folder: Path, part: str) -> tuple[pd.DataFrame, list[Reader]]:
    """Labels and images of one half of Derm7pt; those of the other are not opened."""
    table = read_table(folder / "labels.csv")
    table = table[table["image_id"].map(other_source.part_of) == part]
    images = find_images(folder / "images.zip")
    readers = [images[image_id.casefold()] for image_id in table["image_id"]]
    return table.assign(lesion_id=table["image_id"].map(other_source.lesion_of)), readers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aspect")
    parser.add_argument("derm7pt", type=Path)
    parser.add_argument("ham10000", type=Path, nargs="?", help="not needed with --judge")
    parser.add_argument("--judge", action="store_true")
    args = parser.parse_args()
    if not (args.judge or args.ham10000):
        parser.error("name the folder of HAM10000's images")
    detector = Detector(MODEL, threads=1)
    threshold = detector.thresholds["sensitivity"]
    content: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}

    def second(part: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
        print(part)
        table, readers = second_source(args.derm7pt, part)
        return measure(table, predict(detector, readers, rules, whole), threshold)

    if args.judge:
        content["judged_only"] = {
            "other_test": second("other_test", {name: RULES[name] for name in ("crop", DEPLOYED)})
        }
    else:
        content |= {"other_val": second("other_val", RULES), "ham10000_val": {}}
        table, images = read_table(VAL), find_images(args.ham10000)
        readers = [images[image_id.casefold()] for image_id in table["image_id"]]
        uncut = predict(detector, readers, {"uncut": crop}, whole)
        for name, shape in SHAPES.items():
            print(f"val of HAM10000, {name}")
            by_rule = predict(detector, readers, RULES, shape)
            content["ham10000_val"][name] = measure(table, by_rule | uncut, threshold)
    write_json(RESULTS, rounded(content))


if __name__ == "__main__":
    main()

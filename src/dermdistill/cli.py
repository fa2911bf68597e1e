"""The command ``dermdistill``: use a shipped model, judge one on your own images, get data or draw some.

Heavy libraries are imported by the command that needs them; ``predict`` starts in well under a second.
The pipeline itself is deliberately absent: ``dvc repro`` runs it.
"""

import argparse
import csv
import json
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from dermdistill.classes import CLASSES, MELANOMA, NAMES
from dermdistill.errors import UserError, run

SHIPPED = Path("models/deploy/student.int8.onnx")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
BATCH = 32
BINS, RESAMPLES = 15, 1000  # of the calibration error; behind every interval
DISCLAIMER = "Not a medical device: for research and teaching only."


def main(arguments: list[str] | None = None) -> None:
    """Entry point; a UserError becomes one sentence on standard error and exit code 1."""
    given = _parser().parse_args(arguments)
    run(lambda: given.command(given))


def predict(given: argparse.Namespace) -> None:
    """Print each image's probability of melanoma, its decision, and the seven diagnoses."""
    from dermdistill.deployment.runtime import Detector

    detector = Detector(given.model or shipped())
    threshold = _thresholds(detector, given.operating_point)[given.operating_point]
    found = zip(given.images, detector.predict_files(given.images).tolist(), strict=True)
    rows = [_answer(str(path), p, given.operating_point, threshold) for path, p in found]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        at = f"{row['decision']} at threshold {threshold:.1%} ({given.operating_point})"
        print(f"{row['image']}: melanoma {row['melanoma']:.1%}, {at}")
        for name, p in sorted(row["probabilities"].items(), key=lambda item: -item[1]):
            print(f"  {p:6.1%}  {name:<6}{NAMES[name]}")
    print(DISCLAIMER)


def evaluate(given: argparse.Namespace) -> None:
    """Run a model over labelled images and print (and with --output write) every metric."""
    import numpy as np

    from dermdistill.deployment.runtime import Detector
    from dermdistill.evaluation import predictions, protocol
    from dermdistill.files import write_json

    detector = Detector(given.model)
    thresholds = _thresholds(detector, "sensitivity")
    if given.output:  # before the work, not after it
        try:
            given.output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {given.output} ({error.strerror}); name a folder") from None
    rows, images = read_labels(given.labels), find_images(given.images)
    _match(rows, images, given.labels, given.images)
    probabilities = _stream(detector, [row["image_id"] for row in rows], images)
    image_id, lesion_id, dx = ([row[key] for row in rows] for key in ("image_id", "lesion_id", "dx"))
    found = predictions.build(image_id, lesion_id, dx, probabilities, source=str(given.labels))
    histology = np.array([row["dx_type"] == "histo" for row in rows])
    p = found.probabilities  # calibrated: that is inside the file
    result = protocol.measure(found, p, thresholds, histology, BINS, RESAMPLES, seed=0)
    del result["raw"]
    if given.output:
        predictions.write(given.output / "predictions.csv", image_id, lesion_id, dx, p)
        write_json(given.output / "metrics.json", result)
    print("\n".join(_lines(result)))


def phantom(given: argparse.Namespace) -> None:
    """Draw a synthetic data set in the form of HAM10000."""
    from dermdistill.data.phantom import write

    write(given.directory, given.lesions, given.seed, given.height, given.width)


def data(given: argparse.Namespace) -> None:
    """Bring HAM10000 into data/raw, from a folder or by download."""
    from dermdistill.data import fetch

    if given.source:
        fetch.bring(given.source, "data/raw")
    else:
        fetch.download("data/raw")


def shipped() -> Path:
    """The shipped model: below the working folder, else in the repository this module lies in."""
    return SHIPPED if SHIPPED.exists() else Path(__file__).resolve().parents[2] / SHIPPED


def read_labels(path: Path) -> list[dict[str, str]]:
    """Rows ``image_id, lesion_id, dx, dx_type`` sorted by image, from HAM10000's table or ISIC's one-hot one.

    An image without lesion_id is its own lesion; dx_type may be empty.

    Raises:
        UserError: if the file is missing or no such table, or rows have no single known diagnosis.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            stream.seek(0)
            table = list(csv.DictReader(stream, delimiter="\t" if "\t" in header else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"labels {path} cannot be read ({error}); give a CSV table") from None
    columns = set(table[0]) if table else set()
    one_hot = {"image", *map(str.upper, CLASSES)} <= columns
    if not one_hot and not {"image_id", "dx"} <= columns:
        expected = f"image_id and dx, or image and {', '.join(map(str.upper, CLASSES))}"
        raise UserError(f"labels {path} has no rows or lacks columns; it needs {expected}")
    rows = sorted((_row(raw, one_hot) for raw in table), key=lambda row: row["image_id"])
    unknown = [row["image_id"] for row in rows if row["dx"] not in CLASSES]
    if unknown:
        known = ", ".join(CLASSES)
        raise UserError(f"labels {path}: {_some(unknown)} have no single diagnosis among {known}; correct them")
    twice = _repeated([row["image_id"] for row in rows])
    if twice:
        raise UserError(f"labels {path} list {_some(twice)} more than once; keep one row each")
    return rows


def find_images(path: Path) -> dict[str, Callable[[], bytes]]:
    """Image id (file name without suffix) → reader of its bytes, over a folder's subfolders or one zip."""
    if path.is_dir():
        files = [(file.name, file.read_bytes) for file in sorted(path.rglob("*")) if file.is_file()]
    else:
        try:
            archive = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"images {path} are neither a folder nor a readable zip ({error})") from None
        files = [(Path(member).name, partial(_member, archive, member)) for member in archive.namelist()]
    images = [
        (Path(name).stem, reader)
        for name, reader in files
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")  # macOS adds ._NAME.jpg to its zips
    ]
    twice = _repeated([name for name, _ in images])
    if twice:
        raise UserError(f"images {path} hold {_some(twice)} more than once; keep one file each")
    return dict(images)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        where = f"{name} in {archive.filename}"
        raise UserError(f"{where} cannot be unpacked ({error}); replace the zip") from None


def _row(raw: dict[str, str], one_hot: bool) -> dict[str, str]:
    image = (raw["image" if one_hot else "image_id"] or "").strip()
    if one_hot:
        marked = [name for name in CLASSES if _is_one(raw[name.upper()])]
        dx = marked[0] if len(marked) == 1 else ""
    else:
        dx = (raw["dx"] or "").strip()
    lesion, kind = ((raw.get(key) or "").strip() for key in ("lesion_id", "dx_type"))
    return {"image_id": image, "lesion_id": lesion or image, "dx": dx, "dx_type": kind}


def _is_one(value: str | None) -> bool:
    try:
        return float(value or 0) == 1
    except ValueError:
        return False


def _match(rows: list[dict[str, str]], images: Iterable[str], labels: Path, folder: Path) -> None:
    """Every labelled image must be there; images without a label are named and left out."""
    labelled, present = {row["image_id"] for row in rows}, set(images)
    missing, extra = sorted(labelled - present), sorted(present - labelled)
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} images labelled in {labels} ({_some(missing)}); add them")
    if extra:
        print(f"note: {len(extra)} images without a label are left out ({_some(extra)})", file=sys.stderr)


def _repeated(names: list[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _some(names: list[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _stream(detector: Any, names: list[str], images: dict[str, Callable[[], bytes]]) -> Any:
    """Probabilities (N, 7) of ``names`` in order; one batch of pixels in memory at a time."""
    import numpy as np
    from tqdm import tqdm

    from dermdistill.data import pixels

    parts, bar = [], tqdm(names, "evaluate", unit="image")
    for start in range(0, len(names), BATCH):
        chunk = names[start : start + BATCH]
        read = [pixels.read(images[name](), name, detector.height, detector.width) for name in chunk]
        parts.append(detector.predict(np.stack(read)))
        bar.update(len(chunk))
    bar.close()
    return np.concatenate(parts)


def _thresholds(detector: Any, needed: str) -> dict[str, float]:
    if needed not in detector.thresholds:
        raise UserError(f"model {detector.path} stores no operating point {needed}; use a shipped one: {SHIPPED}")
    return dict(detector.thresholds)


def _answer(image: str, probabilities: list[float], point: str, threshold: float) -> dict[str, Any]:
    p = probabilities[MELANOMA]
    return {
        "image": image,
        "melanoma": p,
        "decision": "refer" if p >= threshold else "no alarm",
        "operating_point": point,
        "threshold": threshold,
        "probabilities": dict(zip(CLASSES, probabilities, strict=True)),
    }


def _lines(result: dict[str, Any]) -> list[str]:
    """The metrics as text: name, value, 95 % interval."""
    lines = ["{images} images of {lesions} lesions, {melanoma} melanoma".format(**result["n"])]
    for group in ("melanoma", "diagnosis", "operating_points"):
        for name, value in _flat(group, result[group]):
            bounds = result["intervals"].get(name)
            interval = f"  [{bounds[0]:.4f}, {bounds[1]:.4f}]" if bounds else ""
            shown = f"{value:.4f}" if isinstance(value, float) else str(value)
            shown = "undefined" if value is None else shown
            lines.append(f"{name:<52}{shown:>10}{interval}")
    return [*lines, DISCLAIMER]


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [] if isinstance(value, list) else [(prefix, value)]
    return [pair for key, item in value.items() for pair in _flat(f"{prefix}.{key}", item)]


def _parser() -> argparse.ArgumentParser:
    text = f"Melanoma detection at phone size. {DISCLAIMER}"
    parser = argparse.ArgumentParser(prog="dermdistill", description=text)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").strip()
        command = commands.add_parser(function.__name__, help=text, description=text)
        command.set_defaults(command=function)
        return command

    command = add(predict)
    command.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    command.add_argument("--model", type=Path, help=f"default: {SHIPPED}")
    command.add_argument("--json", action="store_true", help="for programs")
    command.add_argument("--operating-point", choices=("sensitivity", "youden"), default="sensitivity")
    command = add(evaluate)
    command.add_argument("--model", type=Path, required=True, help="a shipped .onnx file")
    command.add_argument("--images", type=Path, required=True, help="folder or zip of images, any size")
    command.add_argument("--labels", type=Path, required=True, help="table: image_id,dx or image,MEL,NV,…")
    command.add_argument("--output", type=Path, help="folder for predictions.csv, metrics.json")
    command = add(phantom)
    command.add_argument("directory", type=Path)
    command.add_argument("--lesions", type=int, default=700)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--height", type=int, default=150)
    command.add_argument("--width", type=int, default=200)
    command = add(data)
    command.add_argument("source", nargs="?", type=Path, help="folder with a local copy; default: download")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])

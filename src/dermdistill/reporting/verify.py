"""Recompute the tables of README, model card and guides from the committed predictions, and name what differs.

For a reader who does not trust the tables: no model, no image and no raw data is needed, only what is in git
(predictions, splits, patient metadata, calibration). Metrics are recomputed with the *committed* calibration; the
calibration itself is fitted again on val and compared on its own, so that one wrong file is reported once and where it
is wrong. The curve CSVs and figures are not checked: no number is quoted from them.

Times are this machine's and are taken from ``metrics/benchmark.json`` as they are.

Run as ``python -m dermdistill.reporting.verify``; exit code 1 if anything differs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill import params
from dermdistill.core import parts
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, read_table, sha256
from dermdistill.errors import UserError, run
from dermdistill.evaluation import ablation, model_pairs, protocol, robustness, subgroups
from dermdistill.metrics import calibration, predictions, selective
from dermdistill.params import Params
from dermdistill.reporting import readme, results

ROUNDING = 2e-6  # metrics are written with six decimals
REFIT = 1e-4  # another machine's optimiser may stop elsewhere in the last digits
REMEDY = "run `dvc repro`, then `make readme` (`make ablation` for its table), and commit what changes"


def verify(root: str | Path) -> list[str]:
    """One line per mismatch, ``file:key: committed … vs recomputed …``; empty if all is as published."""
    root = Path(root)
    settings = params.load(root / "params.yaml")
    lines: list[str] = []
    every = [*parts.EVALUATED, *(part for source in settings.data.other for part in parts.of_source(source))]
    recomputed: dict[str, dict[str, Any]] = {part: {} for part in every}
    models = model_pairs.published(root, settings)
    for model in models:
        lines += _collected(_check_model(root, model, settings, recomputed))
    for check in (_check_robustness, _check_deployed, _check_ablation, _check_candidates):
        lines += _collected(check(root, settings))
    if all(len(metrics) == len(models) for metrics in recomputed.values()):
        lines += _collected(_check_compared(root, settings))
        lines += _collected(_check_published(root, settings, recomputed))
    return lines


def _collected(lines: Iterable[str]) -> list[str]:
    """The lines of a check; an error that ends it is its last line."""
    found: list[str] = []
    try:
        for line in lines:
            found.append(line)
    except UserError as error:
        found.append(str(error))
    return found


def _check_model(root: Path, model: str, settings: Params, recomputed: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Calibration and metrics of one model; the latter are put into ``recomputed``."""
    name, wanted = f"metrics/calibrate/{model}.json", settings.calibrate
    committed, rules = calibration.read(root / name), selective.read(root / name)
    val = predictions.read(root / f"predictions/val/{model}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, wanted.sensitivity)
    again = selective.fit(val.labels, fitted.apply(val.probabilities), wanted.coverage, wanted.keep)
    yield from differences(name, read_json(root / name), fitted.to_dict() | again.to_dict(), REFIT)
    for part in recomputed:
        name = f"predictions/{part}/{model}.csv"
        raw = predictions.read(root / name)
        require_split(name, raw, _read_split(root / parts.table(part)))
        metrics = recompute(raw, committed, rules, subgroups.read(root, part), settings)
        recomputed[part][model] = metrics
        name = f"metrics/{part}/{model}.json"
        yield from differences(name, read_json(root / name), metrics, ROUNDING)


def recompute(
    raw: predictions.Predictions,
    fitted: calibration.Calibration,
    rules: selective.Rules,
    metadata: pd.DataFrame,
    settings: Params,
) -> dict[str, Any]:
    """The content of a model's metrics file, as the stage ``evaluate`` writes it."""
    numbers = protocol.Settings(**settings.evaluate.model_dump())
    return protocol.measure(raw, fitted.apply(raw.probabilities), fitted.thresholds, rules, metadata, numbers)


def _read_split(path: Path) -> pd.DataFrame:
    """``lesion_id, dx, dx_type`` by image_id."""
    table = read_table(path)
    missing = {"image_id", "lesion_id", "dx", "dx_type"} - set(table.columns)
    if missing:
        raise UserError(f"{path} has no column {min(missing)}; run `dvc repro split`")
    return table.set_index("image_id").sort_index()


def require_split(name: str, raw: predictions.Predictions, split: pd.DataFrame) -> None:
    """A file that leaves out hard images, or relabels them, would give flattering and consistent numbers."""
    if list(raw.image_id) != list(split.index):
        raise UserError(f"{name}: its {len(raw)} images are not the {len(split)} of the split; predict again")
    diagnoses = np.array(CLASSES)[raw.labels]
    wrong = (diagnoses != split["dx"].to_numpy()) | (raw.lesion_id != split["lesion_id"].to_numpy())
    if wrong.any():
        raise UserError(f"{name}: {raw.image_id[wrong][0]} has another diagnosis or lesion than in the split")


def _check_robustness(root: Path, settings: Params) -> Iterator[str]:
    """From each model's predictions on corrupted images, which are in git; the images are not needed."""
    numbers = settings.robustness.images, settings.evaluate.bootstrap, settings.robustness.seed
    for model in settings.corrupted_ids():
        again = partial(robustness.of_model, root, model, *numbers)
        yield from _collected(_json_differences(root, f"metrics/robustness/{model}.json", again, ROUNDING))


def _check_compared(root: Path, settings: Params) -> Iterator[str]:
    """Every pair of models and every calibration map; the maps are refitted."""
    checks: list[tuple[str, Callable[[], Any], float]] = [
        ("metrics/compare/models.json", partial(model_pairs.compare_models, root, settings), ROUNDING),
        ("metrics/compare/calibration.json", partial(model_pairs.compare_calibrations, root, settings), REFIT),
    ]
    for source in settings.data.other:
        of_source = partial(model_pairs.compare_source, root, settings, source)
        checks.append((f"metrics/other/{source}/compare.json", of_source, ROUNDING))
    for name, again, tolerance in checks:
        yield from _collected(_json_differences(root, name, again, tolerance))


def _json_differences(root: Path, name: str, again: Callable[[], Any], tolerance: float) -> Iterator[str]:
    yield from differences(name, read_json(root / name), again(), tolerance)


def _check_deployed(root: Path, settings: Params) -> Iterator[str]:
    """The model in git is the one whose checks are published, and carries the evaluated thresholds."""
    model, metadata = root / "models/deploy/student.int8.onnx", "models/deploy/student.int8.json"
    if not model.exists():
        raise UserError(f"{model} does not exist; restore it from git or run `dvc repro ship`")
    shipped, carried, digest = read_json(root / "metrics/ship.json"), read_json(root / metadata), sha256(model)
    fitted = calibration.read(root / f"metrics/calibrate/{settings.shipped}.json")
    yield from differences("metrics/ship.json", shipped["id"], settings.shipped, 0, "id")
    yield from differences("metrics/ship.json", shipped["sha256"], digest, 0, "sha256")
    yield from differences(metadata, carried["sha256"], digest, 0, "sha256")
    names = {"sensitivity", *carried["thresholds"]}
    evaluated = {name: fitted.thresholds.get(name, "(absent)") for name in names}
    yield from differences(metadata, carried["thresholds"], evaluated, 0, "thresholds")


def _check_published(root: Path, settings: Params, recomputed: Mapping[str, Any]) -> Iterator[str]:
    """Summary, tables and the documents that show them, all against the recomputed metrics."""
    committed = results.load(root, settings)
    others = {part: other._replace(models=recomputed[part]) for part, other in committed.others.items()}
    again = committed._replace(val=recomputed["val"], holdout=recomputed["holdout"], others=others)
    name = "metrics/summary.json"
    yield from differences(name, read_json(root / name), results.summary(*again.by_part()), ROUNDING)
    texts = readme.texts(again, read_json(root / "metrics/benchmark.json"))
    for name, text in texts.items():
        file = f"{readme.FOLDER}/{name}.md"
        yield from text_differences(file, readme.read_text(root / file, REMEDY), text)
    for document, names in readme.DOCUMENTS.items():
        for name in names:
            yield from _document_differences(root, document, name, texts[name])


def _check_ablation(root: Path, settings: Params) -> Iterator[str]:
    if (ranking := ablation.recompute(root, settings)) is not None:
        yield from differences(ablation.METRICS, read_json(root / ablation.METRICS), ranking, ROUNDING)
        if (root / readme.ABLATION).exists():
            yield from _document_differences(root, readme.ABLATION, "ablation", readme.ablation_text(ranking))


def _check_candidates(root: Path, settings: Params) -> Iterator[str]:
    if (root / readme.CANDIDATES).exists():
        yield from _document_differences(root, readme.CANDIDATES, "candidates", readme.candidates_text(root, settings))


def _document_differences(root: Path, document: str, name: str, again: str) -> Iterator[str]:
    yield from text_differences(document, readme.split_at_markers(root / document, name)[1], again)


def text_differences(name: str, committed: str, recomputed: str) -> Iterator[str]:
    old, new = committed.strip().splitlines(), recomputed.strip().splitlines()
    for line in range(max(len(old), len(new))):
        a, b = (lines[line] if line < len(lines) else "(no such line)" for lines in (old, new))
        if a.rstrip() != b.rstrip():
            yield f"{name}:line {line + 1} of the block: committed {a!r} vs recomputed {b!r}"


def differences(name: str, committed: Any, recomputed: Any, tolerance: float, key: str = "") -> Iterator[str]:
    """Leaf by leaf; numbers may differ by ``tolerance``, everything else must be equal."""
    if isinstance(committed, Mapping) and isinstance(recomputed, Mapping):
        for part in dict.fromkeys([*recomputed, *committed]):
            old, new = (side.get(part, "(absent)") for side in (committed, recomputed))
            yield from differences(name, old, new, tolerance, f"{key}.{part}" if key else str(part))
    elif isinstance(committed, list) and isinstance(recomputed, list) and len(committed) == len(recomputed):
        for place, (old, new) in enumerate(zip(committed, recomputed, strict=True)):
            yield from differences(name, old, new, tolerance, f"{key}[{place}]")
    elif not _same(committed, recomputed, tolerance):
        yield f"{name}:{key}: committed {committed} vs recomputed {recomputed}"


def _same(a: Any, b: Any, tolerance: float) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
    return abs(a - b) <= tolerance if numbers else bool(a == b)


def main() -> None:
    lines = verify(".")
    for line in lines:
        print(line)
    if lines:
        raise UserError(f"{len(lines)} published numbers or files differ; {REMEDY}")
    print("every number in the tables of README, model card and guides follows from the committed predictions")


if __name__ == "__main__":
    run(main)

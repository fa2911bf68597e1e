"""Recompute the tables of README and model card from the committed predictions, and name what differs.

For a reader who does not trust the tables: no model, no image and no raw data is needed, only what is in
git (predictions, splits, traits, calibration). Metrics are recomputed with the *committed* calibration; the
calibration itself is fitted again on val and compared on its own, so that one wrong file is reported once
and where it is wrong. The curve CSVs and figures are not checked: no number is quoted from them.

Run as ``python -m dermdistill.reporting.verify``; exit code 1 if anything differs.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, read_table, sha256
from dermdistill.errors import UserError, run
from dermdistill.evaluation import model_pairs, protocol, robustness, subgroups
from dermdistill.metrics import calibration, predictions, selective
from dermdistill.params import Params
from dermdistill.reporting import ablation, fragments, ladder_tables, results, tables

PARTS = ("val", "holdout")
ROUNDING = 2e-6  # metrics are written with six decimals
REFIT = 1e-4  # another machine's optimiser may stop elsewhere in the last digits
REMEDY = "run `dvc repro`, then `make readme` (`make ablation` for its table), and commit what changes"


def verify(root: str | Path) -> list[str]:
    """One line per mismatch, ``file:key: committed … vs recomputed …``; empty if all is as published."""
    root = Path(root)
    settings = params.load(root / "params.yaml")
    found: list[str] = []
    recomputed: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    models = model_pairs.published(root, settings)
    for model in models:
        try:
            fitted, rules, lines = _check_calibration(root, model, settings)
            found += lines
            for part in PARTS:
                recomputed[part][model], lines = _check_metrics(root, part, model, fitted, rules, settings)
                found += lines
        except UserError as error:
            found.append(str(error))
    found += _check_robustness(root, settings)
    found += _check_shipped(root, settings)
    found += _check_ablation(root, settings) + _check_ladder(root, settings)
    complete = all(len(recomputed[part]) == len(models) for part in PARTS)
    return found + (_check_compared(root, settings) + _check_published(root, settings, recomputed) if complete else [])


def _check_calibration(
    root: Path, model: str, settings: Params
) -> tuple[calibration.Calibration, selective.Rules, list[str]]:
    name, wanted = f"metrics/calibrate/{model}.json", settings.calibrate
    committed, rules = calibration.read(root / name), selective.read(root / name)
    val = predictions.read(root / f"predictions/val/{model}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, wanted.sensitivity)
    again = selective.fit(val.labels, fitted.apply(val.probabilities), wanted.coverage, wanted.keep)
    content = fitted.to_dict() | again.to_dict()
    return committed, rules, list(differences(name, read_json(root / name), content, REFIT))


def _check_ablation(root: Path, settings: Params) -> list[str]:
    documents = [ablation.DOCUMENT] if (root / ablation.DOCUMENT).exists() else []
    try:
        if (ranked := ablation.recompute(root, settings)) is None:
            return []
        lines = list(differences(ablation.METRICS, read_json(root / ablation.METRICS), ranked, ROUNDING))
        return lines + list(_fragment_differences(root, ablation.NAME, ablation.tables(ranked), documents))
    except UserError as error:
        return [str(error)]


def _check_ladder(root: Path, settings: Params) -> list[str]:
    if not (root / ladder_tables.DOCUMENT).exists():
        return []
    try:
        again, documents = ladder_tables.text(root, settings), [ladder_tables.DOCUMENT]
        return list(_fragment_differences(root, ladder_tables.NAME, again, documents))
    except UserError as error:
        return [str(error)]


def _check_metrics(
    root: Path,
    part: str,
    model: str,
    fitted: calibration.Calibration,
    rules: selective.Rules,
    settings: Params,
) -> tuple[dict[str, Any], list[str]]:
    known = predictions.read(root / f"predictions/{part}/{model}.csv")
    lines = _check_images(f"predictions/{part}/{model}.csv", known, _read_split(root / f"data/splits/{part}.csv"))
    if lines:
        raise UserError(lines[0])
    again = recompute(known, fitted, rules, subgroups.read(root, part), settings)
    name = f"metrics/{part}/{model}.json"
    return again, list(differences(name, read_json(root / name), again, ROUNDING))


def recompute(
    known: predictions.Predictions,
    fitted: calibration.Calibration,
    rules: selective.Rules,
    traits: pd.DataFrame,
    settings: Params,
) -> dict[str, Any]:
    """The content of a model's metrics file, as the stage ``evaluate`` writes it."""
    numbers = protocol.Settings(**settings.evaluate.model_dump())
    return protocol.measure(known, fitted.apply(known.probabilities), fitted.thresholds, rules, traits, numbers)


def _check_robustness(root: Path, settings: Params) -> list[str]:
    """From what each model said of the corrupted images, which is in git; the images are not needed."""
    found: list[str] = []
    numbers = settings.robustness.images, settings.evaluate.bootstrap, settings.robustness.seed
    for model in settings.corrupted_ids():
        name = f"metrics/robustness/{model}.json"
        try:
            found += differences(name, read_json(root / name), robustness.of_model(root, model, *numbers), ROUNDING)
        except UserError as error:
            found.append(str(error))
    return found + _check_mean_of_one(root, settings)


def _check_mean_of_one(root: Path, settings: Params) -> list[str]:
    """Robustness is that of the mean of the teachers: where there is one, of what must be that one itself."""
    one, mean = settings.teacher_id, "teacher_ensemble"
    folders = (
        {} if one == mean else {"predictions/val": "csv", "predictions/holdout": "csv", "metrics/calibrate": "json"}
    )
    pairs = [(f"{folder}/{one}.{kind}", f"{folder}/{mean}.{kind}") for folder, kind in folders.items()]
    return [f"{b}: is not {a}, whose mean it is" for a, b in pairs if _bytes(root / a) != _bytes(root / b)]


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _check_compared(root: Path, settings: Params) -> list[str]:
    """Every pair of models and every calibration map; those are refitted."""
    found: list[str] = []
    for name, again, tolerance in (
        ("metrics/compare/models.json", model_pairs.compare_models, ROUNDING),
        ("metrics/compare/calibration.json", model_pairs.compare_calibrations, REFIT),
    ):
        try:
            found += differences(name, read_json(root / name), again(root, settings), tolerance)
        except UserError as error:
            found.append(str(error))
    return found


def _read_split(path: Path) -> pd.DataFrame:
    """``lesion_id, dx, dx_type`` by image_id."""
    table = read_table(path)
    missing = {"image_id", "lesion_id", "dx", "dx_type"} - set(table.columns)
    if missing:
        raise UserError(f"{path} has no column {min(missing)}; run `dvc repro split`")
    return table.set_index("image_id").sort_index()


def _check_images(name: str, known: predictions.Predictions, split: pd.DataFrame) -> list[str]:
    """A file that leaves out hard images, or relabels them, would give flattering and consistent numbers."""
    if list(known.image_id) != list(split.index):
        return [f"{name}: its {len(known)} images are not the {len(split)} of the split; predict again"]
    names = np.array(CLASSES)[known.labels]
    wrong = (names != split["dx"].to_numpy()) | (known.lesion_id != split["lesion_id"].to_numpy())
    return (
        [f"{name}: {known.image_id[wrong][0]} has another diagnosis or lesion than in the split"] if wrong.any() else []
    )


def _check_shipped(root: Path, settings: Params) -> Iterator[str]:
    """The file in git is the one whose checks are published, and carries the evaluated thresholds."""
    model, manifest = root / "models/deploy/student.int8.onnx", "models/deploy/student.int8.json"
    try:
        shipped, text = read_json(root / "metrics/ship.json"), read_json(root / manifest)
        fitted = calibration.read(root / f"metrics/calibrate/{settings.shipped}.json")
        yield from differences("metrics/ship.json", shipped["id"], settings.shipped, 0, "id")
        yield from differences("metrics/ship.json", shipped["sha256"], sha256(model), 0, "sha256")
        yield from differences(manifest, text["sha256"], sha256(model), 0, "sha256")
        carried = {name: fitted.thresholds.get(name, "(absent)") for name in {"sensitivity", *text["thresholds"]}}
        yield from differences(manifest, text["thresholds"], carried, 0, "thresholds")
    except FileNotFoundError:
        yield f"{model} does not exist; restore it from git or run `dvc repro ship`"
    except UserError as error:
        yield str(error)


def _check_published(root: Path, settings: Params, recomputed: Mapping[str, Any]) -> list[str]:
    """Summary, fragments and the documents that hold them, all against the recomputed metrics."""
    val, holdout = recomputed["val"], recomputed["holdout"]
    found: list[str] = []
    try:
        name = "metrics/summary.json"
        found += differences(name, read_json(root / name), tables.summary(val, holdout), ROUNDING)
        again = results.load(root, settings)._replace(val=dict(val), holdout=dict(holdout))
        texts = fragments.texts(again)
        for fragment, text in texts.items():
            documents = [document for document, names in fragments.DOCUMENTS.items() if fragment in names]
            found += _fragment_differences(root, fragment, text, documents)
    except UserError as error:
        found.append(str(error))
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; {REMEDY}") from None


def _fragment_differences(root: Path, name: str, again: str, documents: Sequence[str]) -> Iterator[str]:
    """The fragment's own file, and its place in each of ``documents``."""
    written = f"{fragments.FOLDER}/{name}.md"
    yield from _text_differences(written, _read_text(root / written), again)
    for document in documents:
        yield from _text_differences(document, fragments.split_at_markers(root / document, name)[1], again)


def _text_differences(name: str, committed: str, recomputed: str) -> Iterator[str]:
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
    found = verify(".")
    for line in found:
        print(line)
    if found:
        raise UserError(f"{len(found)} published numbers or files differ; {REMEDY}")
    print("every number in the tables of README and model card follows from the committed predictions")


if __name__ == "__main__":
    run(main)

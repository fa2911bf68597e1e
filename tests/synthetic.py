"""A project of predictions drawn at random, and everything that the stages before ``report`` compute from them."""

from pathlib import Path

import numpy as np
import pandas as pd
from helpers import REPOSITORY, change_params
from scipy.special import softmax

from dermdistill import params
from dermdistill.core import parts
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, sha256, write_json, write_text
from dermdistill.core.model_id import ModelId
from dermdistill.evaluation import cases, corrupted, model_pairs, pareto, protocol, robustness, subgroups
from dermdistill.metrics import calibration, metrics, predictions, selective
from dermdistill.params import Params
from dermdistill.reporting import data_figures, error_figures, panels, style
from dermdistill.reporting.verify import recompute

SHARES = [0.67, 0.11, 0.11, 0.05, 0.03, 0.015, 0.015]
SKILL = {"teacher": 1.75, "student": 1.7, "control": 1.65, "int8": 1.35, "baseline": 1.0}


def make_project(root: Path, images: int, bootstrap: int, prefix: str = "HAM_00") -> Params:
    """A repository's worth of plausible files below ``root``, as the stages before ``report`` leave them."""
    source = REPOSITORY / "params.yaml"
    write_text(root / "params.yaml", source.read_text(encoding="utf-8"))
    changes = {"evaluate.bootstrap": bootstrap, "robustness.images": 60, "run.students": ["tiny"], "run.seeds": [0]}
    changes |= {"ship.seed": 0, "data.other": ["derm7pt"]}
    change_params(root, changes)
    settings = params.load(root / "params.yaml")
    random = np.random.default_rng(0)
    models = settings.model_ids() + settings.baseline_ids()[:1]  # the other baselines have not been run
    write_text(root / "data/patient_metadata.csv", "image_id,age,sex,localization\n")
    for part in ("val", "holdout"):
        write_part(root, part, images, models, random, prefix)
    for part in parts.of_source("derm7pt"):
        write_part(root, part, images // 4, models, random, "A")
    for model in models:
        write_metrics(root, model, settings)
    for model in settings.corrupted_ids():
        write_robustness(root, model, settings, random)
    write_json(root / "metrics/compare/models.json", model_pairs.compare_models(root, settings))
    write_json(root / "metrics/compare/calibration.json", model_pairs.compare_calibrations(root, settings))
    compared = model_pairs.compare_source(root, settings, "derm7pt")
    write_json(root / "metrics/other/derm7pt/compare.json", compared)
    write_rest(root, settings, random)
    return settings


def write_part(root: Path, part: str, images: int, models: list[str], random: np.random.Generator, prefix: str) -> None:
    """Split CSV and predictions; the models share the difficulty of each image, as real ones do."""
    lesion = np.sort(random.integers(0, int(images * 0.75), images))
    of_lesion = random.choice(len(CLASSES), size=images, p=SHARES)
    of_lesion[: len(CLASSES)] = range(len(CLASSES))
    labels = of_lesion[lesion]
    offset = {"val": 20000, "holdout": 30000, "other/derm7pt/other_val": 40000}.get(part, 50000)
    table = pd.DataFrame({
        "image_id": [f"ISIC_00{offset + i}" for i in range(images)],
        "lesion_id": [f"{prefix}{offset + i}" for i in lesion],
        "dx": np.array(CLASSES)[labels],
        "dx_type": np.where((labels == 1) | (random.random(images) < 0.4), "histo", "follow_up"),
    })  # fmt: skip
    path = root / parts.table(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    if part not in parts.EVALUATED:
        table.assign(dx_type="", age="", sex="unknown", localization="unknown").to_csv(path, index=False)
        return write_predictions(root, part, models, random, table, labels)
    table.to_csv(path, index=False)
    with (root / "data/patient_metadata.csv").open("a") as metadata:
        metadata.writelines(
            f"{name},{5 * (i % 18)}.0,{('male', 'female')[i % 2]},back\n" for i, name in enumerate(table["image_id"])
        )
    return write_predictions(root, part, models, random, table, labels)


def write_predictions(
    root: Path, part: str, models: list[str], random: np.random.Generator, table: pd.DataFrame, labels: np.ndarray
) -> None:
    shared = random.normal(size=(len(table), len(CLASSES))) + 0.7 * np.log(SHARES)
    for model in models:
        own = random.normal(scale=0.15 if ModelId.parse(model).kind == "int8" else 0.6, size=shared.shape)
        logits = 1.6 * (shared + own + SKILL[ModelId.parse(model).kind] * np.eye(len(CLASSES))[labels])
        keys = (table["image_id"], table["lesion_id"], table["dx"])
        predictions.write(root / f"predictions/{part}/{model}.csv", *keys, softmax(logits, axis=1))


def write_metrics(root: Path, model: str, settings: Params) -> None:
    val = predictions.read(root / f"predictions/val/{model}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, settings.calibrate.sensitivity)
    chosen = settings.calibrate.coverage, settings.calibrate.keep
    rules = selective.fit(val.labels, fitted.apply(val.probabilities), *chosen)
    write_json(root / f"metrics/calibrate/{model}.json", fitted.to_dict() | rules.to_dict())
    for part in (*parts.of_source("derm7pt"), "val", "holdout"):
        raw = predictions.read(root / f"predictions/{part}/{model}.csv")
        again = recompute(raw, fitted, rules, subgroups.read(root, part), settings)
        write_json(root / f"metrics/{part}/{model}.json", again)
    numbers = protocol.Settings(**settings.evaluate.model_dump())
    for name, table in protocol.tables(raw, fitted.apply(raw.probabilities), numbers).items():
        (root / f"plots/{name}").mkdir(parents=True, exist_ok=True)
        table.to_csv(root / f"plots/{name}/{model}.csv", index=False)


def write_robustness(root: Path, model: str, settings: Params, random: np.random.Generator) -> None:
    """Probabilities for corrupted images that nobody corrupted: noise on the logits, more of it the severer."""
    raw, chosen = predictions.read(root / f"predictions/holdout/{model}.csv"), settings.robustness
    rows = corrupted.choose(raw.labels, chosen.images, chosen.seed)
    clean = raw.probabilities[rows]
    cells = [softmax(np.log(clean) + s * random.normal(size=clean.shape), axis=1) for _, s in corrupted.CONDITIONS]
    content = corrupted.Corrupted(raw.image_id[rows], clean.astype(np.float16), np.array(cells, np.float16))
    corrupted.write(root / f"predictions/corrupted/{model}.npz", content)
    numbers = chosen.images, settings.evaluate.bootstrap, chosen.seed
    write_json(root / f"metrics/robustness/{model}.json", robustness.of_model(root, model, *numbers))


def write_rest(root: Path, settings: Params, random: np.random.Generator) -> None:
    """Histories, errors, panels of noise, and the JSON of the other stages."""
    epochs = np.arange(1, 11)
    for model in settings.model_ids():
        if model == "teacher_ensemble":
            continue  # a mean has no history
        area = 0.9 - 0.15 * np.exp(-epochs / 3) + random.normal(scale=0.005, size=10)
        loss = 0.6 + np.exp(-epochs / 3)
        columns = {"epoch": epochs, "train_loss": loss, "val_loss": loss + 0.1, "val_melanoma_auc": area,
                   "val_balanced_accuracy": area - 0.2, "lr": 1e-3, "kept": 1 * (epochs == 10)}  # fmt: skip
        (root / "plots/training").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(columns).to_csv(root / f"plots/training/{model}.csv", index=False)
    roles = cases.roles(settings)
    evaluated = cases.evaluate_roles(root, {role: roles[role] for role in ("teacher", "student", "int8")})
    write_json(root / "metrics/analyze_errors.json", metrics.rounded(cases.agreement(evaluated, 0.9)))
    picked = cases.pick(evaluated, 0.9, 12)
    (root / "plots/errors").mkdir(parents=True)
    picked.to_csv(root / "plots/errors/cases.csv", index=False)
    dot = panels.panel([random.integers(0, 255, (12, 16, 3), dtype=np.uint8)] * 2, ["one", "two"])
    for name in error_figures.FIGURES:
        style.save(dot, root / f"plots/errors/{name}.png")
    for kind in picked["kind"].unique():
        for folder in ("panels", "explain"):
            style.save(dot, root / f"reports/{folder}/{kind}.png")
    style.save(dot, root / "reports/explain/neighbours.png")
    shares = {"least_likely": 0.1, "all": 0.4}
    counts = {"least_likely": 8, "melanomas": 30, "neighbours": 5}
    write_json(root / "metrics/explain.json", counts | {"melanoma_among_neighbours": shares})
    for name in data_figures.FIGURES:
        style.save(dot, root / f"plots/data/{name}.png")
    for name in data_figures.PICTURES:
        style.save(dot, root / f"reports/data/{name}.png")
    seen = dict.fromkeys(("confirmed_and_same", "confirmed_but_different", "unsure", "pairs"), 3)
    audit = {
        "candidates_of_different_lesions": 9,
        "confirmed_duplicates": 4,
        "within_lesions": {"pairs": 9, "confirmed": 7},
    }
    write_json(root / "metrics/audit.json", audit | {"labelled_by_eye": seen | {"precision_of_confirmed": 0.5}})
    write_json(root / "metrics/describe.json", {"raw_sizes": {"200 × 150": 10015}})
    counts = dict.fromkeys(CLASSES, 100)
    write_json(
        root / "metrics/prepare.json", {"images": 10015, "images_by_diagnosis": counts, "files_without_a_row": []}
    )
    write_json(root / "metrics/split.json", {"seed": 42, "images_by_diagnosis": {"train": counts, "val": counts}})
    write_json(root / f"metrics/quantize/{settings.shipped}.json", {"bytes": {"fp32": 4_000_000, "int8": 1_100_000}})
    write_text(root / "models/deploy/student.int8.onnx", "stands for a model")
    digest = sha256(root / "models/deploy/student.int8.onnx")
    thresholds = read_json(root / f"metrics/calibrate/{settings.shipped}.json")["thresholds"]
    write_json(root / "models/deploy/student.int8.json", {"sha256": digest, "thresholds": thresholds})
    write_json(root / "metrics/ship.json", {"id": settings.shipped, "sha256": digest})
    same = {"batch_1": {"max_abs_dp": 0.0, "mean_abs_dp": 0.0, "agreement": 1.0}, "bytes": 4_000_000}
    same |= {"auc_change": 0.0, "auc_low": 0.0, "auc_high": 0.0}
    formats = {"onnx": same, "onnx_int8": same | {"cost": {"equal_decisions": 0.987}}}
    write_json(root / "metrics/export.json", {"n": 7, "reference": "student_tiny_s0, PyTorch", "formats": formats})
    timed = {"mean": 2.0, "sd": 0.1, "p50": 2.0, "p90": 2.1, "p99": 2.2, "images_per_second": 500.0, "cpu_p50": 2.0}
    networks = pareto.networks(settings)
    entries = [f"{one} {'onnx_int8' if ModelId.parse(one).kind == 'int8' else 'onnx'}" for one in networks]
    write_json(
        root / "metrics/benchmark.json",
        {
            "sentences": ["No INT8 file is slower."],
            "machine": {"cores": 2},
            "predict_one_jpeg": {"decode_ms": 3.0},
            "models": {one: {"parameters": 10**6, "macs": 17 * 10**7} for one in networks},
            "static": {one: {"bytes": 4_000_000, "load_ms": 8.0, "peak_memory_mb": 93.0} for one in entries},
            "latency": {condition: dict.fromkeys(entries, timed) for condition in (pareto.CONDITION, "2 threads")},
            "times_int8": {"cpu": {"student_tiny_s0 onnx": 1.72}},
        },
    )

"""Verify against a small synthetic project: predictions drawn at random, everything else computed from them."""

import json
import shutil
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from helpers import REPOSITORY, change_params, write_documents
from scipy.special import softmax

from dermdistill import params
from dermdistill.core.classes import CLASSES
from dermdistill.core.files import read_json, sha256, write_json, write_text
from dermdistill.evaluation import cases, corrupted, model_pairs, protocol, robustness, subgroups
from dermdistill.metrics import calibration, metrics, predictions, selective
from dermdistill.params import Params
from dermdistill.reporting import dataset, error_figures, fragments, ladder_tables, plots, report
from dermdistill.reporting.verify import differences, recompute, verify

SHARES = [0.67, 0.11, 0.11, 0.05, 0.03, 0.015, 0.015]
SKILL = {"teacher": 1.75, "student": 1.7, "control": 1.65, "int8": 1.35, "baseline": 1.0}


def make_project(root: Path, images: int, bootstrap: int, prefix: str = "HAM_00") -> Params:
    """A repository's worth of plausible files below ``root``, as the stages before ``report`` leave them."""
    source = REPOSITORY / "params.yaml"
    write_text(root / "params.yaml", source.read_text(encoding="utf-8"))
    changes = {"evaluate.bootstrap": bootstrap, "robustness.images": 60, "run.students": ["tiny"], "run.seeds": [0]}
    changes |= {"ship.seed": 0}
    change_params(root, changes)
    settings = params.load(root / "params.yaml")
    random = np.random.default_rng(0)
    models = settings.model_ids() + settings.baseline_ids()[:1]  # the other baselines have not been run
    write_text(root / "data/patient_metadata.csv", "image_id,age,sex,localization\n")
    for part in ("val", "holdout"):
        write_part(root, part, images, models, random, prefix)
    for model in models:
        write_metrics(root, model, settings)
    for name in ("predictions/val", "predictions/holdout", "metrics/calibrate"):  # an ensemble of one is that one
        suffix = "json" if name.startswith("metrics") else "csv"
        if settings.teacher_id != "teacher_ensemble":
            shutil.copy(root / f"{name}/{settings.teacher_id}.{suffix}", root / f"{name}/teacher_ensemble.{suffix}")
    for model in settings.corrupted_ids():
        write_robustness(root, model, settings, random)
    write_json(root / "metrics/compare/models.json", model_pairs.compare_models(root, settings))
    write_json(root / "metrics/compare/calibration.json", model_pairs.compare_calibrations(root, settings))
    write_rest(root, settings, random)
    return settings


def write_part(root: Path, part: str, images: int, models: list[str], random: np.random.Generator, prefix: str) -> None:
    """Split CSV and predictions; the models share the difficulty of each image, as real ones do."""
    lesion = np.sort(random.integers(0, int(images * 0.75), images))
    of_lesion = random.choice(len(CLASSES), size=images, p=SHARES)
    of_lesion[: len(CLASSES)] = range(len(CLASSES))
    labels = of_lesion[lesion]
    offset = {"val": 20000, "holdout": 30000}[part]
    table = pd.DataFrame({
        "image_id": [f"ISIC_00{offset + i}" for i in range(images)],
        "lesion_id": [f"{prefix}{offset + i}" for i in lesion],
        "dx": np.array(CLASSES)[labels],
        "dx_type": np.where((labels == 1) | (random.random(images) < 0.4), "histo", "follow_up"),
    })  # fmt: skip
    (root / "data/splits").mkdir(parents=True, exist_ok=True)
    table.to_csv(root / f"data/splits/{part}.csv", index=False)
    with (root / "data/patient_metadata.csv").open("a") as metadata:
        metadata.writelines(
            f"{name},{5 * (i % 18)}.0,{('male', 'female')[i % 2]},back\n" for i, name in enumerate(table["image_id"])
        )
    shared = random.normal(size=(images, len(CLASSES))) + 0.7 * np.log(SHARES)
    for model in models:
        own = random.normal(scale=0.15 if model.startswith("int8") else 0.6, size=shared.shape)
        logits = 1.6 * (shared + own + SKILL[model.split("_")[0]] * np.eye(len(CLASSES))[labels])
        keys = (table["image_id"], table["lesion_id"], table["dx"])
        predictions.write(root / f"predictions/{part}/{model}.csv", *keys, softmax(logits, axis=1))


def write_metrics(root: Path, model: str, settings: Params) -> None:
    val = predictions.read(root / f"predictions/val/{model}.csv")
    fitted = calibration.fit(val.labels, val.probabilities, settings.calibrate.sensitivity)
    chosen = settings.calibrate.coverage, settings.calibrate.keep
    rules = selective.fit(val.labels, fitted.apply(val.probabilities), *chosen)
    write_json(root / f"metrics/calibrate/{model}.json", fitted.to_dict() | rules.to_dict())
    for part in ("val", "holdout"):
        known = predictions.read(root / f"predictions/{part}/{model}.csv")
        again = recompute(known, fitted, rules, subgroups.read(root, part), settings)
        write_json(root / f"metrics/{part}/{model}.json", again)
    numbers = protocol.Settings(**settings.evaluate.model_dump())
    for name, table in protocol.tables(known, fitted.apply(known.probabilities), numbers).items():
        (root / f"plots/{name}").mkdir(parents=True, exist_ok=True)
        table.to_csv(root / f"plots/{name}/{model}.csv", index=False)


def write_robustness(root: Path, model: str, settings: Params, random: np.random.Generator) -> None:
    """Probabilities for corrupted images that nobody corrupted: noise on the logits, more of it the severer."""
    known, chosen = predictions.read(root / f"predictions/holdout/{model}.csv"), settings.robustness
    rows = corrupted.choose(known.labels, chosen.images, chosen.seed)
    clean = known.probabilities[rows]
    conditions = [softmax(np.log(clean) + s * random.normal(size=clean.shape), axis=1) for _, s in corrupted.CONDITIONS]
    content = corrupted.Corrupted(known.image_id[rows], clean.astype(np.float16), np.array(conditions, np.float16))
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
    dot = plots.panel([random.integers(0, 255, (12, 16, 3), dtype=np.uint8)] * 2, ["one", "two"])
    for name in error_figures.FIGURES:
        plots.save(dot, root / f"plots/errors/{name}.png")
    for kind in picked["kind"].unique():
        for folder in ("panels", "explain"):
            plots.save(dot, root / f"reports/{folder}/{kind}.png")
    plots.save(dot, root / "reports/explain/neighbours.png")
    shares = {"least_likely": 0.1, "all": 0.4}
    counts = {"least_likely": 8, "melanomas": 30, "neighbours": 5}
    write_json(root / "metrics/explain.json", counts | {"melanoma_among_neighbours": shares})
    for name in dataset.FIGURES:
        plots.save(dot, root / f"plots/data/{name}.png")
    for name in dataset.PICTURES:
        plots.save(dot, root / f"reports/data/{name}.png")
    seen = dict.fromkeys(("confirmed_and_same", "confirmed_but_different", "unsure", "pairs"), 3)
    found = {"candidates_of_different_lesions": 9, "confirmed_twins": 4, "within_lesions": {"pairs": 9, "confirmed": 7}}
    write_json(root / "metrics/audit.json", found | {"labelled_by_eye": seen | {"precision_of_confirmed": 0.5}})
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
    timed = {"mean": 2.0, "sd": 0.1, "p50": 2.0, "p90": 2.1, "p99": 2.2, "images_per_second": 500.0}
    write_json(
        root / "metrics/benchmark.json",
        {
            "sentences": ["No INT8 file is slower."],
            "machine": {"cores": 2},
            "predict_one_jpeg": {"decode_ms": 3.0},
            "models": {"student_tiny_s0": {"parameters": 10**6, "macs": 17 * 10**7}},
            "static": {"student_tiny_s0 onnx": {"bytes": 4_000_000, "load_ms": 8.0, "peak_memory_mb": 93.0}},
            "latency": {f"{n} threads, batch 1": {"student_tiny_s0 onnx": timed} for n in (1, 2)},
            "times_int8": {"cpu": {"student_tiny_s0 onnx": 1.72}},
        },
    )
    for name in ("pareto", "latency"):
        plots.save(dot, root / f"plots/pareto/{name}.png")


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    matplotlib.rcParams["savefig.dpi"] = 30  # what the figures look like is another test's concern
    root = tmp_path_factory.mktemp("project")
    settings = make_project(root, images=300, bootstrap=40)
    report.build(root, settings)
    write_documents(root)
    return root


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "project"))


def edit(path: Path, keys: list[str], value: object) -> None:
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    path.write_text(json.dumps(content))


def test_another_shipped_file_is_found(project: Path) -> None:
    with (project / "models/deploy/student.int8.onnx").open("a") as model:
        model.write("!")
    assert [line.split(":")[0] for line in verify(project)] == ["metrics/ship.json", "models/deploy/student.int8.json"]
    (project / "models/deploy/student.int8.onnx").unlink()
    assert "student.int8.onnx does not exist" in verify(project)[0]


def test_another_threshold_in_the_shipped_file_is_found(project: Path) -> None:
    edit(project / "models/deploy/student.int8.json", ["thresholds", "sensitivity"], 0.5)
    assert [line.split(": ")[0] for line in verify(project)] == [
        "models/deploy/student.int8.json:thresholds.sensitivity"
    ]


def test_an_honest_project_has_no_mismatch(pristine: Path) -> None:
    assert verify(pristine) == []


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("metrics/holdout/student_tiny_s0.json", ["melanoma", "roc_auc"]),
        ("metrics/holdout/int8_tiny_s0.json", ["melanoma", "histology", "roc_auc"]),
        ("metrics/val/teacher_lite0.json", ["diagnosis", "per_class", "bkl", "f1"]),
        ("metrics/calibrate/student_tiny_s0.json", ["temperature"]),
        ("metrics/summary.json", ["int8_tiny_s0", "holdout", "macro_f1"]),
        ("metrics/holdout/baseline_logistic.json", ["melanoma", "roc_auc"]),
        ("metrics/holdout/int8_tiny_s0.json", ["selective", "conformal", "marginal", "coverage"]),
        ("metrics/calibrate/int8_tiny_s0.json", ["conformal", "marginal"]),
        ("metrics/robustness/int8_tiny_s0.json", ["conditions", "blur", "3", "roc_auc"]),
        ("metrics/robustness/teacher_ensemble.json", ["mean_drop", "macro_f1", "drop"]),
        ("metrics/compare/models.json", ["families", "student_tiny", "melanoma.roc_auc", "mean"]),
        ("metrics/compare/calibration.json", ["int8_tiny_s0", "methods", "vector", "holdout", "nll"]),
    ],
)
def test_a_tampered_number_is_named(project: Path, name: str, keys: list[str]) -> None:
    edit(project / name, keys, 0.987654)
    found = verify(project)
    assert any(line.startswith(f"{name}:{'.'.join(keys)}: committed 0.987654 vs recomputed") for line in found)


def test_the_mean_of_one_teacher_is_that_teacher(project: Path) -> None:
    name = "predictions/holdout/teacher_ensemble.csv"
    (project / name).write_text((project / name).read_text() + "\n")
    assert any(line.startswith(f"{name}: is not predictions/holdout/teacher_") for line in verify(project))


def test_a_tampered_interval_is_named(project: Path) -> None:
    name = "metrics/holdout/control_tiny_s0.json"
    edit(project / name, ["intervals", "melanoma.roc_auc"], [0.5, 0.99])
    assert any("intervals.melanoma.roc_auc[1]: committed 0.99" in line for line in verify(project))


def test_a_tampered_readme_is_named(project: Path) -> None:
    readme = project / "README.md"
    lines = readme.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("| **`int8_tiny_s0`**"))
    lines[row] = lines[row].replace("0.", "0.9", 1)
    readme.write_text("\n".join(lines) + "\n")
    found = verify(project)
    assert len(found) == 1 and found[0].startswith("README.md:line")


LADDER = """rung,agreement,auc_drop,equal_decisions,bytes,time_ratio,breaks
naive,0.848322,0.054337,0.762416,1119653,0.68,"auc_drop 0.05434 (allowed 0.003), agreement 0.8483 (needed 0.95)"
minmax,0.98255,-0.00018,0.985235,1259277,0.5,
entropy,0.98,0.002,0.98,1259274,0.6,
"""


def test_the_ladder_stands_in_its_document_as_it_was_measured(project: Path) -> None:
    document, measured = project / ladder_tables.DOCUMENT, project / ladder_tables.LADDERS / "int8_tiny_s0.csv"
    write_text(project / ladder_tables.TABLES, "old\n")
    write_text(document, "Before.\n\n<!-- ladder -->\n<!-- /ladder -->\n\nAfter.\n")
    assert "int8_tiny_s0.csv does not exist" in verify(project)[0]
    write_text(measured, LADDER)
    assert {line.split(":")[0] for line in verify(project)} == {ladder_tables.DOCUMENT, ladder_tables.TABLES}
    write_text(project / ladder_tables.TABLES, ladder_tables.text(project, params.load(project / "params.yaml")))
    fragments.insert(document, ladder_tables.NAME, project / ladder_tables.TABLES)
    assert verify(project) == []
    text = document.read_text()
    assert "| `naive` | 0.054 | 84.8 % | 76.2 % | 1,120 | 0.68 | `auc_drop`, `agreement` |" in text
    assert "| **`minmax`** | 0.000 | 98.3 % | 98.5 % | 1,259 | 0.50 |  |" in text and text.count("**") == 2
    write_text(measured, LADDER.replace("0.054337", "0.044337"))
    assert len(verify(project)) == 2


def test_a_prediction_left_out_is_named(project: Path) -> None:
    path = project / "predictions/holdout/student_tiny_s0.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert any("its 299 images are not the 300 of the split" in line for line in verify(project))


def test_a_changed_probability_shows_in_the_metrics(project: Path) -> None:
    path = project / "predictions/holdout/control_tiny_s0.csv"
    table = pd.read_csv(path)
    values = table.filter(like="p_").to_numpy()[::-1]
    predictions.write(path, table["image_id"], table["lesion_id"], table["dx"], values)
    assert any(line.startswith("metrics/holdout/control_tiny_s0.json:melanoma.roc_auc") for line in verify(project))


def test_predictions_on_corrupted_images_must_be_the_chosen_models_and_images(project: Path) -> None:
    folder = project / "predictions/corrupted"
    shutil.copy(folder / "teacher_ensemble.npz", folder / "int8_tiny_s0.npz")
    change_params(project, {"robustness.images": 50})
    lines = verify(project)
    assert len(lines) == 3 and all("not of the images that robustness.images" in line for line in lines)
    change_params(project, {"robustness.images": 60})
    assert [line for line in verify(project) if "int8_tiny_s0.npz comes from another model" in line] == verify(project)


def test_a_missing_file_is_one_line_and_no_crash(project: Path) -> None:
    (project / "metrics/val/teacher_lite0.json").unlink()
    found = verify(project)
    assert len(found) == 1 and "teacher_lite0.json does not exist" in found[0]


def test_null_is_not_zero_and_keys_may_not_vanish() -> None:
    assert list(differences("f", {"a": None}, {"a": 0.0}, 1e-6)) == ["f:a: committed None vs recomputed 0.0"]
    assert len(list(differences("f", {"a": 1.0}, {"a": 1.0, "b": 2.0}, 1e-6))) == 1
    assert len(list(differences("f", {"a": [1]}, {"a": [1, 2]}, 1e-6))) == 1

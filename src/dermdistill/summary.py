"""``dermdistill summary``: what is complete, what is missing and which command makes it, what is best so far on val.

Reads parameters, dvc.lock and metrics alone, without DVC, so it takes a second or two. A model is *outdated* when
the parameters it was made with, as dvc.lock has them, are no longer those of params.yaml, and *unrecorded* when
dvc.lock lacks a stage that made it. Whether code or data changed only ``dvc status`` can tell.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dermdistill import ablation, params
from dermdistill.core.files import read_json
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError
from dermdistill.params import Params

try:
    from yaml import CSafeLoader as Loader  # a dvc.lock of some thousand lines: a tenth of the time
except ImportError:
    from yaml import SafeLoader as Loader  # type: ignore[assignment]


class Lock(Loader):
    """Of dvc.lock, which is YAML 1.2: there 3e-05 is a number, which PyYAML takes for text."""


Lock.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+e[-+]?\d+$"), list("-+0123456789"))


class Row(NamedTuple):
    model: str
    state: str  # complete, outdated, missing, or unrecorded: dvc.lock does not tell what it was made with
    auc: float | None  # melanoma AUC on val, raw: calibration was fitted there
    command: str  # what completes it


def rows(root: str | Path, settings: Params) -> list[Row]:
    """Every model that params.yaml asks for, in the order of the story."""
    root = Path(root)
    content = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    lock = root / "dvc.lock"
    ran = Lock(lock.read_text(encoding="utf-8")).get_single_data()["stages"] if lock.exists() else {}
    result = []
    for model in settings.evaluated_ids():
        made = _stages(ModelId.parse(model), settings.kd.teachers)
        path = root / f"metrics/val/{model}.json"
        complete = (
            all((root / f"predictions/{part}/{model}.csv").exists() for part in ("val", "holdout")) and path.exists()
        )
        stale = any(_changed(ran.get(stage, {}), content) for stage in made)
        known = "complete" if all(stage in ran for stage in made) else "unrecorded"
        state = "missing" if not complete else "outdated" if stale else known
        auc = read_json(path)["raw"]["melanoma_roc_auc"] if path.exists() else None
        result.append(Row(model, state, auc, "dvc repro evaluate"))
    return result


def lines(root: str | Path = ".") -> list[str]:
    """The summary as text."""
    settings = params.load(Path(root) / "params.yaml")
    models = rows(root, settings)
    text = [f"{row.state:<10} {row.model:<30} {_auc(row.auc)}  {_needed(row)}".rstrip() for row in models]
    done: list[str] = []
    try:
        wanted, left = ablation.runs(settings), ablation.missing(root)
    except UserError as error:
        text.append(f"ablation   cannot run: {error}")
    else:
        done = [name for name in wanted if name not in left]
        rest = "; `make ablation` makes the rest" if left else ""
        text.append(f"ablation   {len(done)} of {len(wanted)} runs{rest}")
    path = Path(root) / "metrics/ablation.json"
    if path.exists():
        best = read_json(path)
        auc = next(row["metrics"]["melanoma ROC-AUC"]["value"] for row in best["rows"] if row["name"] == best["best"])
        state = "complete" if best["best"] in done else "outdated"
        text.append(f"best run on val: {best['best']}, melanoma AUC {auc:.4f} ({state})")
    for kind in ("teacher", "student", "control", "int8", "baseline"):
        known = [row for row in models if row.model.startswith(kind) and row.auc is not None]
        if known:
            first = max(known, key=lambda row: row.auc or 0.0)
            text.append(f"best {kind} on val: {first.model}, melanoma AUC {_auc(first.auc)} ({first.state})")
    return text


def _stages(model_id: ModelId, teachers: Sequence[str]) -> list[str]:
    """The stages whose parameters made a model; ``teachers``: the students'."""
    data, name = ["prepare", "audit", "split"], model_id.name
    together = [f"{stage}@{teacher}" for teacher in teachers for stage in ("train_teacher", "teacher_targets")]
    together.append("ensemble")
    if model_id.kind == "baseline":
        return [*data, f"baseline@{name}"]
    if model_id.kind == "teacher":
        alone = [f"train_teacher@{name}", f"predict_teacher@{name}"]
        return data + (alone if name != "ensemble" else [f"predict_teacher@{teacher}" for teacher in teachers])
    item = f"{name}-{model_id.seed}"
    trained = [f"control@{item}"] if model_id.kind == "control" else [*together, f"distill@{item}"]
    return data + trained + ([f"quantize@{item}"] if model_id.kind == "int8" else [])


def _changed(stage: dict[str, Any], content: dict[str, Any]) -> bool:
    """Whether parameters that a stage was run with have other values now."""
    recorded = stage.get("params", {}).get("params.yaml", {})
    return any(_value(content, name) != value for name, value in recorded.items())


def _value(content: Any, name: str) -> Any:
    for part in name.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _auc(value: float | None) -> str:
    return "  –   " if value is None else f"{value:.4f}"


def _needed(row: Row) -> str:
    return "" if row.state == "complete" else f"`{row.command}`"

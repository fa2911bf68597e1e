"""The metrics files of a run, read by model id: the input of every table, figure and sentence of the report.

Never by listing a folder, so that a file left over from an earlier run cannot slip in. Deliberately absent: any number
of its own, but for the means of ``metrics/summary.json``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from dermdistill.core import parts
from dermdistill.core.files import read_json
from dermdistill.errors import UserError
from dermdistill.evaluation import cases, model_pairs
from dermdistill.params import Params
from dermdistill.reporting.render import Metrics, lookup

RAW = {"melanoma_roc_auc": "raw.melanoma_roc_auc", "macro_f1": "raw.diagnosis_macro_f1"}
CALIBRATED = {"melanoma_roc_auc": "melanoma.roc_auc", "macro_f1": "diagnosis.macro_f1"}
STAGES = ("prepare", "describe", "audit", "split", "analyze_errors", "explain", "ship", "export", "benchmark")


class Comparison(NamedTuple):
    """Melanoma AUC of ``first`` minus that of ``second`` on the holdout, with its paired 95 % interval.

    ``detectable``: the true difference that such an interval would tell from zero with a power of 80 %.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    detectable: float


class Other(NamedTuple):
    """One part of another source: the metrics of every model by id, and every pair and family there."""

    models: dict[str, Any]
    compared: dict[str, Any]


class Results(NamedTuple):
    """The metrics files of every model of a run, by id in the run's order."""

    settings: Params
    val: dict[str, Any]
    holdout: dict[str, Any]
    calibration: dict[str, Any]
    comparisons: list[Comparison]
    compared: dict[str, Any]  # every pair and family
    maps: dict[str, Any]  # every calibration map
    robustness: dict[str, Any]  # of teacher, student and deployed model
    others: dict[str, Other]  # by part (core.parts) of the sources in data.other

    def by_part(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
        """The models' metrics on val, on the holdout, and on each part of another source."""
        return self.val, self.holdout, {part: other.models for part, other in self.others.items()}

    @property
    def roles(self) -> dict[str, str]:
        """Role (teacher, student, control, int8) → model id."""
        return cases.roles(self.settings)


def load(root: str | Path, settings: Params) -> Results:
    folder, models = Path(root) / "metrics", model_pairs.published(root, settings)
    val, holdout, calibration = (
        {model: read_json(folder / kind / f"{model}.json") for model in models}
        for kind in ("val", "holdout", "calibrate")
    )
    compared, maps = (read_json(folder / f"compare/{name}.json") for name in ("models", "calibration"))
    robustness = {model: read_json(folder / f"robustness/{model}.json") for model in settings.corrupted_ids()}
    others = {
        part: Other(
            {model: read_json(folder / part / f"{model}.json") for model in models},
            read_json(folder / f"other/{source}/compare.json")[part],
        )
        for source in settings.data.other
        for part in parts.of_source(source)
    }
    pairs = comparisons(compared, settings)
    return Results(settings, val, holdout, calibration, pairs, compared, maps, robustness, others)


def load_stages(root: str | Path, settings: Params) -> dict[str, Any]:
    """Stage → its metrics, of the stages that write one file; ``quantize``: that of the deployed model."""
    files = {name: f"{name}.json" for name in STAGES} | {"quantize": f"quantize/{settings.shipped}.json"}
    return {name: read_json(Path(root) / "metrics" / file) for name, file in files.items()}


def read_table(root: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(root / name, converters={"image_id": str})  # not a number, nor missing if it reads NA
    except FileNotFoundError:
        raise UserError(f"{root / name} does not exist; `dvc repro` makes it") from None


def comparisons(compared: Metrics, settings: Params) -> list[Comparison]:
    """Of every student, the deployed one first: against its control, its teacher, and its INT8 model against it.

    Melanoma AUC on the holdout, of means over seeds where there are several. A pair whose difference is undefined is
    left out.

    Raises:
        UserError: a pair has not been compared, because the student is new in ``run.students``.
    """
    pairs = {(pair["a"], pair["b"]): pair for pair in compared["pairs"]}
    made = []
    for name in sorted(settings.run.students, key=lambda name: name != settings.ship.student):
        student = f"student_{name}"
        for wanted in ((student, f"control_{name}"), (student, settings.teacher_id), (f"int8_{name}", student)):
            if (pair := pairs.get(wanted)) is None:
                raise UserError(
                    f"metrics/compare/models.json lacks {' against '.join(wanted)}; run `dvc repro compare`"
                )
            gap = pair["metrics"]["melanoma.roc_auc"]
            if gap["difference"] is not None:
                first, second = (with_seeds(one, seeds) for one, seeds in zip(wanted, pair["seeds"], strict=True))
                made.append(Comparison(first, second, gap["difference"], gap["low"], gap["high"], gap["detectable"]))
    return made


def with_seeds(family: str, seeds: int) -> str:
    return f"{family} ({seeds} seeds)" if seeds > 1 else family


def summary(
    val: Mapping[str, Metrics], holdout: Mapping[str, Metrics], others: Mapping[str, Mapping[str, Metrics]]
) -> dict[str, Any]:
    """The few numbers per model that `dvc metrics` and `dvc exp show` put side by side: each is a column there.

    Those on val are of raw probabilities, since calibration was fitted on val. A network trained with several seeds has
    a row of means besides. ``others``: part of another source → the models' metrics there.
    """
    models = list(val)
    several = {name: members for name, members in model_pairs.families(models).items() if len(members) > 1}
    sides = {"val": (val, RAW), "holdout": (holdout, CALIBRATED)}
    sides |= {part.removeprefix("other/"): (metrics, CALIBRATED) for part, metrics in others.items()}
    return {
        model: {
            part: {name: _mean([lookup(metrics[one], key) for one in members]) for name, key in keys.items()}
            for part, (metrics, keys) in sides.items()
        }
        for model, members in ({model: [model] for model in models} | several).items()
    }


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return round(sum(defined) / len(defined), 6) if len(defined) == len(values) else None

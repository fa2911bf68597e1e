"""The metrics files of a run, read by model id: what every table, figure and sentence of the report starts from.

Never by listing a folder, so that a file left over from an earlier run cannot slip in. Deliberately absent: any number
of its own.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from dermdistill.core.files import read_json
from dermdistill.errors import UserError
from dermdistill.evaluation import model_pairs
from dermdistill.params import Params
from dermdistill.reporting.tables import Comparison


class Results(NamedTuple):
    """The metrics files of every model of a run, by id in the run's order."""

    settings: Params
    val: dict[str, Any]
    holdout: dict[str, Any]
    calibration: dict[str, Any]
    comparisons: list[Comparison]
    compared: dict[str, Any]  # every pair and family
    maps: dict[str, Any]  # every calibration map
    robustness: dict[str, Any]  # of teacher, student and shipped file


class Drawn(NamedTuple):
    name: str
    figure: Figure
    title: str
    alt: str
    caption: str


def read_table(root: Path, name: str) -> pd.DataFrame:
    try:
        return pd.read_csv(root / name, converters={"image_id": str})  # not a number, nor missing if it reads NA
    except FileNotFoundError:
        raise UserError(f"{root / name} does not exist; `dvc repro` makes it") from None


def curve(root: Path, kind: str, model: str) -> pd.DataFrame:
    return read_table(root, f"plots/curves/{kind}/{model}.csv")


def load(root: str | Path, settings: Params) -> Results:
    folder, models = Path(root) / "metrics", model_pairs.published(root, settings)
    val, holdout, calibrate = (
        {model: read_json(folder / kind / f"{model}.json") for model in models}
        for kind in ("val", "holdout", "calibrate")
    )
    compared, maps = (read_json(folder / f"compare/{name}.json") for name in ("models", "calibration"))
    tried = {model: read_json(folder / f"robustness/{model}.json") for model in settings.corrupted_ids()}
    robustness = dict(zip([settings.teacher_id, *list(tried)[1:]], tried.values(), strict=True))  # an ensemble of one
    return Results(settings, val, holdout, calibrate, verdicts(compared, settings), compared, maps, robustness)


def verdicts(compared: dict[str, Any], settings: Params) -> list[Comparison]:
    """Of every student, the one that ships first: against its control, its teacher, and its INT8 against it.

    Melanoma AUC on the holdout, of means over seeds where there are several. A pair whose difference is undefined is
    left out.

    Raises:
        UserError: a pair has not been compared, because the student is new in ``run.students``.
    """
    pairs = {(pair["a"], pair["b"]): pair for pair in compared["pairs"]}
    found = []
    for name in sorted(settings.run.students, key=lambda name: name != settings.ship.student):
        student = f"student_{name}"
        for wanted in ((student, f"control_{name}"), (student, settings.teacher_id), (f"int8_{name}", student)):
            if (pair := pairs.get(wanted)) is None:
                raise UserError(
                    f"metrics/compare/models.json lacks {' against '.join(wanted)}; run `dvc repro compare`"
                )
            gap = pair["metrics"]["melanoma.roc_auc"]
            names = [f"{one} ({n} seeds)" if n > 1 else one for one, n in zip(wanted, pair["seeds"], strict=True)]
            if gap["difference"] is not None:
                found.append(
                    Comparison(names[0], names[1], gap["difference"], gap["low"], gap["high"], gap["detectable"])
                )
    return found

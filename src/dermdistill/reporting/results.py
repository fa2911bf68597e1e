"""The metrics files of a run, read by model id: what every table, figure and sentence of the report starts from.

Never by listing a folder, so that a file left over from an earlier run cannot slip in. Deliberately absent: any number
of its own but the paired differences, which ``verify`` recomputes from the predictions too.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from dermdistill.errors import UserError
from dermdistill.evaluation import uncertainty
from dermdistill.files import read_json
from dermdistill.params import Params
from dermdistill.reporting import cases, comparisons
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
        return pd.read_csv(root / name)
    except FileNotFoundError:
        raise UserError(f"{root / name} does not exist; `dvc repro` makes it") from None


def curve(root: Path, kind: str, model: str) -> pd.DataFrame:
    return read_table(root, f"plots/curves/{kind}/{model}.csv")


def load(root: str | Path, settings: Params) -> Results:
    folder, models = Path(root) / "metrics", comparisons.published(root, settings)
    val, holdout, calibrate = (
        {model: read_json(folder / kind / f"{model}.json") for model in models}
        for kind in ("val", "holdout", "calibrate")
    )
    compared, maps = (read_json(folder / f"compare/{name}.json") for name in ("models", "calibration"))
    tried = {model: read_json(folder / f"robustness/{model}.json") for model in settings.corrupted_ids()}
    robustness = dict(zip([settings.teacher_id, *list(tried)[1:]], tried.values(), strict=True))  # an ensemble of one
    return Results(settings, val, holdout, calibrate, compare(root, settings), compared, maps, robustness)


def compare(root: str | Path, settings: Params) -> list[Comparison]:
    """Student against control, student against teacher, INT8 against student: melanoma AUC on the holdout.

    Of the models of the seed that ships, or with several seeds of their means.
    """
    if len(settings.run.seeds) > 1:
        return _over_seeds(read_json(Path(root) / "metrics/compare/models.json"), settings)
    judged = cases.judge(root, cases.roles(settings))
    count, seed = settings.evaluate.bootstrap, settings.evaluate.seed
    found = []
    for first, second in (("student", "control"), ("student", "teacher"), ("int8", "student")):
        a, b = judged[first], judged[second]
        area_a, area_b = (uncertainty.roc_auc(one.known.melanoma, one.p_melanoma) for one in (a, b))
        difference = uncertainty.paired_difference(area_b, area_a, a.known.lesion_id, count, seed)  # a minus b
        if difference is not None:  # without any melanoma there is nothing to compare
            found.append(Comparison(a.model, b.model, *difference))
    return found


def _over_seeds(compared: dict[str, Any], settings: Params) -> list[Comparison]:
    student, control, int8 = (f"{kind}_{settings.ship.student}" for kind in ("student", "control", "int8"))
    found = []
    for wanted in ((student, control), (student, settings.teacher_id), (int8, student)):
        pair = next(pair for pair in compared["pairs"] if (pair["a"], pair["b"]) == wanted)
        names = [f"{name} ({n} seeds)" if n > 1 else name for name, n in zip(wanted, pair["seeds"], strict=True)]
        gap = pair["metrics"]["melanoma.roc_auc"]
        if gap["difference"] is not None:
            found.append(Comparison(names[0], names[1], gap["difference"], gap["low"], gap["high"]))
    return found

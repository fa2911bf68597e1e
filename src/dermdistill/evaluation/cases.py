"""Teacher, student and deployed model on the same holdout images: how often and on which images they disagree.

Which image is shown is decided by the teacher and the *deployed* model, since a user has the latter; the student's
answers tell whether distillation or quantization made the difference. "A" is the teacher, "B" the deployed model, as in
``evaluation.errors``. Probabilities are calibrated, decisions on melanoma use each model's own deployed threshold.

Deliberately absent: where in an image a network looks; that needs the network itself (stage ``explain``).
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.model_id import ModelId
from dermdistill.errors import UserError
from dermdistill.evaluation import errors
from dermdistill.metrics import calibration, predictions
from dermdistill.metrics.predictions import Predictions
from dermdistill.params import Params

LEAST = "least_likely_melanoma"
KINDS = (LEAST, "missed_melanoma", "false_alarm", "only_a", "only_b", "both_wrong", "high_confidence", "challenging",
         "easy")  # fmt: skip


class Evaluated(NamedTuple):
    """A model's calibrated predictions on the holdout."""

    model: str
    predictions: Predictions
    calibrated: np.ndarray  # (N, 7)
    threshold: float  # of the deployed operating point

    @property
    def p_melanoma(self) -> np.ndarray:
        return self.calibrated[:, MELANOMA]

    @property
    def flagged(self) -> np.ndarray:
        """(N,) bool: flagged as melanoma."""
        return self.p_melanoma >= self.threshold

    @property
    def diagnosis(self) -> np.ndarray:
        """(N,) int: the most probable class."""
        return self.calibrated.argmax(axis=1)


def roles(settings: Params) -> dict[str, str]:
    """Ids of the four models the report is about: teacher, student, its control, and the deployed INT8 model."""
    student = ModelId("student", settings.ship.student, settings.ship.seed)
    return {
        "teacher": settings.teacher_id,
        "student": str(student),
        "control": str(student.of_kind("control")),
        "int8": settings.shipped,
    }


def evaluate(root: str | Path, models: Mapping[str, str]) -> dict[str, Evaluated]:
    """Role → model's holdout predictions, calibrated; UserError unless all are of the same images."""
    evaluated: dict[str, Evaluated] = {}
    for role, model in models.items():
        raw = predictions.read(Path(root) / f"predictions/holdout/{model}.csv")
        fitted = calibration.read(Path(root) / f"metrics/calibrate/{model}.json")
        evaluated[role] = Evaluated(model, raw, fitted.apply(raw.probabilities), fitted.thresholds["sensitivity"])
        predictions.require_same_images(next(iter(evaluated.values())).predictions, raw)
    return evaluated


def agreement(evaluated: Mapping[str, Evaluated], high_confidence: float) -> dict[str, Any]:
    """The content of ``metrics/analyze_errors.json``: every pair of roles, compared in three ways.

    ``melanoma``: flagged or not, each model at its own deployed threshold; ``melanoma_diagnosed``: is melanoma the
    likeliest of the seven, as studies without an operating point count; ``diagnosis``: the likeliest of the seven.
    """
    views: dict[str, dict[str, Any]] = {"melanoma": {}, "melanoma_diagnosed": {}, "diagnosis": {}}
    for a, b in combinations(evaluated, 2):
        one, two, holdout, pair = evaluated[a], evaluated[b], evaluated[a].predictions, f"{a}_{b}"
        views["melanoma"][pair] = errors.melanoma_agreement(holdout.melanoma, one.flagged, two.flagged)
        likeliest = (one.diagnosis == MELANOMA, two.diagnosis == MELANOMA)
        views["melanoma_diagnosed"][pair] = errors.melanoma_agreement(holdout.melanoma, *likeliest)
        kl = float(rel_entr(one.calibrated, two.calibrated).sum(axis=1).mean())
        counts = errors.diagnosis_agreement(holdout.labels, one.diagnosis, two.diagnosis)
        views["diagnosis"][pair] = counts | {"mean_kl": kl}
    sure = {
        role: len(
            errors.high_confidence_errors(
                one.predictions.image_id, one.predictions.labels, one.calibrated, high_confidence
            )
        )
        for role, one in evaluated.items()
    }
    models = {role: one.model for role, one in evaluated.items()}
    return {"models": models, **views, "high_confidence_errors": {"at_least": high_confidence} | sure}


def confusions(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    """``model, actual, predicted, count, share`` of every role, one below the other."""
    tables = [
        errors.confusion(one.predictions.labels, one.diagnosis).assign(model=one.model) for one in evaluated.values()
    ]
    return pd.concat(tables, ignore_index=True)[["model", "actual", "predicted", "count", "share"]]


def per_class(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    """Change per diagnosis from the teacher to the student and to the deployed model."""
    a = evaluated["teacher"]
    pairs = [
        (evaluated[role], errors.per_class_change(a.predictions.labels, a.diagnosis, evaluated[role].diagnosis))
        for role in ("student", "int8")
    ]
    return pd.concat([table.assign(model_a=a.model, model_b=b.model) for b, table in pairs], ignore_index=True)


def pick(evaluated: Mapping[str, Evaluated], high_confidence: float, count: int) -> pd.DataFrame:
    """Up to ``count`` images of each kind, the most telling first: ``kind, image_id, dx, p_mel_…, diagnosis_…``."""
    a, b = evaluated["teacher"], evaluated["int8"]
    holdout = a.predictions
    both = a.p_melanoma + b.p_melanoma
    missed = holdout.melanoma & ~a.flagged & ~b.flagged
    alarms = ~holdout.melanoma & a.flagged & b.flagged
    kinds = {
        LEAST: errors.ranked(holdout.image_id, holdout.melanoma, b.p_melanoma),
        "missed_melanoma": errors.ranked(holdout.image_id, missed, both),
        "false_alarm": errors.ranked(holdout.image_id, alarms, -both),
    }
    kinds |= errors.cases(holdout.image_id, holdout.labels, a.calibrated, b.calibrated, high_confidence)
    rows = [(kind, image) for kind in KINDS for image in kinds[kind][:count]]
    table = pd.DataFrame(rows, columns=["kind", "image_id"])
    return table.merge(_views(evaluated), on="image_id", how="left")


def _views(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    holdout, names = evaluated["teacher"].predictions, np.array(CLASSES)
    table = pd.DataFrame({"image_id": holdout.image_id, "dx": names[holdout.labels]})
    for role, one in evaluated.items():
        table[f"p_mel_{role}"] = one.p_melanoma
        table[f"diagnosis_{role}"] = names[one.diagnosis]
    return table


def pictures(cases: pd.DataFrame, images: np.ndarray, image_ids: pd.Series) -> list[tuple[np.ndarray, str]]:
    """(image, caption) for each row of ``cases``; ``image_ids`` names the rows of ``images`` (N, H, W, 3)."""
    rows = pd.Series(range(len(image_ids)), index=image_ids.to_numpy())
    missing = cases["image_id"][~cases["image_id"].isin(rows.index)]
    if len(missing):
        raise UserError(f"image {missing.iloc[0]} has predictions but no row in the metadata table; rerun `prepare`")
    return [(np.asarray(images[rows[case["image_id"]]]), _caption(case)) for case in cases.to_dict("records")]


def _caption(case: Mapping[Any, Any]) -> str:
    stated = "  ".join(
        f"{letter} {case[f'p_mel_{role}']:.2f}" for letter, role in (("T", "teacher"), ("S", "student"), ("Q", "int8"))
    )
    return f"{case['image_id']}\non record: {case['dx']}\nP(mel) {stated}\nQ says: {case['diagnosis_int8']}"

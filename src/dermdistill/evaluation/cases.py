"""Teacher, student and deployed model on the same holdout images: where they disagree, and on which images.

Images are selected by comparing the teacher ("A") with the *deployed model* ("B"), which is what a user gets. The
student between them tells whether distillation or quantization made the difference. Probabilities are calibrated;
decisions on melanoma use each model's own deployed threshold.

Deliberately absent: where in an image a network looks. That needs the network itself (stage ``explain``).
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import rel_entr

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.errors import UserError
from dermdistill.evaluation import errors
from dermdistill.metrics import calibration
from dermdistill.metrics.predictions import Predictions, read, require_same_images
from dermdistill.params import Params

LEAST = "least_likely_melanoma"
KINDS = (LEAST, "missed_melanoma", "false_alarm", "only_a", "only_b", "both_wrong", "high_confidence", "challenging",
         "easy")  # fmt: skip


class Evaluated(NamedTuple):
    """One model's calibrated predictions for the holdout."""

    model: str
    predictions: Predictions  # raw
    calibrated: np.ndarray  # (N, 7)
    threshold: float  # of P(mel) at the deployed operating point

    @property
    def p_melanoma(self) -> np.ndarray:
        """(N,): calibrated P(mel)."""
        return self.calibrated[:, MELANOMA]

    @property
    def y_pred(self) -> np.ndarray:
        """(N,) bool: predicted to be a melanoma."""
        return self.p_melanoma >= self.threshold

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int: the most probable class."""
        return self.calibrated.argmax(axis=1)


def roles(settings: Params) -> dict[str, str]:
    """Ids of the four models the story is about: teacher, student, its control, and the file that ships."""
    suffix = f"{settings.ship.student}_s{settings.ship.seed}"
    return {
        "teacher": settings.teacher_id,
        "student": f"student_{suffix}",
        "control": f"control_{suffix}",
        "int8": settings.shipped,
    }


def evaluate_roles(root: str | Path, models: Mapping[str, str]) -> dict[str, Evaluated]:
    """Calibrated holdout predictions by role; ``models`` maps roles to model ids.

    Raises:
        UserError: if a file is missing, or the models were not evaluated on the same images.
    """
    evaluated: dict[str, Evaluated] = {}
    for role, model in models.items():
        raw = read(Path(root) / f"predictions/holdout/{model}.csv")
        fitted = calibration.read(Path(root) / f"metrics/calibrate/{model}.json")
        evaluated[role] = Evaluated(model, raw, fitted.apply(raw.probabilities), fitted.thresholds["sensitivity"])
        require_same_images(next(iter(evaluated.values())).predictions, raw)
    return evaluated


def agreement(evaluated: Mapping[str, Evaluated], high_confidence: float) -> dict[str, Any]:
    """The content of ``metrics/analyze_errors.json``: every pair of roles in three views.

    - ``melanoma``: the decision of each model at its own deployed threshold;
    - ``melanoma_diagnosed``: whether melanoma is the most probable class, as in studies without an operating point;
    - ``diagnosis``: the most probable class.
    """
    views: dict[str, dict[str, Any]] = {"melanoma": {}, "melanoma_diagnosed": {}, "diagnosis": {}}
    for (role_a, a), (role_b, b) in combinations(evaluated.items(), 2):
        pair, labels, y_true = f"{role_a}_{role_b}", a.predictions.labels, a.predictions.melanoma
        diagnosed = (a.predicted == MELANOMA, b.predicted == MELANOMA)
        views["melanoma"][pair] = errors.melanoma_agreement(y_true, a.y_pred, b.y_pred)
        views["melanoma_diagnosed"][pair] = errors.melanoma_agreement(y_true, *diagnosed)
        mean_kl = float(rel_entr(a.calibrated, b.calibrated).sum(axis=1).mean())
        views["diagnosis"][pair] = errors.diagnosis_agreement(labels, a.predicted, b.predicted) | {"mean_kl": mean_kl}
    confident = {role: _high_confidence_errors(model, high_confidence) for role, model in evaluated.items()}
    models = {role: model.model for role, model in evaluated.items()}
    return {"models": models, **views, "high_confidence_errors": {"at_least": high_confidence} | confident}


def _high_confidence_errors(model: Evaluated, minimum: float) -> int:
    raw = model.predictions
    return len(errors.high_confidence_errors(raw.image_id, raw.labels, model.calibrated, minimum))


def confusions(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    """Columns ``model, actual, predicted, count, share``: the tables of all roles, concatenated."""
    tables = [
        errors.confusion(model.predictions.labels, model.predicted).assign(model=model.model)
        for model in evaluated.values()
    ]
    return pd.concat(tables, ignore_index=True)[["model", "actual", "predicted", "count", "share"]]


def per_class(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    """Change per diagnosis from the teacher to the student and to the deployed model; see ``errors``."""
    a = evaluated["teacher"]
    pairs = [
        (evaluated[role], errors.per_class_change(a.predictions.labels, a.predicted, evaluated[role].predicted))
        for role in ("student", "int8")
    ]
    return pd.concat([table.assign(model_a=a.model, model_b=b.model) for b, table in pairs], ignore_index=True)


def pick(evaluated: Mapping[str, Evaluated], high_confidence: float, count: int) -> pd.DataFrame:
    """Up to ``count`` images of each kind, the clearest cases first.

    Columns: kind, image_id, dx, then p_mel and diagnosis of every role (``p_mel_teacher`` …).
    """
    a, b = evaluated["teacher"], evaluated["int8"]
    image_id, labels, y_true = a.predictions.image_id, a.predictions.labels, a.predictions.melanoma
    p_sum = a.p_melanoma + b.p_melanoma
    kinds = {
        LEAST: errors.ranked(image_id, y_true, b.p_melanoma),
        "missed_melanoma": errors.ranked(image_id, y_true & ~a.y_pred & ~b.y_pred, p_sum),
        "false_alarm": errors.ranked(image_id, ~y_true & a.y_pred & b.y_pred, -p_sum),
    }
    kinds |= errors.cases(image_id, labels, a.calibrated, b.calibrated, high_confidence)
    rows = [(kind, image) for kind in KINDS for image in kinds[kind][:count]]
    table = pd.DataFrame(rows, columns=["kind", "image_id"])
    return table.merge(_by_image(evaluated), on="image_id", how="left")


def _by_image(evaluated: Mapping[str, Evaluated]) -> pd.DataFrame:
    raw, names = evaluated["teacher"].predictions, np.array(CLASSES)
    table = pd.DataFrame({"image_id": raw.image_id, "dx": names[raw.labels]})
    for role, model in evaluated.items():
        table[f"p_mel_{role}"] = model.p_melanoma
        table[f"diagnosis_{role}"] = names[model.predicted]
    return table


def pictures(cases: pd.DataFrame, images: np.ndarray, image_ids: pd.Series) -> list[tuple[np.ndarray, str]]:
    """(image, caption) for each row of ``cases``; ``image_ids`` names the rows of ``images`` (N, H, W, 3).

    Raises:
        UserError: if an image of ``cases`` is not among them.
    """
    rows = pd.Series(range(len(image_ids)), index=image_ids.to_numpy())
    missing = cases["image_id"][~cases["image_id"].isin(rows.index)]
    if len(missing):
        raise UserError(f"image {missing.iloc[0]} has predictions but no row in the metadata table; rerun `prepare`")
    return [(np.asarray(images[rows[case["image_id"]]]), _caption(case)) for case in cases.to_dict("records")]


def _caption(case: Mapping[Any, Any]) -> str:
    probabilities = "  ".join(
        f"{letter} {case[f'p_mel_{role}']:.2f}" for letter, role in (("T", "teacher"), ("S", "student"), ("Q", "int8"))
    )
    return f"{case['image_id']}\non record: {case['dx']}\nP(mel) {probabilities}\nQ says: {case['diagnosis_int8']}"

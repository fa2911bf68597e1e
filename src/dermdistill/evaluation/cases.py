"""Teacher, student and shipped file on the same holdout images: where they part, and on which pictures.

The pair that decides which picture is shown is teacher against *shipped file*, since that is what a user
holds; the student stands between them and tells whether distillation or quantization made the difference.
"A" is the teacher, "B" the file, as in ``evaluation.errors``. Probabilities are calibrated, decisions on
melanoma are taken at each model's own shipped threshold.

Deliberately absent: where in a picture a network looked; that needs the network itself (stage ``explain``).
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
from dermdistill.metrics import calibration, predictions
from dermdistill.params import Params

LEAST = "least_likely_melanoma"
KINDS = {
    LEAST: (
        "Melanomas the shipped file finds least likely",
        "Lowest probability first; below its threshold it misses them.",
    ),
    "missed_melanoma": ("Melanomas missed by both", "Both stay below their thresholds; lowest probability first."),
    "false_alarm": ("False alarms of both", "Not melanoma, yet both are above their thresholds; highest first."),
    "only_a": ("Only the teacher is right", "Of the seven diagnoses; largest lead of the teacher first."),
    "only_b": ("Only the shipped file is right", "Of the seven diagnoses; largest lead of the shipped file first."),
    "both_wrong": ("Both give a wrong diagnosis", "Least probability left for the diagnosis on record first."),
    "high_confidence": ("Wrong and sure of it", "At least one is wrong with high probability; surest first."),
    "challenging": ("Hard, but at least one is right", "Least probability for the diagnosis on record first."),
    "easy": ("Easy: both are right", "Highest probability for the diagnosis on record first."),
}


class Judged(NamedTuple):
    """A model's calibrated view of the holdout."""

    model: str
    known: predictions.Predictions
    calibrated: np.ndarray  # (N, 7)
    threshold: float  # of the operating point that ships

    @property
    def p_melanoma(self) -> np.ndarray:
        return self.calibrated[:, MELANOMA]

    @property
    def called(self) -> np.ndarray:
        """(N,) bool: flagged as melanoma."""
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


def judge(root: str | Path, models: Mapping[str, str]) -> dict[str, Judged]:
    """Role → model's holdout predictions, calibrated; UserError unless all are of the same images."""
    found: dict[str, Judged] = {}
    for role, model in models.items():
        known = predictions.read(Path(root) / f"predictions/holdout/{model}.csv")
        fitted = calibration.read(Path(root) / f"metrics/calibrate/{model}.json")
        found[role] = Judged(model, known, fitted.apply(known.probabilities), fitted.thresholds["sensitivity"])
        predictions.require_same_images(next(iter(found.values())).known, known)
    return found


def agreement(judged: Mapping[str, Judged], high_confidence: float) -> dict[str, Any]:
    """The content of ``metrics/analyze_errors.json``: every pair of roles in three views.

    ``melanoma``: flagged or not, each model at its own shipped threshold; ``melanoma_diagnosed``: is melanoma the
    likeliest of the seven, as studies without an operating point count; ``diagnosis``: the likeliest of the seven.
    """
    views: dict[str, dict[str, Any]] = {"melanoma": {}, "melanoma_diagnosed": {}, "diagnosis": {}}
    for a, b in combinations(judged, 2):
        one, two, known, pair = judged[a], judged[b], judged[a].known, f"{a}_{b}"
        views["melanoma"][pair] = errors.melanoma_agreement(known.melanoma, one.called, two.called)
        likeliest = (one.predicted == MELANOMA, two.predicted == MELANOMA)
        views["melanoma_diagnosed"][pair] = errors.melanoma_agreement(known.melanoma, *likeliest)
        fidelity = float(rel_entr(one.calibrated, two.calibrated).sum(axis=1).mean())
        counts = errors.diagnosis_agreement(known.labels, one.predicted, two.predicted)
        views["diagnosis"][pair] = counts | {"mean_kl": fidelity}
    sure = {
        role: len(errors.high_confidence_errors(one.known.image_id, one.known.labels, one.calibrated, high_confidence))
        for role, one in judged.items()
    }
    models = {role: one.model for role, one in judged.items()}
    return {"models": models, **views, "high_confidence_errors": {"at_least": high_confidence} | sure}


def confusions(judged: Mapping[str, Judged]) -> pd.DataFrame:
    """``model, actual, predicted, count, share`` of every role, one below the other."""
    found = [errors.confusion(one.known.labels, one.predicted).assign(model=one.model) for one in judged.values()]
    return pd.concat(found, ignore_index=True)[["model", "actual", "predicted", "count", "share"]]


def per_class(judged: Mapping[str, Judged]) -> pd.DataFrame:
    """Change per diagnosis from the teacher to the student and to the shipped file."""
    a = judged["teacher"]
    pairs = [
        (judged[role], errors.per_class_change(a.known.labels, a.predicted, judged[role].predicted))
        for role in ("student", "int8")
    ]
    return pd.concat([table.assign(model_a=a.model, model_b=b.model) for b, table in pairs], ignore_index=True)


def pick(judged: Mapping[str, Judged], high_confidence: float, count: int) -> pd.DataFrame:
    """Up to ``count`` images of each kind, the most telling first: ``kind, image_id, dx, p_mel_…, diagnosis_…``."""
    a, b = judged["teacher"], judged["int8"]
    known = a.known
    both = a.p_melanoma + b.p_melanoma
    missed = known.melanoma & ~a.called & ~b.called
    alarms = ~known.melanoma & a.called & b.called
    kinds = {
        LEAST: errors.ranked(known.image_id, known.melanoma, b.p_melanoma),
        "missed_melanoma": errors.ranked(known.image_id, missed, both),
        "false_alarm": errors.ranked(known.image_id, alarms, -both),
    }
    kinds |= errors.cases(known.image_id, known.labels, a.calibrated, b.calibrated, high_confidence)
    rows = [(kind, image) for kind in KINDS for image in kinds[kind][:count]]
    table = pd.DataFrame(rows, columns=["kind", "image_id"])
    return table.merge(_views(judged), on="image_id", how="left")


def _views(judged: Mapping[str, Judged]) -> pd.DataFrame:
    known, names = judged["teacher"].known, np.array(CLASSES)
    table = pd.DataFrame({"image_id": known.image_id, "dx": names[known.labels]})
    for role, one in judged.items():
        table[f"p_mel_{role}"] = one.p_melanoma
        table[f"diagnosis_{role}"] = names[one.predicted]
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

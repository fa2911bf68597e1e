"""Where the limit is: what other models or the patient's data would add to the teacher, on val.

    python -m benchmarks.ceiling        in the repository, in seconds; writes results/ceiling.json

From committed predictions. Rows *fitted*: a multinomial logistic regression on log-probabilities of models (and age,
sex, site), learnt from four fifths of val's lesions and asked about the fifth, for all five. Nothing of it ships or
reads the holdout; it says how much a better combination could be worth. Differences are paired and resample lesions:
of fitted rows from the fitted teacher, of others from the teacher.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from dermdistill import params
from dermdistill.core.classes import MELANOMA
from dermdistill.core.files import write_json
from dermdistill.evaluation import bootstrap, comparison
from dermdistill.evaluation.weighted_metrics import roc_auc
from dermdistill.metrics import predictions
from dermdistill.metrics.metrics import rounded

RESULTS = Path("benchmarks/results/ceiling.json")
BOOSTING = "baseline_boosting"
RESAMPLES = 2000


def patient(known: predictions.Predictions) -> np.ndarray:
    """(N, k): age in decades, how far from fifty, whether it is missing; sex and site one-hot."""
    rows = known.rows(pd.read_csv("data/patient_metadata.csv", dtype={"image_id": str}).set_index("image_id"))
    age = rows["age"].fillna(rows["age"].median()).to_numpy() / 10 - 5
    marks = pd.get_dummies(rows[["sex", "localization"]].fillna("unknown")).to_numpy(float)
    return np.column_stack([age, np.abs(age), rows["age"].isna(), marks])


def combined(known: predictions.Predictions, columns: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) out-of-fold P(melanoma)."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=0.05, max_iter=5000)
    inputs = np.hstack(list(columns))
    found = cross_val_predict(model, inputs, known.labels, groups=known.lesion_id, cv=folds, method="predict_proba")
    return np.asarray(found[:, MELANOMA])


def main() -> None:
    settings = params.load()
    teacher, ships = settings.teacher_id, f"{settings.ship.student}_s{settings.ship.seed}"
    names = [teacher, f"student_{ships}", f"control_{ships}"]
    read = {name: predictions.read(Path("predictions/val") / f"{name}.csv") for name in (*names, BOOSTING)}
    known = read[teacher]
    for other in read.values():
        predictions.require_same_images(known, other)
    logs = {name: np.log(np.maximum(one.probabilities, 1e-6)) for name, one in read.items()}
    alone, networks, everyone = [logs[teacher]], [logs[name] for name in names], list(logs.values())
    scores = {name: one.p_melanoma for name, one in read.items()} | {
        "mean of the networks": np.mean([read[name].p_melanoma for name in names], axis=0),
        "mean of the networks and boosting": np.mean([one.p_melanoma for one in read.values()], axis=0),
        "fitted: patient alone": combined(known, [patient(known)]),
        f"fitted: {teacher}": combined(known, alone),
        f"fitted: {teacher} and patient": combined(known, [*alone, patient(known)]),
        "fitted: networks": combined(known, networks),
        "fitted: networks and boosting": combined(known, everyone),
        "fitted: networks, boosting and patient": combined(known, [*everyone, patient(known)]),
    }
    drawn = {
        name: bootstrap.bootstrap({"auc": roc_auc(known.melanoma, score)}, known.lesion_id, RESAMPLES, 0)
        for name, score in scores.items()
    }
    found: dict[str, Any] = {}
    for name in scores:
        reference = f"fitted: {teacher}" if name.startswith("fitted") else teacher
        gap = comparison.difference([drawn[name]], [drawn[reference]], "auc", 0)
        found[name] = {"auc": gap["a"]} | {key: gap[key] for key in ("difference", "low", "high")}
        print(f"{name}: {gap['a']:.3f}, {gap['difference']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]")
    write_json(RESULTS, rounded({"melanoma_auc_on_val": found}))


if __name__ == "__main__":
    main()

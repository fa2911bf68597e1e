"""Classical classifiers on hand-crafted features: the baselines that a network has to beat.

Four of scikit-learn, none tuned on the holdout: logistic regression, random forest, histogram gradient boosting and an
SVM with an RBF kernel. Classes are weighed by their inverse frequency, as rare ones would be ignored otherwise; the
calibration fitted on val restores the prior. An SVM has no probabilities: the softmax of its one-against-rest margins
stands in, and the temperature is left to the same calibration. Absent on purpose: a search over settings, which would
cost more than it tells, and early stopping, so val is seen by the calibration only.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dermdistill.core.classes import CLASSES
from dermdistill.params import Baselines

Predict = Callable[[np.ndarray], np.ndarray]
WEIGHTS = "balanced"


def fit(name: str, features: np.ndarray, labels: np.ndarray, settings: Baselines) -> Predict:
    """Train baseline ``name`` on ``features`` (n, F); returns features (N, F) → raw probabilities (N, 7)."""
    model = make_pipeline(StandardScaler(), _classifier(name, settings)).fit(features, labels)
    known = model.classes_

    def predict(unseen: np.ndarray) -> np.ndarray:
        found = np.zeros((len(unseen), len(CLASSES)))  # a diagnosis that training never showed has none
        if name == "svm":
            margins = model.decision_function(unseen)
            margins = np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins
            found[:, known] = softmax(margins, axis=1)
        else:
            found[:, known] = model.predict_proba(unseen)
        return found / found.sum(axis=1, keepdims=True)

    return predict


def _classifier(name: str, settings: Baselines) -> object:
    seed, models = settings.seed, settings.models
    if name == "logistic":
        return LogisticRegression(C=models.logistic.c, class_weight=WEIGHTS, max_iter=2000)
    if name == "forest":
        return RandomForestClassifier(
            models.forest.trees, min_samples_leaf=models.forest.min_leaf, class_weight=WEIGHTS, random_state=seed
        )
    if name == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=models.boosting.rounds,
            learning_rate=models.boosting.lr,
            class_weight=WEIGHTS,
            early_stopping=False,
            random_state=seed,
        )
    return OneVsRestClassifier(SVC(C=models.svm.c, class_weight=WEIGHTS))

"""Classical classifiers on hand-crafted features: the baselines that a network has to beat.

They are four of scikit-learn's, none tuned on the holdout: logistic regression, random forest, histogram gradient
boosting, and an SVM with an RBF kernel. Classes are weighted by their inverse frequency, because rare ones would be
ignored otherwise; the calibration fitted on val restores the prior. An SVM has no probabilities, so the softmax of its
one-against-rest margins is used, and the same calibration fits its temperature.

Deliberately absent: a search over settings, which would cost more than it is worth, and early stopping, so that only
the calibration reads val.
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

from dermdistill.blocks import Baselines
from dermdistill.core.classes import CLASSES
from dermdistill.core.dataset import Split

Predict = Callable[[np.ndarray], np.ndarray]
WEIGHTS = "balanced"


def fit_split(name: str, features: np.ndarray, train: Split, settings: Baselines) -> Predict:
    """Train baseline ``name`` on up to ``settings.train_images`` images of ``train``, drawn by ``settings.seed``.

    Args:
        name: logistic, forest, boosting or svm.
        features: (N, F) of all prepared images.
        train: the images to learn from.
        settings: the block ``baselines`` of the parameters.
    """
    chosen = np.arange(len(train.rows))
    if settings.train_images is not None and settings.train_images < len(chosen):
        rng = np.random.default_rng(settings.seed)
        chosen = np.sort(rng.choice(chosen, settings.train_images, replace=False))
    return fit(name, features[train.rows[chosen]], train.labels[chosen], settings)


def fit(name: str, features: np.ndarray, labels: np.ndarray, settings: Baselines) -> Predict:
    """Train baseline ``name`` on ``features`` (n, F) and ``labels`` (n,), int in class order.

    Returns:
        features (N, F) → raw probabilities (N, 7); a diagnosis that ``labels`` lack has probability 0.
    """
    model = make_pipeline(StandardScaler(), _classifier(name, settings)).fit(features, labels)

    def predict(features: np.ndarray) -> np.ndarray:
        p = np.zeros((len(features), len(CLASSES)))
        if name == "svm":
            margins = model.decision_function(features)
            margins = np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins
            p[:, model.classes_] = softmax(margins, axis=1)
        else:
            p[:, model.classes_] = model.predict_proba(features)
        return p / p.sum(axis=1, keepdims=True)

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

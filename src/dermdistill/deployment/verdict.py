"""What the detector says of a picture: an answer, an answer with doubt, or that it cannot judge. The one place for why.

- **cannot judge**: the picture cannot be read or shows nothing (:mod:`dermdistill.ingest.pixels`).
- **doubt**: the two rules fitted on val (:mod:`dermdistill.metrics.selective`). Deferral: the largest probability is
  below what nine of ten val images reach. Conformal: the set of diagnoses is empty, or contradicts the decision. That
  a set holds several diagnoses is no reason: two of five do, and most say the same about melanoma.
- **answer**: everything else.

Several photographs of one lesion are combined by the rule that ``benchmarks/lesions.py`` chose on val.
"""

import numpy as np

from dermdistill.core.classes import CLASSES, MELANOMA, NAMES
from dermdistill.metrics import selective

ANSWER, DOUBT, CANNOT_JUDGE = OUTCOMES = ("answer", "doubt", "cannot judge")
REFER, NO_ALARM = "refer", "no alarm"
KEEP = "0.9"  # proportion of val that deferral leaves


def outcome_of(p: np.ndarray, threshold: float, rules: selective.Rules | None) -> tuple[str, list[str]]:
    """``answer`` or ``doubt``, and why: short sentences, none for an answer.

    Args:
        p: (7,) calibrated probabilities.
        threshold: of P(mel), from which on the decision is to refer.
        rules: of the model file; without any, nothing is in doubt.
    """
    reasons = [] if rules is None else [*_deferral(p, rules), *_conformal(p, threshold, rules)]
    return (DOUBT if reasons else ANSWER), reasons


def conformal_set(p: np.ndarray, rules: selective.Rules) -> list[str]:
    """The diagnoses in the class-conditional set of ``p`` (7,), in the order of CLASSES."""
    inside = selective.sets(p, rules.by_class)
    return [name for name, kept in zip(CLASSES, inside, strict=True) if kept]


def deferred(p: np.ndarray, rules: selective.Rules) -> bool:
    """Whether the largest of ``p`` (7,) is below what ``KEEP`` of val reached; never if the file has no such rule."""
    return bool(p.max() < rules.keep.get(KEEP, 0.0))


def combined(p: np.ndarray) -> np.ndarray:
    """(n, 7) probabilities of n photographs of one lesion → (7,) of the lesion."""
    return np.asarray(p.mean(axis=0))


def quality(image: np.ndarray) -> dict[str, float]:
    """What a prepared image (H, W, 3) uint8 is like, as numbers that decide nothing yet.

    ``brightness``: mean grey value, 0 black to 1 white. ``contrast``: its standard deviation. ``saturation``: mean
    difference between a pixel's largest and smallest channel. ``sharpness``: variance of the Laplacian (Pech-Pacheco
    et al., ICPR 2000) of the grey values; 0 if nothing but a gradient is there.
    """
    unit = image.astype(np.float32) / 255
    grey = unit @ np.array([0.299, 0.587, 0.114], np.float32)
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    values = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "saturation": np.ptp(unit, axis=2).mean(),
        "sharpness": (neighbours - 4 * grey[1:-1, 1:-1]).var(),
    }
    return {name: round(float(value), 6) for name, value in values.items()}


def _deferral(p: np.ndarray, rules: selective.Rules) -> list[str]:
    if not deferred(p, rules):
        return []
    least = rules.keep[KEEP]
    return [f"no diagnosis is likely: {p.max():.0%} at most, where {float(KEEP):.0%} of validation reached {least:.0%}"]


def _conformal(p: np.ndarray, threshold: float, rules: selective.Rules) -> list[str]:
    names, refer = conformal_set(p, rules), p[MELANOMA] >= threshold
    if not names:
        return ["no diagnosis is likely enough for the conformal set"]
    if refer and CLASSES[MELANOMA] not in names:
        return [f"the conformal set has no melanoma ({', '.join(NAMES[name] for name in names)})"]
    if not refer and CLASSES[MELANOMA] in names:
        return ["the conformal set has melanoma, though its probability is below the threshold"]
    return []

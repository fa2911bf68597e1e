"""Measures whether two photographs show the same piece of skin: feature matches, a similarity transform, a correlation.

A hash or a thumbnail takes any two dark blobs on pink for the same lesion. Here SIFT features of one image must match
features of the other, and the matches must agree on one rotation, zoom and shift (RANSAC). After that transform the
fine structure (high-passed grey values) of the overlap must correlate. Hairs, network and globules correlate for one
lesion and hardly ever for two.

Deliberately absent: mirrored images (SIFT does not match them), colour (another lamp does not make another lesion), and
lesions so smooth that they have no features.

Sources: Lowe, IJCV 60 (2004); Fischler and Bolles, CACM 24 (1981).
"""

from typing import NamedTuple

import cv2
import numpy as np

FEATURES = 300  # at most, per image
CONTRAST = 0.015  # of SIFT's weakest feature; skin is low in contrast, the default 0.04 finds too little
RATIO = 0.8  # a match must be this much nearer than the second best
TOLERANCE = 3.0  # pixels a match may miss the transform by
ITERATIONS = 2000
BLUR = 4.0  # pixels; coarser structure is taken out before correlating
SMALLEST_OVERLAP = 0.05  # share of the image
WIDTH = 200  # pixels; narrower images are enlarged to it before features are computed


class Features(NamedTuple):
    """``points`` (n, 2) float32 in pixels, largest feature first; ``descriptors`` (n, 128) uint8."""

    points: np.ndarray
    descriptors: np.ndarray


class Match(NamedTuple):
    """How well two images fit: matches that agree, zoom from the first to the second, correlation of the overlap."""

    inliers: int
    scale: float
    correlation: float


NONE = Match(0, 0.0, 0.0)


def grey(image: np.ndarray) -> np.ndarray:
    """uint8 RGB (H, W, 3) as grey uint8, enlarged to :data:`WIDTH` pixels if narrower."""
    plane = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    if plane.shape[1] >= WIDTH:
        return plane
    return cv2.resize(plane, (WIDTH, round(WIDTH * plane.shape[0] / plane.shape[1])), interpolation=cv2.INTER_CUBIC)


def features(plane: np.ndarray) -> Features:
    """SIFT features of a grey image (H, W) uint8; none where it is flat."""
    points, descriptors = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=CONTRAST).detectAndCompute(plane, None)
    if descriptors is None:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    order = sorted(range(len(points)), key=lambda i: -points[i].size)  # large features survive another framing best
    places = np.array([points[i].pt for i in order], np.float32)
    return Features(places, descriptors[order].astype(np.uint8))


def match(first: np.ndarray, second: np.ndarray, one: Features, two: Features) -> Match:
    """Fit ``first`` onto ``second``, grey images (H, W) uint8 of one size, by their features ``one`` and ``two``."""
    if min(len(one.points), len(two.points)) < 4:
        return NONE
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(
        one.descriptors.astype(np.float32), two.descriptors.astype(np.float32), k=2
    )
    good = [best for best, next_best in pairs if best.distance < RATIO * next_best.distance]
    if len(good) < 4:
        return NONE
    source, target = one.points[[m.queryIdx for m in good]], two.points[[m.trainIdx for m in good]]
    transform, agree = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=ITERATIONS, confidence=0.999
    )
    if transform is None:
        return NONE
    scale = float(np.hypot(transform[0, 0], transform[0, 1]))
    return Match(int(agree.sum()), scale, correlation(first, second, transform))


def correlation(first: np.ndarray, second: np.ndarray, transform: np.ndarray) -> float:
    """Pearson correlation of fine structure where ``first`` overlaps ``second``; 0 if the overlap is too small.

    Args:
        first, second: grey images (H, W) uint8.
        transform: (2, 3), maps ``first`` onto ``second``.
    """
    size = second.shape[1], second.shape[0]
    warped = cv2.warpAffine(first.astype(np.float32), transform, size)
    inside = cv2.warpAffine(np.ones(first.shape, np.float32), transform, size) > 0.99
    if inside.mean() < SMALLEST_OVERLAP:
        return 0.0
    x, y = (_fine(plane)[inside] for plane in (warped, second.astype(np.float32)))
    spread = float(x.std() * y.std())
    return float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 0 else 0.0


def _fine(plane: np.ndarray) -> np.ndarray:
    return plane - cv2.GaussianBlur(plane, (0, 0), BLUR)

"""Hand-crafted features of a dermatoscopic image, as used before networks.

A column's name begins with its group: colour statistics and histograms in RGB, HSV and CIELAB; texture by grey-level
co-occurrence (Haralick, Shanmugam, Dinstein, 1973) and local binary patterns (Ojala et al., 2002); shape, border and
asymmetry of a simple segmentation, after the ABCD rule (Nachbar et al., 1994); gradients by HOG (Dalal & Triggs, 2005).
scikit-image computes all of them. The segmentation is Otsu's threshold on the smoothed image; of its dark pieces the
largest near the centre is the lesion. If that is all of the image, nothing or a speck, a central ellipse replaces it:
a convention, not a measurement.

``quick`` keeps colour and local binary patterns, of the image at half its size: a tenth of the time.

Deliberately absent: hair removal and colour constancy, features learned from data, and the metadata of the patient.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy import ndimage
from skimage import color, feature, filters, measure, transform

BINS = 8
SMALLEST, LARGEST = 0.01, 0.9  # share of the image that a believable lesion covers
SPACES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], tuple[tuple[float, float], ...]]] = {
    "rgb": (lambda image: image, ((0, 1),) * 3),
    "hsv": (color.rgb2hsv, ((0, 1),) * 3),
    "lab": (color.rgb2lab, ((0, 100), (-20, 60), (-20, 60))),
}
GLCM = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
LEVELS, STEPS = 32, (1, 3)  # grey levels and distances in pixels of the co-occurrence


def extract(image: np.ndarray, quick: bool) -> dict[str, float]:
    """Name → value of every feature of one image (H, W, 3) uint8; all are finite."""
    rgb = image[::2, ::2] / 255.0 if quick else image / 255.0
    grey = color.rgb2gray(rgb)
    mask = lesion(grey)
    values = dict(_colour(rgb, mask)) | dict(_patterns(grey))
    if not quick:
        values |= dict(_cooccurrence(grey)) | dict(_shape(rgb, grey, mask)) | dict(_gradients(grey))
    return values


def lesion(grey: np.ndarray) -> np.ndarray:
    """The mask (H, W) bool of the lesion: the largest dark piece near the centre, or a central ellipse.

    Args:
        grey: (H, W) float from 0 to 1.
    """
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    ellipse = np.asarray((x / 0.5) ** 2 + (y / 0.5) ** 2 <= 1)
    smooth = filters.gaussian(grey, sigma=height / 60)
    if np.ptp(smooth) < 1e-3:
        return ellipse
    pieces, count = ndimage.label(smooth < filters.threshold_otsu(smooth))
    if not count:
        return ellipse
    weight = ndimage.sum_labels(np.exp(-2 * (x**2 + y**2)), pieces, range(1, count + 1))
    chosen = np.asarray(ndimage.binary_fill_holes(pieces == 1 + int(np.argmax(weight))))
    return chosen if SMALLEST < chosen.mean() < LARGEST else ellipse


def _colour(rgb: np.ndarray, mask: np.ndarray) -> Iterator[tuple[str, float]]:
    """Moments inside the lesion, contrast to the skin around it, and histograms of the whole image."""
    for space, (convert, ranges) in SPACES.items():
        values = convert(rgb)
        for channel, bounds in enumerate(ranges):
            plane, name = values[..., channel], f"{space}{channel}"
            inside, outside = plane[mask], plane[~mask]
            mean, sd = float(inside.mean()), float(inside.std())
            yield f"{name}_mean", mean
            yield f"{name}_sd", sd
            yield f"{name}_skew", float(((inside - mean) ** 3).mean()) / sd**3 if sd > 1e-6 else 0.0
            yield f"{name}_contrast", mean - float(outside.mean())
            place = ((plane - bounds[0]) * (BINS / (bounds[1] - bounds[0]))).astype(int)
            counts = np.bincount(np.clip(place, 0, BINS - 1).ravel(), minlength=BINS)
            yield from ((f"{name}_bin{k}", float(share)) for k, share in enumerate(counts / plane.size))


def _patterns(grey: np.ndarray) -> Iterator[tuple[str, float]]:
    """Histograms of uniform local binary patterns."""
    bytes_ = (grey * 255).astype(np.uint8)
    for points, radius in ((8, 1), (16, 2)):
        codes = feature.local_binary_pattern(bytes_, points, radius, method="uniform")
        counts = np.bincount(codes.astype(int).ravel(), minlength=points + 2)
        yield from ((f"lbp{points}_{k}", float(share)) for k, share in enumerate(counts / codes.size))


def _cooccurrence(grey: np.ndarray) -> Iterator[tuple[str, float]]:
    """Haralick's statistics, averaged over four directions, so that turning the camera changes little."""
    levels = np.minimum((grey * LEVELS).astype(np.uint8), LEVELS - 1)
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    table = feature.graycomatrix(levels, list(STEPS), angles, LEVELS, symmetric=True, normed=True)
    for name in GLCM:
        for step, value in zip(STEPS, feature.graycoprops(table, name).mean(axis=1), strict=True):
            yield f"glcm_{name}_{step}", float(value)


def _shape(rgb: np.ndarray, grey: np.ndarray, mask: np.ndarray) -> Iterator[tuple[str, float]]:
    """The ABCD rule's A (asymmetry), B (border) and D (diameter); C is in the colours."""
    region = measure.regionprops(mask.astype(np.uint8))[0]
    height, width = mask.shape
    perimeter = max(float(region.perimeter), 1.0)
    centre = np.array(region.centroid)
    yield "shape_area", float(mask.mean())
    yield "shape_eccentricity", float(region.eccentricity)
    yield "shape_solidity", float(region.solidity)
    yield "shape_extent", float(region.extent)
    yield "shape_compactness", 4 * np.pi * float(region.area) / perimeter**2
    yield "shape_diameter", float(region.axis_major_length) / width
    yield "shape_off_centre", float(np.hypot(*(centre / (height, width) - 0.5)))
    edge = mask & ~ndimage.binary_erosion(mask)
    slope, radius = filters.sobel(grey)[edge], np.hypot(*(np.argwhere(edge) - centre).T)
    yield "border_slope", float(slope.mean())
    yield "border_slope_sd", float(slope.std())
    yield "border_radius_sd", float(radius.std() / max(radius.mean(), 1e-6))
    yield from _asymmetry(rgb, mask, float(region.orientation), centre)


def _asymmetry(rgb: np.ndarray, mask: np.ndarray, angle: float, centre: np.ndarray) -> Iterator[tuple[str, float]]:
    """Turn the lesion upright about its centre and mirror it: the area without overlap, and the change of colour."""
    height, width = mask.shape
    shift = transform.EuclideanTransform(translation=(centre[1] - (width - 1) / 2, centre[0] - (height - 1) / 2))
    turned = transform.rotate(transform.warp(mask.astype(float), shift), -np.degrees(angle)) > 0.5
    colours = transform.rotate(transform.warp(rgb, shift), -np.degrees(angle))
    for axis in (0, 1):
        mirrored = np.flip(turned, axis)
        both = turned & mirrored
        yield f"asymmetry_shape_{axis}", float((turned ^ mirrored).sum() / max(turned.sum(), 1))
        change = np.abs(colours - np.flip(colours, axis))[both]
        yield f"asymmetry_colour_{axis}", float(change.mean()) if both.any() else 0.0


def _gradients(grey: np.ndarray) -> Iterator[tuple[str, float]]:
    """Histograms of oriented gradients of the whole image."""
    small = transform.resize(grey, (48, 64), anti_aliasing=True)
    values = feature.hog(small, orientations=8, pixels_per_cell=(16, 16), cells_per_block=(1, 1))
    yield from ((f"hog_{k}", float(value)) for k, value in enumerate(values))


def table(images: np.ndarray, quick: bool) -> tuple[np.ndarray, list[str]]:
    """Features (N, F) float32 of ``images`` (N, H, W, 3) uint8, and their F names; reads one image at a time."""
    names = list(extract(np.asarray(images[0]), quick))
    values = np.empty((len(images), len(names)), np.float32)
    for row, image in enumerate(images):
        values[row] = list(extract(np.asarray(image), quick).values())
    return values, names

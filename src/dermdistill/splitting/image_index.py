"""Finds in any collection the images of train and val, however they were cut, turned, mirrored, squeezed or shrunk.

An external set that shares images with train or val would flatter every metric, and HAM10000 is part of several public
archives, whose copies are squeezed to squares, cropped, padded or re-encoded. The index, kept in git, holds of each
image of train and val its twenty most repeatable SIFT features: a descriptor of 16 bytes, place, size and angle in 4.

1. Each feature of a picture looks up its nearest ones in the index (an inverted file). A mirrored picture has the same
   features with their descriptors mirrored, so both are looked up and no picture is described twice.
2. Hits that agree on image, rotation and zoom are votes; where there are three, RANSAC fits a similarity transform.
3. Under that transform all features of picture and image are compared: those at the same place, of the same size and
   angle count the more the nearer their descriptors are. From :data:`SCORE` on it is the same skin.

The images in the index are narrowed halfway to a square, so that a copy of 4:3 and one squeezed to 1:1 both differ by
15 % in aspect, which the features tolerate. Everything is described at some 11,000 pixels: what survives a copy of 64
pixels is coarse. ``benchmarks/copies.py`` measures what is found and what is found wrongly.

:func:`groups` compares a collection with itself in the same way.

Deliberately absent: colour (another lamp does not make another lesion), and a proof that a set is new: other
photographs of a known lesion are found less often than copies.

Sources: Lowe, IJCV 60 (2004); Arandjelović and Zisserman, CVPR 2012 (square roots of the descriptors); Fischler and
Bolles, CACM 24 (1981).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from dermdistill.core.dataset import Split
from dermdistill.core.files import atomic
from dermdistill.errors import UserError
from dermdistill.splitting import candidates

KEPT, GROUPED = 20, 40  # features of each image in the index; largest ones of each picture that groups compare
AREA, INDEXED = 120 * 90, (112, 97)  # pixels of a picture; width and height of an image in the index
FLAT = 12  # grey levels between which a margin varies, JPEG's noise included
FEATURES, CONTRAST = 100, 0.003  # of a picture at most, and SIFT's contrast of the weakest
DIMENSIONS, LEVELS = 32, 16  # of a descriptor after PCA, and of each dimension
SPREAD = 3.0  # standard deviations that the levels reach to, either way
SMALLEST, SIZES, PLACES = (
    1.0,
    32,
    2,
)  # code of a feature's size: levels an octave from this; of its place: levels a pixel
PROBES, NEIGHBOURS = 2, 4  # lists of the inverted file looked into, and features looked up
CHUNK = 32  # pictures looked up together
NEAR = 0.3  # largest squared distance of descriptors that is a hit
VOTES, OCTAVE, ANGLE = 3, 1.0, np.pi / 4  # hits that must agree within an octave of zoom and an eighth of a turn
ZOOM = 2.5  # largest, either way, between picture and image
TOLERANCE, SAME_SIZE, SAME_ANGLE = 7.0, 0.6, 0.5  # pixels, octaves, radians that matching features may differ by
SAME = 0.25  # squared distance of descriptors from which on a match counts nothing
APART = 4  # pixels; features nearer than that are of one place, which counts once
SCORE = 4.0  # from which on a picture shows the same skin as an image of the index
GROUP_SCORE = 6.0  # … as another picture, of which more features are compared; set on other_val

IDS = ("image_id", "lesion_id")
ROW = 3 - np.arange(4)
MIRRORED = ((ROW[:, None, None] * 4 + np.arange(4)[:, None]) * 8 + -np.arange(8) % 8).ravel()  # SIFT's bins in a mirror


class Features(NamedTuple):
    """``frames`` (n, 4) float32: x, y and size in pixels, angle in radians; ``descriptors`` (n, 128) float32."""

    frames: np.ndarray
    descriptors: np.ndarray


class Picture(NamedTuple):
    """What is looked up: ``frames`` and ``vectors`` (n, 32) of its features, then of those in its mirror image."""

    frames: np.ndarray
    vectors: np.ndarray

    @property
    def mirrored(self) -> np.ndarray:
        """(n,) bool."""
        return np.arange(len(self.frames)) >= len(self.frames) // 2


class Match(NamedTuple):
    """``row`` of the image that a picture shows, and how sure that is."""

    row: int
    score: float


@dataclass(frozen=True)
class ImageIndex:
    """Features of n images, m in all."""

    image_id: np.ndarray  # (n,) str
    lesion_id: np.ndarray  # (n,) str
    count: np.ndarray  # (n,) uint8, features of each image
    frames: np.ndarray  # (m, 4) uint8
    codes: np.ndarray  # (m, 16) uint8, two dimensions each
    mean: np.ndarray  # (128,) float32
    components: np.ndarray  # (32, 128) float32
    step: np.ndarray  # (32,) float32

    def project(self, descriptors: np.ndarray) -> np.ndarray:
        """(n, 128) → (n, 32) float32."""
        return ((descriptors - self.mean) @ self.components.T).astype(np.float32)

    def picture(self, image: np.ndarray) -> Picture:
        """What is looked up of an image (H, W, 3) uint8 of any size and aspect, without margins."""
        plane = _plane(image)
        frames, descriptors = _sift(plane)
        mirrored = frames * [-1, 1, 1, -1] + [plane.shape[1] - 1, 0, 0, np.pi]
        vectors = self.project(np.concatenate([descriptors, descriptors[:, MIRRORED]]))
        return Picture(np.concatenate([frames, mirrored]).astype(np.float32), vectors)

    @cached_property
    def _searched(self) -> "_Searched":
        owner = np.repeat(np.arange(len(self.image_id)), self.count)
        levels = np.stack([self.codes >> 4, self.codes & 15], axis=2).reshape(-1, DIMENSIONS)
        vectors = ((levels - (LEVELS - 1) / 2) * self.step).astype(np.float32)
        return _Searched(_frames(self.frames), vectors, owner, SCORE)

    def matches(self, pictures: Sequence[Picture]) -> list[list[Match]]:
        """The images that show the same skin as each of ``pictures``, the surest first."""
        return self._searched.matches(pictures)


def groups(pictures: Sequence[Picture]) -> np.ndarray:
    """(n,) int: equal numbers for pictures of the same skin, directly or through others."""
    pictures = [_largest(picture) for picture in pictures]
    originals = [np.flatnonzero(~picture.mirrored) for picture in pictures]
    owner = np.repeat(np.arange(len(pictures)), list(map(len, originals)))
    frames = np.concatenate([p.frames[rows] for p, rows in zip(pictures, originals, strict=True)])
    vectors = np.concatenate([p.vectors[rows] for p, rows in zip(pictures, originals, strict=True)])
    if not len(vectors):
        return np.arange(len(pictures))
    searched = _Searched(frames, vectors, owner, GROUP_SCORE)
    pairs = [(number, match.row) for number, matches in enumerate(searched.matches(pictures)) for match in matches]
    a, b = np.array(pairs, int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(pictures), len(pictures)))
    labels: np.ndarray = connected_components(graph, directed=False)[1]
    return labels


def _largest(picture: Picture) -> Picture:
    """With the :data:`GROUPED` largest features: more of them would fit one another by chance."""
    half = len(picture.frames) // 2
    kept = np.argsort(-picture.frames[:half, 2], kind="stable")[:GROUPED]
    rows = np.concatenate([kept, kept + half])
    return Picture(picture.frames[rows], picture.vectors[rows])


def build(images: np.ndarray, parts: Iterable[Split]) -> ImageIndex:
    """The index of the images of ``parts`` among ``images`` (N, H, W, 3) uint8; some 30 ms of computing each."""
    table = sorted(row for part in parts for row in zip(part.image_id, part.lesion_id, part.rows, strict=True))
    image_id, lesion_id, rows = zip(*table, strict=True)
    with ThreadPoolExecutor() as pool:  # OpenCV works outside the interpreter's lock
        kept = list(pool.map(lambda row: _repeatable(images[row]), rows))
    descriptors = np.concatenate([features.descriptors for features in kept])
    mean = descriptors.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((descriptors - mean).T))
    components = axes[:, ::-1][:, :DIMENSIONS].T.astype(np.float32)
    vectors = (descriptors - mean) @ components.T
    step = np.maximum(SPREAD * vectors.std(axis=0) / (LEVELS / 2), 1e-3).astype(np.float32)
    levels = np.clip(np.round(vectors / step + (LEVELS - 1) / 2), 0, LEVELS - 1).astype(np.uint8)
    return ImageIndex(
        np.array(image_id, dtype=str),
        np.array(lesion_id, dtype=str),
        np.array([len(features.frames) for features in kept], np.uint8),
        _frame_codes(np.concatenate([features.frames for features in kept])),
        levels[:, ::2] << 4 | levels[:, 1::2],
        mean,
        components,
        step,
    )


def write(path: str | Path, index: ImageIndex) -> None:
    with atomic(path) as temporary, temporary.open("wb") as stream:
        content = {name: getattr(index, name) for name in ImageIndex.__dataclass_fields__}
        np.savez_compressed(stream, **content | {name: np.char.encode(content[name], "utf-8") for name in IDS})


def read(path: str | Path) -> ImageIndex:
    """The index in the file ``path``.

    Raises:
        UserError: the file is missing or no index.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ImageIndex.__dataclass_fields__}
        return ImageIndex(**arrays | {name: np.char.decode(arrays[name], "utf-8") for name in IDS})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; restore it from git or run `dvc repro metadata`") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        raise UserError(f"{path} is no index of images; restore it from git or run `dvc repro metadata`") from None


class _Searched:
    """Features of many images, ready to be looked up: ``frames`` (m, 4), ``vectors`` (m, 32), ``owner`` (m,) sorted."""

    def __init__(self, frames: np.ndarray, vectors: np.ndarray, owner: np.ndarray, score: float) -> None:
        self.score, self.frames, self.vectors, self.owner = score, frames, np.ascontiguousarray(vectors), owner
        self.index = candidates.inverted_file(self.vectors)
        self.index.nprobe = PROBES

    def matches(self, pictures: Sequence[Picture]) -> list[list[Match]]:
        chunks = [pictures[start : start + CHUNK] for start in range(0, len(pictures), CHUNK)]
        with ThreadPoolExecutor() as pool:
            return [matches for found in pool.map(self._chunk, chunks) for matches in found]

    def _chunk(self, pictures: Sequence[Picture]) -> list[list[Match]]:
        """Looked up together, which takes half the time."""
        found = self.index.search(np.concatenate([picture.vectors for picture in pictures]), NEIGHBOURS)
        edges = np.cumsum([len(picture.vectors) for picture in pictures])[:-1]
        parts = zip(pictures, *(np.split(array, edges) for array in found), strict=True)
        return [self._matches(picture, distance, hit) for picture, distance, hit in parts]

    def _matches(self, picture: Picture, distance: np.ndarray, hit: np.ndarray) -> list[Match]:
        """``distance`` and ``hit`` (n, NEIGHBOURS) are what was found of each feature."""
        mine, place = np.nonzero((distance < NEAR) & (hit >= 0))
        theirs = hit[mine, place]
        group = self.owner[theirs] * 2 + picture.mirrored[mine]
        agreeing = _votes(picture.frames[mine], self.frames[theirs], group)
        scores = [Match(int(self.owner[theirs[r[0]]]), self._score(picture, mine[r], theirs[r])) for r in agreeing]
        return sorted((match for match in scores if match.score >= self.score), key=lambda match: -match.score)

    def _score(self, picture: Picture, mine: np.ndarray, theirs: np.ndarray) -> float:
        """How well a picture fits one image, by the transform on which the hits ``mine``, ``theirs`` (k,) agree."""
        transform, _ = cv2.estimateAffinePartial2D(
            picture.frames[mine, :2], self.frames[theirs, :2],
            method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=200,
        )  # fmt: skip
        if transform is None:
            return 0.0
        zoom, turn = np.hypot(*transform[:, 0]), np.arctan2(transform[1, 0], transform[0, 0])
        if not 1 / ZOOM < zoom < ZOOM:
            return 0.0
        ours = np.flatnonzero(picture.mirrored == picture.mirrored[mine[0]])
        image = slice(*np.searchsorted(self.owner, self.owner[theirs[0]] + np.arange(2)))
        a, b = picture.frames[ours, None], self.frames[None, image]
        moved = picture.frames[ours, :2] @ transform[:, :2].T + transform[:, 2]
        fits = np.linalg.norm(moved[:, None] - b[..., :2], axis=2) < TOLERANCE
        fits &= np.abs(np.log2(a[..., 2] * zoom / b[..., 2])) < SAME_SIZE
        fits &= np.abs((a[..., 3] + turn - b[..., 3] + np.pi) % (2 * np.pi) - np.pi) < SAME_ANGLE
        squared = ((picture.vectors[ours, None] - self.vectors[None, image]) ** 2).sum(axis=2)
        weight = np.where(fits, np.maximum(1 - squared / SAME, 0), 0)
        return min(_by_place(a[:, 0, :2], weight.max(axis=1)), _by_place(b[0, :, :2], weight.max(axis=0)))


def _votes(mine: np.ndarray, theirs: np.ndarray, group: np.ndarray) -> Iterable[np.ndarray]:
    """Of each group the rows of most hits that agree on zoom and rotation, if these are :data:`VOTES` or more.

    Args:
        mine, theirs: (k, 4) frames of the features that hit and that are hit.
        group: (k,) int, the same for hits that may agree at all.
    """
    zoom = np.log2(theirs[:, 2] / mine[:, 2]) / OCTAVE
    turn = (theirs[:, 3] - mine[:, 3]) / ANGLE
    best: dict[int, np.ndarray] = {}
    for shift in ((0, 0), (0, 0.5), (0.5, 0), (0.5, 0.5)):  # neighbours across the edge of a bin agree too
        bins = np.floor(zoom + shift[0]) * 8 + np.floor(turn + shift[1]) % 8
        key = group * 1024 + bins.astype(np.int64)
        order = np.argsort(key, kind="stable")
        _, start, count = np.unique(key[order], return_index=True, return_counts=True)
        for k in np.flatnonzero(count >= VOTES):
            rows = order[start[k] : start[k] + count[k]]
            if len(rows) > len(best.get(int(group[rows[0]]), ())):
                best[int(group[rows[0]])] = rows
    return best.values()


def _by_place(points: np.ndarray, weight: np.ndarray) -> float:
    """The sum of ``weight`` (n,), of those at one of ``points`` (n, 2) the largest: SIFT often finds a place twice."""
    used = weight > 0
    _, place = np.unique(np.round(points[used] / APART), axis=0, return_inverse=True)
    largest = np.zeros(place.max(initial=-1) + 1)
    np.maximum.at(largest, place.ravel(), weight[used])
    return float(largest.sum())


def _plane(image: np.ndarray) -> np.ndarray:
    """Grey, without flat margins, scaled to :data:`AREA` pixels."""
    grey = _trimmed(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY))
    scale = (AREA / grey.size) ** 0.5
    size = [max(round(side * scale), 8) for side in grey.shape[::-1]]
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _trimmed(grey: np.ndarray) -> np.ndarray:
    """Without the outer rows and columns that are of one colour; all of it if nothing would be left."""
    for axis in (1, 0):
        inside = np.flatnonzero(np.ptp(grey, axis=axis) > FLAT)
        if len(inside):
            grey = grey.take(np.arange(inside[0], inside[-1] + 1), axis=1 - axis)
    return grey


def _sift(plane: np.ndarray) -> Features:
    """SIFT features of a grey image, descriptors as square roots of their shares; none where it is flat."""
    cv2.setNumThreads(1)  # callers run in parallel
    points, descriptors = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=CONTRAST).detectAndCompute(plane, None)
    if descriptors is None:
        return Features(np.zeros((0, 4), np.float32), np.zeros((0, 128), np.float32))
    frames = np.array([(*point.pt, point.size, np.deg2rad(point.angle)) for point in points], np.float32)
    return Features(frames, np.sqrt(descriptors / (descriptors.sum(axis=1, keepdims=True) + 1e-6)))


def _repeatable(image: np.ndarray) -> Features:
    """The features of an image that are found again in most of :func:`_views`, largest first among equals."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    plane = cv2.resize(grey, INDEXED, interpolation=cv2.INTER_AREA)
    frames, descriptors = _sift(plane)
    again = np.zeros(len(frames))
    for view, transform in _views(plane):
        others, theirs = _sift(view)
        if len(frames) and len(others):
            zoom = abs(np.linalg.det(transform[:, :2])) ** 0.5
            moved = frames[:, :2] @ transform[:, :2].T + transform[:, 2]
            size = zoom * frames[:, 2:3]
            near = np.linalg.norm(moved[:, None] - others[None, :, :2], axis=2) < np.maximum(2, 0.3 * size)
            near &= np.abs(np.log2(others[None, :, 2] / size)) < SAME_SIZE
            again += (near & (2 - 2 * descriptors @ theirs.T < SAME)).any(axis=1)
    kept = np.lexsort((-frames[:, 2], -again))[:KEPT]
    return Features(frames[kept], descriptors[kept])


def _views(plane: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Views of a grey image as copies show it, and the transforms (2, 3) to them: shrunk; turned, zoomed, stretched."""
    width, height = INDEXED
    small = cv2.resize(plane, (52, 45), interpolation=cv2.INTER_AREA)
    yield cv2.resize(small, INDEXED, interpolation=cv2.INTER_CUBIC), np.eye(2, 3)
    for degrees, zoom, stretch in ((35, 0.75, 1.15), (200, 1.2, 1 / 1.15)):
        transform = cv2.getRotationMatrix2D((0, 0), degrees, zoom)
        transform[:, 0] = stretch * transform[:, 0]
        centre = np.array([width / 2, height / 2])
        transform[:, 2] = centre - transform[:, :2] @ centre
        yield cv2.warpAffine(plane, transform, INDEXED, flags=cv2.INTER_LINEAR), transform


def _frame_codes(frames: np.ndarray) -> np.ndarray:
    """(m, 4) uint8."""
    size = SIZES * np.log2(np.maximum(frames[:, 2], SMALLEST) / SMALLEST)
    angle = frames[:, 3] % (2 * np.pi) * 256 / (2 * np.pi)
    columns = [PLACES * frames[:, 0], PLACES * frames[:, 1], size, np.round(angle) % 256]
    return np.clip(np.round(np.stack(columns, axis=1)), 0, 255).astype(np.uint8)


def _frames(codes: np.ndarray) -> np.ndarray:
    """What :func:`_frame_codes` coded, (m, 4) float32."""
    x, y, size, angle = codes.T.astype(np.float32)
    return np.stack([x / PLACES, y / PLACES, SMALLEST * 2 ** (size / SIZES), angle * (2 * np.pi / 256)], axis=1)

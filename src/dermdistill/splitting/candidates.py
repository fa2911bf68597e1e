"""Proposes pairs of images that the geometric check should compare. Two searches, neither of which compares all pairs.

:func:`near` finds perceptual hashes that differ in a few bits. It is exact: such hashes are equal in at least one of
``distance + 1`` bands, by the pigeonhole principle. It searches a million hashes in well under a minute, but misses
images with another framing. :func:`voted` finds images that share local features: every large SIFT feature looks up
its nearest neighbours in an inverted file, and two images with enough such hits become candidates. Of HAM10000's 3,207
pairs with one lesion id the hash finds 106, both searches together 2,459 (docs/data_card.md).

The cost of :func:`voted` grows like n·√n: each of n features visits a fixed number of lists, each about √n long.

Deliberately absent: global descriptors (colour histograms, VLAD), which find fewer pairs among many times as many
candidates, and network embeddings, which would tie the audit to a trained model.

Sources: Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010); Sivic and Zisserman, ICCV
2003 (inverted files); Arandjelović and Zisserman, CVPR 2012 (square roots of the descriptors).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import cv2
import faiss
import numpy as np

BITS = 64
PER_PICTURE = 32  # features used of each image, the largest ones
DIMENSIONS = 32  # of 128, after PCA
SAMPLE = 100_000  # descriptors the PCA is fitted on
LISTS, PROBES = 4, 2  # lists per square root of the number of features, and lists visited per feature
NEIGHBOURS = 6  # looked up per feature, itself included
BATCH = 100_000  # features looked up at once
SEED = 0


def phash(plane: np.ndarray) -> np.uint64:
    """64-bit perceptual hash of a grey image (H, W) uint8: which of its 64 lowest frequencies exceed their median."""
    small = cv2.resize(plane, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8].ravel()
    return np.packbits(low > np.median(low[1:])).view(np.uint64)[0]


def near(codes: np.ndarray, distance: int) -> np.ndarray:
    """All pairs (m, 2) int64, i < j, of ``codes`` (n,) uint64 that differ in at most ``distance`` bits, sorted."""
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    pairs = [np.zeros((0, 2), np.int64)]
    for low, high in pairwise(edges.tolist()):
        band = (codes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        pairs.append(_same_band(codes, band, distance))
    return np.unique(np.concatenate(pairs), axis=0)


def _same_band(codes: np.ndarray, band: np.ndarray, distance: int) -> np.ndarray:
    """Near pairs among codes of equal ``band``: neighbours in sorted order, then next neighbours, and so on."""
    order = np.argsort(band, kind="stable")
    codes, band = codes[order], band[order]
    pairs, place = [], np.arange(len(codes) - 1)
    for step in range(1, len(codes)):
        place = place[place + step < len(codes)]
        place = place[band[place] == band[place + step]]
        if not len(place):
            break
        close = place[np.bitwise_count(codes[place] ^ codes[place + step]) <= distance]
        pairs.append(np.stack([order[close], order[close + step]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1) if pairs else np.zeros((0, 2), np.int64)


def voted(descriptors: list[np.ndarray], votes: int) -> np.ndarray:
    """Pairs (m, 2) int64, i < j, of images that share at least ``votes`` local features, sorted.

    Args:
        descriptors: per image (n, 128) uint8, largest feature first.
    """
    few = [rows[:PER_PICTURE] for rows in descriptors]
    owner = np.repeat(np.arange(len(few)), [len(rows) for rows in few])
    if len(owner) < DIMENSIONS:  # too few to fit the PCA on, hence too few to share any
        return np.zeros((0, 2), np.int64)
    with _one_thread():
        vectors = reduced(np.concatenate(few))
    index = inverted_file(vectors)
    counts: tuple[np.ndarray, np.ndarray] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    for start in range(0, len(vectors), BATCH):
        _, hits = index.search(vectors[start : start + BATCH], NEIGHBOURS)
        mine = np.repeat(owner[start : start + BATCH, None], NEIGHBOURS, axis=1)
        theirs = owner[hits]
        real = (hits >= 0) & (mine != theirs)
        low, high = np.minimum(mine, theirs)[real], np.maximum(mine, theirs)[real]
        counts = _add(counts, low * len(few) + high)
    pairs = counts[0][counts[1] >= votes]
    return np.stack([pairs // len(few), pairs % len(few)], axis=1)


def reduced(descriptors: np.ndarray) -> np.ndarray:
    """Square roots of SIFT descriptors (n, 128) uint8, projected on principal components: (n, DIMENSIONS) float32."""
    roots = descriptors.astype(np.float32)
    roots /= roots.sum(axis=1, keepdims=True) + 1e-6
    np.sqrt(roots, out=roots)
    chosen = np.random.default_rng(SEED).permutation(len(roots))[:SAMPLE]
    pca = faiss.PCAMatrix(roots.shape[1], DIMENSIONS)
    pca.train(roots[np.sort(chosen)])
    return pca.apply(roots)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run faiss on one thread. Training depends on the number of threads in its last bits, search does not."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def inverted_file(vectors: np.ndarray) -> faiss.IndexIVFFlat:
    """An index of ``vectors`` (n, DIMENSIONS) float32, some √n in each of its lists."""
    lists = max(1, min(int(LISTS * len(vectors) ** 0.5), len(vectors) // 40))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(DIMENSIONS), DIMENSIONS, lists)
    index.cp.niter, index.cp.max_points_per_centroid, index.cp.seed = 6, 40, SEED
    index.cp.min_points_per_centroid = 1  # otherwise faiss warns on small data
    with _one_thread():
        index.train(vectors)
    index.add(vectors)
    index.nprobe = PROBES
    return index


def _add(counts: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``counts`` (sorted distinct keys, their counts) with more keys added."""
    fresh, times = np.unique(keys, return_counts=True)
    every, where = np.unique(np.concatenate([counts[0], fresh]), return_inverse=True)
    return every, np.bincount(where, np.concatenate([counts[1], times])).astype(np.int64)

"""How split and audit grow: synthetic rows and image hashes at 10 k, 100 k and 1 M, time and peak memory.

    python -m benchmarks.data_scale [ROWS …]     # default: 10000 100000 1000000; writes results/data_scale.json

Each size runs in a process of its own, so that the peak is its own. Beside wall-clock seconds stand CPU seconds of
all threads, which a busy machine changes less. Rows are drawn like HAM10000: 1.34 images a
lesion, its shares of diagnoses. Hashes are uniform but for planted near-copies (``PLANTED`` of the rows, up to
``DISTANCE`` bits changed); real ones cluster, which costs more: the last entry measures those of the prepared images.
Local features are random points around planted copies, ``candidates.PER_PICTURE`` to a picture.
Recall is against comparing all pairs, which only the smallest size can afford.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.splitting import candidates, geometry, splits

SHARES = {"train": 0.7, "val": 0.15, "holdout": 0.15}
OF_CLASS = (0.669, 0.111, 0.110, 0.051, 0.033, 0.014, 0.012)
PLANTED, DISTANCE, SEED = 0.01, 4, 0
BRUTE, VOTED = 10_000, 100_000  # largest sizes for all pairs, and for local features
OUT = Path(__file__).parent / "results/data_scale.json"
IMAGES = Path("data/prepared/images.npy")


def table(rows: int, random: np.random.Generator) -> pd.DataFrame:
    lesion = np.sort(random.integers(0, int(rows / 1.34), rows))
    dx = np.array(CLASSES)[random.choice(len(CLASSES), lesion.max() + 1, p=OF_CLASS)][lesion]
    names = [f"HAM_{number:07d}" for number in lesion.tolist()]
    return pd.DataFrame({"image_id": [f"ISIC_{i:07d}" for i in range(rows)], "lesion_id": names, "dx": dx})


def hashes(rows: int, random: np.random.Generator) -> np.ndarray:
    """(rows,) uint64, of which the last ``PLANTED`` are copies of earlier ones with some bits changed."""
    codes = random.integers(0, 2**64, rows, dtype=np.uint64)
    count = int(PLANTED * rows)
    flips = np.zeros(count, np.uint64)
    for _ in range(DISTANCE):
        flips ^= np.uint64(1) << random.integers(0, 64, count, dtype=np.uint64)
    codes[-count:] = codes[random.integers(0, rows - count, count)] ^ flips
    return codes


def descriptors(rows: int, random: np.random.Generator) -> list[np.ndarray]:
    each = candidates.PER_PICTURE
    found = random.integers(0, 256, (rows, each, 128), dtype=np.uint8)
    count = int(PLANTED * rows)
    noise = random.integers(-12, 13, (count, each, 128))
    found[-count:] = np.clip(found[:count].astype(int) + noise, 0, 255)
    return list(found)


def timed(function: Any, *arguments: Any) -> tuple[Any, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = function(*arguments)
    return result, {"seconds": round(time.perf_counter() - wall, 2), "cpu": round(time.process_time() - cpu, 2)}


def measure(rows: int) -> dict[str, Any]:
    random = np.random.default_rng(SEED)
    drawn = table(rows, random)
    assignment, fresh = timed(splits.assign, drawn, SHARES, 42)
    half = dict(list(assignment.items())[: len(assignment) // 2])
    _, grown = timed(splits.assign, drawn, SHARES, 42, half)
    codes = hashes(rows, random)
    pairs, near = timed(candidates.near, codes, DISTANCE)
    found: dict[str, Any] = {
        "rows": rows, "split": fresh, "extend": grown, "near": near, "near_pairs": len(pairs),
    }  # fmt: skip
    if rows <= BRUTE:
        found["near_recall"] = recall(codes, pairs)
    if rows <= VOTED:
        voted, seconds = timed(candidates.voted, descriptors(rows, random), 4)
        count = int(PLANTED * rows)
        planted = {(i, rows - count + i) for i in range(count)}
        hit = len(planted & {tuple(pair) for pair in voted.tolist()}) / count
        found |= {"voted": seconds, "voted_pairs": len(voted), "voted_recall_of_planted": round(hit, 4)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found | {"peak_gib": round(peak, 2)}


def recall(codes: np.ndarray, pairs: np.ndarray) -> float:
    """Share of the near pairs that comparing everything with everything finds."""
    wanted = set()
    for i in range(len(codes) - 1):
        close = np.bitwise_count(codes[i] ^ codes[i + 1 :]) <= DISTANCE
        wanted |= {(i, i + 1 + int(j)) for j in close.nonzero()[0]}
    return len(wanted & {tuple(pair) for pair in pairs.tolist()}) / len(wanted)


def real() -> dict[str, Any]:
    images = np.load(IMAGES, mmap_mode="r", allow_pickle=False)
    codes = np.array([candidates.phash(geometry.grey(image)) for image in images], np.uint64)
    pairs, near = timed(candidates.near, codes, DISTANCE)
    table = pd.read_csv(IMAGES.with_name("metadata.csv"), dtype=str)
    audited = pd.read_csv("data/audit/pairs.csv")
    confirmed = set(audited[audited["confirmed"]][["image_a", "image_b"]].itertuples(index=False, name=None))
    lesion, image = table["lesion_id"].to_numpy(), table["image_id"].to_numpy()
    same = lesion[pairs[:, 0]] == lesion[pairs[:, 1]]
    different = [tuple(image[pair]) for pair in pairs[~same]]
    return {
        "rows": len(codes), "near": near, "near_pairs": len(pairs), "near_recall": recall(codes, pairs),
        "near_pairs_of_one_lesion": int(same.sum()), "near_pairs_of_different_lesions": len(different),
        "of_these_confirmed": sum(pair in confirmed for pair in different),
    }  # fmt: skip


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    sizes = [int(value) for value in sys.argv[1:]] or [10_000, 100_000, 1_000_000]
    found = []
    for rows in sizes:
        command = [sys.executable, "-m", "benchmarks.data_scale", "--one", str(rows)]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(found[-1], flush=True)
    content: dict[str, Any] = {"synthetic": found}
    if IMAGES.exists():  # and data/audit/pairs.csv: after `dvc repro audit`
        content["ham10000"] = real()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()

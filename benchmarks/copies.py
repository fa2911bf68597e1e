"""How surely `dermdistill evaluate` notices images that the model was made with, and how often it is wrong.

    python -m benchmarks.copies [COUNT]      in the repository, with prepared images; writes results/copies.json

Copies: COUNT (300) random images of train and val, changed in each of eight ways and, four times as many, in two of
them. Found is a copy that is said to show any image of train or val; "as itself", the image or its lesion. False
alarms: images of holdout and of both halves of Derm7pt, which are not in the index (the second only where
`dvc repro prepare_other@derm7pt` or its stages made it). Other photographs: pairs of images in the index with one
lesion id. SCORE was set on copies of train and val, of which lower scores find no more, and on other_val, where from 4
on there is no alarm, before holdout and other_test were counted. A higher score would raise fewer alarms on holdout; it
was not taken, since it would be chosen there, and it finds fewer copies.
"""

import io
import itertools
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dermdistill.core import dataset, parts
from dermdistill.core.files import write_json
from dermdistill.ingest import pixels
from dermdistill.splitting import image_index, overlap
from dermdistill.splitting.image_index import ImageIndex, Match

RESULTS = Path("benchmarks/results/copies.json")
SIZE = 150, 200  # of the images that models see
Random = np.random.Generator


def squeeze(image: Image.Image, random: Random) -> Image.Image:
    return image.resize((224, 224), Image.Resampling.BICUBIC)


def crop(image: Image.Image, random: Random) -> Image.Image:
    """A place anywhere of 70 % of the area."""
    width, height = (round(side * 0.7**0.5) for side in image.size)
    left, top = (int(random.integers(0, a - b + 1)) for a, b in zip(image.size, (width, height), strict=True))
    return image.crop((left, top, left + width, top + height))


def pad(image: Image.Image, random: Random) -> Image.Image:
    """A fifth of each side added on either end: black, white, the mean colour or mirrored."""
    array = np.asarray(image)
    margins = [(round(0.2 * side),) * 2 for side in array.shape[:2]] + [(0, 0)]
    kind = int(random.integers(4))
    if kind == 3:
        return Image.fromarray(np.pad(array, margins, "reflect"))
    colour = [np.zeros(3), np.full(3, 255), array.reshape(-1, 3).mean(axis=0)][kind]
    inside = np.pad(np.ones(array.shape[:2], bool), margins[:2])
    return Image.fromarray(np.where(inside[..., None], np.pad(array, margins), colour.astype(np.uint8)))


def mirror(image: Image.Image, random: Random) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def quarter(image: Image.Image, random: Random) -> Image.Image:
    turns = [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270]
    return image.transpose(turns[int(random.integers(3))])


def turn(image: Image.Image, random: Random) -> Image.Image:
    """By any angle; corners are lost or black."""
    return image.rotate(float(random.uniform(0, 360)), Image.Resampling.BICUBIC, expand=bool(random.integers(2)))


def jpeg(image: Image.Image, random: Random) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=40)
    return Image.open(stream).convert("RGB")


def shrink(image: Image.Image, random: Random) -> Image.Image:
    """The longer side 64 pixels."""
    return image.resize([max(round(side * 64 / max(image.size)), 16) for side in image.size], Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image, Random], Image.Image]] = {
    "squeezed to 224 × 224": squeeze, "cropped to 70 % of the area": crop, "padded by 20 %": pad, "mirrored": mirror,
    "turned by 90, 180 or 270°": quarter, "turned by any angle": turn, "JPEG of quality 40": jpeg, "64 pixels": shrink,
}  # fmt: skip


def looked_up(known: ImageIndex, images: Iterable[Image.Image]) -> list[list[Match]]:
    """What `evaluate` does with a file, but for decoding."""
    with ThreadPoolExecutor() as pool:
        return known.matches(list(pool.map(lambda one: known.picture(pixels.scaled(one, *SIZE)), images)))


def recall(known: ImageIndex, images: np.ndarray, rows: dict[str, int], count: int) -> dict[str, Any]:
    """Each kind of copy: how many, found, found as itself."""
    random, lesions = np.random.default_rng(0), known.lesion_id
    kinds = {name: [(change,)] for name, change in CHANGES.items()}
    kinds |= {"two of these": list(itertools.permutations(CHANGES.values(), 2))}
    result = {}
    for name, ways in kinds.items():
        chosen = random.choice(len(known.image_id), count * (1 if len(ways) == 1 else 4), replace=True)
        copies = []
        for number in chosen:
            image = Image.fromarray(np.asarray(images[rows[known.image_id[number]]]))
            for change in ways[int(random.integers(len(ways)))]:
                image = change(image, random)
            copies.append(image)
        found = looked_up(known, copies)
        right = [any(lesions[m.row] == lesions[n] for m in ms) for n, ms in zip(chosen, found, strict=True)]
        result[name] = {"copies": len(chosen), "found": round(float(np.mean([bool(ms) for ms in found])), 4),
                        "as_itself": round(float(np.mean(right)), 4)}  # fmt: skip
        print(name, result[name], flush=True)
    return result


def alarms(known: ImageIndex, image_id: list[str], images: list[np.ndarray]) -> dict[str, Any]:
    """False alarms among images that are not in the index, and the five surest; seconds of wall and CPU for all."""
    start = time.perf_counter(), time.process_time()
    found = looked_up(known, map(Image.fromarray, images))
    taken = [
        round(end - begin, 1) for begin, end in zip(start, (time.perf_counter(), time.process_time()), strict=True)
    ]
    said = [(ms[0].score, name, known.image_id[ms[0].row]) for name, ms in zip(image_id, found, strict=True) if ms]
    surest = [f"{a} as {b}: {score:.1f}" for score, a, b in sorted(said, reverse=True)[:5]]
    result = {
        "images": len(images),
        "alarms": len(said),
        "surest": surest,
        "seconds": taken[0],
        "cpu_seconds": taken[1],
    }
    print(result, flush=True)
    return result


def other_photographs(known: ImageIndex, images: np.ndarray, rows: dict[str, int]) -> dict[str, Any]:
    """Pairs with one lesion id of which one finds the other; and images that find one of another lesion."""
    found = looked_up(known, (Image.fromarray(np.asarray(images[rows[name]])) for name in known.image_id))
    pairs = {(i, j) for i, ms in enumerate(found) for j in (m.row for m in ms) if i != j}
    same = {(min(pair), max(pair)) for pair in pairs if len(set(known.lesion_id[list(pair)])) == 1}
    _, count = np.unique(known.lesion_id, return_counts=True)
    others = sorted({i for i, j in pairs if known.lesion_id[i] != known.lesion_id[j]})
    possible = int((count * (count - 1) // 2).sum())
    return {"pairs": possible, "found": round(len(same) / possible, 4),
            "images": len(found), "images_found_under_another_lesion_id": len(others)}  # fmt: skip


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    known, images = overlap.index(), dataset.load_images()
    assert known is not None, f"{overlap.INDEX} is missing; `dvc repro metadata` makes it"
    splits = {part: dataset.load_split(part) for part in ("train", "val", "holdout")}
    rows = {name: int(row) for split in splits.values() for name, row in zip(split.image_id, split.rows, strict=True)}
    held = splits["holdout"]
    result: dict[str, Any] = {
        "score": image_index.SCORE,
        "bytes": overlap.INDEX.stat().st_size,
        "copies": recall(known, images, rows, count),
        "alarms": {"holdout": alarms(known, held.image_id, [np.asarray(images[row]) for row in held.rows])},
    }
    folder = Path("data/other/derm7pt")
    if folder.exists():
        others = dataset.load_images(folder)
        for part, split in dataset.load_other("derm7pt").items():
            assert part in parts.OTHER
            squares = [np.asarray(others[row])[:, 25:175] for row in split.rows]  # without the mirrored margins
            result["alarms"][part] = alarms(known, split.image_id, squares)
    result["other_photographs"] = other_photographs(known, images, rows)
    write_json(RESULTS, result)


if __name__ == "__main__":
    main()

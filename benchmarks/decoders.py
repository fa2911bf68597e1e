"""Which JPEG decoder for `prepare`? Time by image, and whether the prepared pixels stay the same.

    python -m benchmarks.decoders IMAGES.zip [COUNT]     # writes results/decoders.json

Two sources: the images as they are, and each enlarged to 600 × 450 and encoded again, the size of the originals.
Interleaved, one thread, the best of three rounds. ``simplejpeg`` is no dependency: `pip install simplejpeg`.
"""

import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from dermdistill.ingest import pixels

SIZE = (150, 200)  # of the prepared images
OUT = Path(__file__).parent / "results/decoders.json"


def by_pillow(content: bytes) -> np.ndarray:
    return pixels.read(content, "benchmark", *SIZE)


def by_simplejpeg(content: bytes) -> np.ndarray:
    image = simplejpeg.decode_jpeg(content, min_height=SIZE[0], min_width=SIZE[1])
    return pixels.fit(Image.fromarray(image), *SIZE)


def by_opencv(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)


DECODERS: dict[str, Callable[[bytes], np.ndarray]] = {
    "pillow": by_pillow, "simplejpeg": by_simplejpeg, "opencv": by_opencv,
}  # fmt: skip


def enlarged(content: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).resize((600, 450), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def compare(files: list[bytes]) -> dict[str, dict[str, float]]:
    best = dict.fromkeys(DECODERS, np.inf)
    for _ in range(3):
        for name, decode in DECODERS.items():
            start = time.process_time()
            for content in files:
                decode(content)
            best[name] = min(best[name], (time.process_time() - start) / len(files))
    found = {}
    for name, decode in DECODERS.items():
        gaps = [np.abs(decode(one).astype(int) - by_pillow(one)) for one in files[:100]]
        found[name] = {
            "ms": round(1000 * best[name], 3),
            "pixels_that_differ": round(float(np.mean([gap > 0 for gap in gaps])), 4),
            "largest_difference": int(max(gap.max() for gap in gaps)),
        }
    return found


def main() -> None:
    cv2.setNumThreads(1)
    with zipfile.ZipFile(sys.argv[1]) as archive:
        names = archive.namelist()[: int(sys.argv[2]) if len(sys.argv) > 2 else 300]
        files = [archive.read(name) for name in names]
    content = {"as they are": compare(files), "600 × 450": compare([enlarged(one) for one in files])}
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    print(json.dumps(content, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

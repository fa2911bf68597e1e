"""Does the page judge as Python does, and how much slower? In a headless Chromium, on the holdout of HAM10000.

    python -m benchmarks.web HAM10000    # a folder of its images or zips; some minutes; writes results/web.json

The first ``IMAGES`` pictures of the holdout, from their JPEG bytes: the browser decodes and the page's own modules do
the rest. The holdout only judges here, and nothing is chosen by it. FP32 is the network of the INT8 file without
rounding (:func:`web.driver.unquantized`). Times are of one image on one thread, Python and page in turn on each image
of the same run; a ratio is the median over images. ``python_levels`` is how far Python's own answers lie apart when
ONNX Runtime optimises the graph or runs it literally: what 8 bits leave open.
"""

import argparse
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from dermdistill.core.classes import MELANOMA
from dermdistill.core.files import read_table, write_json
from dermdistill.deployment.runtime import Detector
from dermdistill.ingest import pixels
from dermdistill.ingest.archives import find_images
from dermdistill.metrics.metrics import rounded
from web import build, driver, serve

RESULTS, HOLDOUT = Path("benchmarks/results/web.json"), Path("data/splits/holdout.csv")
MODEL = build.DEPLOYED / "student.int8.onnx"
IMAGES, TIMED = 300, 100


def main(arguments: argparse.Namespace) -> None:
    ids = read_table(HOLDOUT)["image_id"].tolist()[:IMAGES]
    readers = find_images(arguments.ham10000)
    contents = [readers[one.casefold()]() for one in ids]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_folder = build.build(Path(folder) / "page")
        (page_folder / "_headers").unlink()
        browser = play.chromium.launch(executable_path=arguments.chromium, args=["--no-sandbox"])
        with driver.serving(serve.server(page_folder, 0, "localhost")) as url:
            page = browser.new_page()
            page.route("**/*", one_thread)
            page.goto(url)
            page.wait_for_selector(driver.READY, state="attached", timeout=120_000)
            networks = {"int8": MODEL, "fp32": driver.unquantized(MODEL, Path(folder) / "fp32.onnx")}
            result = measure(page, networks, contents)
        result = {"chromium": browser.version, "processor": platform.processor() or platform.machine()} | result
        browser.close()
    write_json(RESULTS, rounded(result, 6))


def one_thread(route: Any) -> None:
    """The page as of a host without isolation headers, where it computes on one thread."""
    response = route.fetch()
    kept = {name: value for name, value in response.headers.items() if not name.startswith("cross-origin-")}
    route.fulfill(response=response, headers=kept)


def measure(page: Page, networks: dict[str, Path], contents: list[bytes]) -> dict[str, Any]:
    asked = driver.Asked(page)
    assert page.evaluate("self.crossOriginIsolated") is False
    detectors = {name: Detector(path, threads=1) for name, path in networks.items()}
    first = detectors["int8"]
    images = np.stack([pixels.read(content, "image", first.height, first.width) for content in contents])
    result: dict[str, Any] = {"images": len(images)}
    for name, path in networks.items():
        asked.open(name, path)
        expected = one_by_one(detectors[name], images)
        result[name] = {"pixels": deviation(asked.predict(name, images)[0], expected)}
        result[name] |= times(asked, name, detectors[name], images[:TIMED])
        if name == "int8":
            answers = asked.answer(name, contents)
            result[name]["jpeg"] = decisions(answers, expected, first.thresholds["sensitivity"])
            literal = one_by_one(Detector(path, threads=1, optimize=False), images)
            result[name]["python_levels"] = deviation(literal, expected)
    by_page = result["int8"]["page_ms"] / result["fp32"]["page_ms"]
    return result | {"int8_to_fp32_in_the_page": by_page}


def one_by_one(detector: Detector, images: np.ndarray) -> np.ndarray:
    return np.concatenate([detector.predict(image[None]) for image in images])


def deviation(found: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    """Of probabilities (N, 7): of all seven, and of that of melanoma."""
    apart = np.abs(found - expected)
    of_melanoma = apart[:, MELANOMA]
    return {
        "max": float(apart.max()),
        "mean": float(apart.mean()),
        "max_melanoma": float(of_melanoma.max()),
        "mean_melanoma": float(of_melanoma.mean()),
        "images_above_0.01": int((apart.max(axis=1) > 0.01).sum()),
    }


def decisions(answers: list[dict[str, Any]], expected: np.ndarray, threshold: float) -> dict[str, Any]:
    """How many decisions from JPEG bytes are Python's; how far from the threshold the others are, at most."""
    judged = np.array([answer["decision"] for answer in answers])
    p = expected[:, MELANOMA]
    differ = (judged == "refer") != (p >= threshold)
    return {
        "cannot_judge": int((judged == "cannot judge").sum()),
        "referred": int((judged == "refer").sum()),
        "equal": float((~differ).mean()),
        "farthest_from_threshold": float(np.abs(p[differ] - threshold).max(initial=0)),
    }


def times(asked: driver.Asked, name: str, detector: Detector, images: np.ndarray) -> dict[str, float]:
    """Median milliseconds in page and Python, and the median of their ratio on the same image."""
    in_page, in_python = np.zeros(len(images)), np.zeros(len(images))
    for index, image in enumerate(images):
        in_page[index] = asked.predict(name, image[None])[1][0]
        begun = time.perf_counter()
        detector.predict(image[None])
        in_python[index] = (time.perf_counter() - begun) * 1e3
    ratio = float(np.median(in_page / in_python))
    return {"page_ms": float(np.median(in_page)), "python_ms": float(np.median(in_python)), "ratio": ratio}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ham10000", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    main(parser.parse_args())

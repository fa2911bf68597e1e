"""The page in a real headless Chromium, judging drawn lesions as Python does."""

import base64
import functools
import http.server
import io
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import REPOSITORY, missing
from PIL import Image, ImageCms
from playwright import sync_api as api

from dermdistill.core.classes import CLASSES, MELANOMA
from dermdistill.core.files import read_json
from dermdistill.deployment.runtime import Detector
from dermdistill.errors import UserError
from dermdistill.ingest import pixels
from dermdistill.metrics import selective
from dermdistill.phantom import phantom
from web import build, driver, serve

MODEL = build.DEPLOYED / "student.int8.onnx"
DESCRIPTION = read_json(MODEL.with_suffix(".json"))
HEIGHT, WIDTH = 150, 200
NAMES = ("mel", "nv", "bkl", "bcc")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not build.RUNTIME.exists():
        missing("web/node_modules is missing: `npm ci --prefix web`")
    return build.build(tmp_path_factory.mktemp("web") / "page")


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    with driver.serving(serve.server(built, 0, "localhost")) as url:
        yield url


def opened(browser: api.Browser, url: str, **settings: Any) -> api.Page:
    """The page at ``url``, ready to judge; complaints of the console and foreign requests end the test."""
    page = browser.new_context(**settings).new_page()
    faults: list[str] = []
    page.on("console", lambda said: faults.append(said.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda one: None if one.url.startswith(("blob:", url)) else faults.append(one.url))
    page.goto(url)
    page.wait_for_selector(driver.READY, state="attached")
    assert faults == []
    return page


@pytest.fixture(scope="module")
def asked(browser: api.Browser, address: str, tmp_path_factory: pytest.TempPathFactory) -> driver.Asked:
    page = driver.Asked(opened(browser, address))
    page.open("int8", MODEL)
    return page


@pytest.fixture
def page(browser: api.Browser, address: str) -> Iterator[api.Page]:
    page = opened(browser, address, locale="en-GB")
    yield page
    page.context.close()


def drawn(seed: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    return phantom.jpeg(phantom.draw(np.random.default_rng(seed), NAMES[seed % len(NAMES)], height, width))


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    return [drawn(seed) for seed in range(200)]


@pytest.fixture(scope="module")
def prepared(photographs: list[bytes]) -> np.ndarray:
    return np.stack([pixels.read(content, "drawn", HEIGHT, WIDTH) for content in photographs])


def show(page: api.Page, *contents: bytes, name: str = "photo.jpg") -> None:
    """Give the files to the page as its reader does and wait for the answers."""
    page.set_input_files("#files", [{"name": name, "mimeType": "image/jpeg", "buffer": one} for one in contents])
    page.wait_for_selector(f".card:nth-child({len(contents)})")
    page.wait_for_selector(".verdict[data-decision='']", state="detached")


def sentences(page: api.Page) -> dict[str, dict[str, str]]:
    """Language → key → sentence, from the page's own file."""
    return dict(page.evaluate("""async () => (await import(new URL("words.js", location.href))).WORDS"""))


def encoded(image: Image.Image, kind: str, **settings: Any) -> bytes:
    image.save(stream := io.BytesIO(), kind, **settings)
    return stream.getvalue()


# --- the same pixels, probabilities and decisions as Python -----------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [(150, 200), (450, 600), (31, 90), (333, 217), (500, 701), (16, 20), (151, 200), (17, 600), (600, 17), (90, 31)],
)
def test_pixels_are_those_of_python_to_the_bit(asked: driver.Asked, size: tuple[int, int]) -> None:
    image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)
    np.testing.assert_array_equal(asked.fit(image, HEIGHT, WIDTH), pixels.fit(Image.fromarray(image), HEIGHT, WIDTH))


@pytest.mark.parametrize("size", [(450, 600), (601, 803), (1205, 904)])
def test_large_jpegs_are_halved_as_pythons_decoder_does(asked: driver.Asked, size: tuple[int, int]) -> None:
    """Not to the bit: at a fraction of the size the decoder rounds elsewhere and leaves out smoothing of colours."""
    content = drawn(0, *size)
    decoded = np.asarray(Image.open(io.BytesIO(content)))
    expected = pixels.read(content, "drawn", HEIGHT, WIDTH).astype(int)
    halved, whole = (np.abs(asked.fit(decoded, HEIGHT, WIDTH, kind) - expected).mean() for kind in ("jpeg", "png"))
    assert halved < 0.4 and halved < whole


@pytest.mark.slow
def test_fp32_gives_pythons_probabilities(asked: driver.Asked, prepared: np.ndarray, tmp_path: Path) -> None:
    network = driver.unquantized(MODEL, tmp_path / "student.fp32.onnx")
    asked.open("fp32", network)
    found, _ = asked.predict("fp32", prepared)
    assert np.abs(found - Detector(network).predict(prepared)).max() < 1e-4


def test_answers_to_jpegs_are_pythons(asked: driver.Asked, photographs: list[bytes], prepared: np.ndarray) -> None:
    """Probabilities up to rounding (two levels of optimisation differ as much in Python), decisions, sets, doubt."""
    answers = asked.answer("int8", photographs)
    detector, rules = Detector(MODEL), selective.from_text(DESCRIPTION["selective"], "the manifest")
    expected, threshold = detector.predict(prepared), detector.thresholds["sensitivity"]
    found = np.array([answer["probabilities"] for answer in answers])
    assert np.abs(found - expected).mean() < 0.003 and np.abs(found - expected).max() < 0.03
    refer = np.array([answer["decision"] == "refer" for answer in answers])
    differ, distance = refer != (expected[:, MELANOMA] >= threshold), np.abs(expected[:, MELANOMA] - threshold)
    assert {answer["decision"] for answer in answers} == {"refer", "no alarm"}
    assert differ.mean() <= 0.005 and (distance[differ] < 0.01).all()
    for answer, p, inside in zip(answers, found, selective.sets(found, rules.by_class), strict=True):
        assert answer["set"] == [name for name, one in zip(CLASSES, inside, strict=True) if one]
        deferred = [float(share) for share, least in rules.keep.items() if p.max() < least]
        assert answer["surer"] == max(deferred, default=None)


@pytest.mark.parametrize("probabilities", [[float("nan")] * 7, [0.5] * 6, [], [2.0] + [0.0] * 6])
def test_unusable_probabilities_are_never_no_alarm(asked: driver.Asked, probabilities: list[float]) -> None:
    script = """async ([p, description]) => {
      const { judge, readRules } = await import(new URL("judge.js", location.href));
      return judge(p.map((one) => one ?? NaN), readRules(description)).decision;
    }"""
    values = [None if p != p else p for p in probabilities]
    assert asked.page.evaluate(script, [values, DESCRIPTION]) == "cannot judge"


@pytest.mark.parametrize("change", [{"thresholds": {}}, {"selective": "{}"}, {"melanoma_index": 0}])
def test_a_model_without_its_rules_is_refused(asked: driver.Asked, change: dict[str, Any]) -> None:
    script = """async (description) => {
      const { readRules } = await import(new URL("judge.js", location.href));
      try { readRules(description); return "taken"; } catch { return "refused"; }
    }"""
    assert asked.page.evaluate(script, DESCRIPTION) == "taken"
    assert asked.page.evaluate(script, DESCRIPTION | change) == "refused"


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_turns_a_picture_as_in_python(asked: driver.Asked, orientation: int) -> None:
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = orientation
    content = encoded(Image.open(io.BytesIO(drawn(0))).crop((0, 0, 120, 150)), "JPEG", exif=exif, quality=95)
    (answer,) = asked.answer("int8", [content])
    prepared = pixels.read(content, "turned", HEIGHT, WIDTH)[None]
    np.testing.assert_allclose(answer["probabilities"], asked.predict("int8", prepared)[0][0], atol=0.01)


def test_colours_of_a_profile_become_srgb(asked: driver.Asked) -> None:
    """A profile that takes red for green and green for red: whoever ignores it shows the model another picture."""
    image, srgb = Image.open(io.BytesIO(drawn(0))), ImageCms.createProfile("sRGB")
    profile = bytearray(ImageCms.ImageCmsProfile(srgb).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    converted = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb)
    files = [encoded(image, "PNG", icc_profile=bytes(profile)), encoded(converted, "PNG"), encoded(image, "PNG")]
    tagged, expected, ignored = (np.array(one["probabilities"]) for one in asked.answer("int8", files))
    assert np.abs(tagged - expected).max() < 0.03 and np.abs(ignored - expected).max() > 0.1


def test_the_occlusion_map_covers_what_it_says(asked: driver.Asked, prepared: np.ndarray) -> None:
    image = prepared[0]
    found = asked.occlude("int8", image)
    change = np.array(found["change"]).reshape(found["rows"], found["columns"])
    assert change.shape == (6, 8) and np.ptp(change) > 0.01
    row, column = (int(index) for index in np.unravel_index(np.abs(change).argmax(), change.shape))
    covered, side = image.copy(), HEIGHT // 6
    top, left = int(np.floor((row - 0.5) * side)), int(np.floor((column - 0.5) * side))
    covered[max(top, 0) : top + 2 * side, max(left, 0) : left + 2 * side] = (
        image.reshape(-1, 3).mean(axis=0) + 0.5
    ).astype(np.uint8)
    before, after = asked.predict("int8", np.stack([image, covered]))[0][:, MELANOMA]
    assert change[row, column] == pytest.approx(before - after, abs=0.005)


# --- files that cannot be judged ------------------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size; nobody gets as far as its missing pixels."""
    content = bytearray(encoded(Image.new("RGB", (20, 20)), "PNG"))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return bytes(content)


def bad_files() -> dict[str, tuple[bytes, str]]:
    photo = Image.open(io.BytesIO(drawn(0)))
    frames = {"save_all": True, "append_images": [photo.rotate(90, expand=False)]}
    jpeg, png = drawn(0), encoded(photo, "PNG")
    deep = encoded(Image.fromarray(np.arange(60000, dtype=np.uint16).reshape(200, 300)), "PNG")
    return {
        "empty": (b"", "empty"),
        "text": (b"not a picture at all", "unknown"),
        "truncated JPEG": (jpeg[: len(jpeg) // 2], "damaged"),
        "truncated PNG": (png[: len(png) // 2], "damaged"),
        "header of a JPEG alone": (jpeg[:20], "damaged"),
        "corrupt PNG": (png[:100] + bytes(200) + png[300:], "damaged"),
        "100 MP PNG": (png_of(10_000, 10_000), "large"),
        "16 × 4 pixels": (encoded(photo.resize((16, 4)), "PNG"), "small"),
        "CMYK": (encoded(photo.convert("CMYK"), "JPEG"), "cmyk"),
        "animated PNG": (encoded(photo, "PNG", **frames), "animated"),
        "animated WebP": (encoded(photo, "WEBP", **frames), "animated"),
        "GIF": (encoded(photo, "GIF"), "convert"),
        "TIFF": (encoded(photo, "TIFF"), "convert"),
        "BMP": (encoded(photo, "BMP"), "convert"),
        "16 bits": (deep, "deep"),
        "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "heic"),
        "film": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100), "film"),
        "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "drawing"),
        "transparent": (encoded(Image.new("RGBA", (50, 50), (9, 9, 9, 9)), "PNG"), "transparent"),
    }


@pytest.mark.parametrize(("content", "code"), bad_files().values(), ids=bad_files().keys())
def test_a_bad_file_gets_a_sentence_and_the_page_goes_on(page: api.Page, content: bytes, code: str) -> None:
    show(page, content)
    said = page.inner_text(".because")
    words = sentences(page)["en"][f"refuse.{code}"]
    assert page.inner_text(".card .verdict") == "Cannot judge" and not page.is_visible(".answer")
    assert re.fullmatch(re.sub(r"\\\{\w+\\\}", ".+", re.escape(words)), said) and "{" not in said
    show(page, drawn(0), content)
    page.locator(".card", has_text="photo.jpg").nth(1).wait_for()
    assert (
        page.locator(".card .verdict", has_text="Refer")
        .or_(page.locator(".card .verdict", has_text="No alarm"))
        .count()
        == 1
    )


@pytest.mark.parametrize("name", ["empty", "text", "truncated JPEG", "truncated PNG", "16 × 4 pixels", "SVG", "film"])
def test_what_python_refuses_the_page_refuses(name: str) -> None:
    with pytest.raises(UserError), warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels.read(bad_files()[name][0], name, HEIGHT, WIDTH)


# --- a release: offline, policy, versions ---------------------------------------------------------------------------


def test_the_first_load_is_small_and_the_second_needs_no_network(browser: api.Browser, built: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    sizes: dict[str, int] = {}
    page.on("requestfinished", lambda one: sizes.update({one.url: one.sizes()["responseBodySize"]}))
    running = driver.serving(serve.server(built, 0, "localhost"))
    url = running.__enter__()
    page.goto(url)
    page.wait_for_selector(driver.READY, state="attached")
    page.wait_for_selector("#status:has-text('without network'), #status:has-text('ohne Netz')")
    assert {address.rpartition(":")[0] for address in sizes} == {"http://localhost"}
    assert 4e6 < sum(sizes.values()) < 8e6 and 1e6 < sizes[f"{url}student.int8.onnx"] < 2e6
    running.__exit__(None, None, None)  # no server any more
    context.set_offline(True)
    page.reload()
    page.wait_for_selector(driver.READY, state="attached")
    show(page, drawn(0))
    assert page.is_visible(".answer")
    stored = page.evaluate(
        """async () => {
          const caches_ = await Promise.all((await caches.keys()).map((name) => caches.open(name)));
          const kept = (await Promise.all(caches_.map((one) => one.keys()))).flat().map(({ url }) => url);
          const databases = await indexedDB.databases();
          return [kept, localStorage.length, sessionStorage.length, databases.length, document.cookie];
        }"""
    )
    assert {one.rpartition("/")[2] for one in stored[0]} == {*release(built)["files"], "version.js"}
    assert stored[1:] == [0, 0, 0, ""]
    context.close()


def release(folder: Path) -> dict[str, Any]:
    text = (folder / "version.js").read_text()
    return dict(json.loads(text.removeprefix("self.RELEASE = ").rstrip().removesuffix(";")))


def test_a_release_is_named_by_its_model(built: Path) -> None:
    found = release(built)
    assert found["model"] == DESCRIPTION["sha256"] and found["version"].startswith(DESCRIPTION["sha256"][:12])


def test_the_policy_blocks_injected_scripts_and_foreign_requests(page: api.Page, address: str) -> None:
    blocked = page.evaluate(
        """async () => {
          const found = new Set();
          document.addEventListener("securitypolicyviolation", (event) => found.add(event.effectiveDirective));
          const inline = document.createElement("script");
          inline.textContent = "self.injected = true";
          const foreign = Object.assign(document.createElement("script"), { src: "https://example.org/x.js" });
          document.body.append(inline, foreign);
          document.body.insertAdjacentHTML("beforeend", "<img src=x.png onerror='self.injected = true'>");
          await fetch("https://example.org/").catch(() => {});
          await new Promise((resume) => setTimeout(resume, 500));
          return [[...found].sort(), self.injected ?? null];
        }"""
    )
    assert blocked == [["connect-src", "script-src-attr", "script-src-elem"], None]


def test_headers_allow_threads_and_plain_hosts_in_a_folder_do_without(
    browser: api.Browser, built: Path, address: str, tmp_path: Path
) -> None:
    page = opened(browser, address)
    assert page.evaluate("self.crossOriginIsolated")
    page.context.close()
    shutil.copytree(built, tmp_path / "some/folder")
    plain = functools.partial(Silent, directory=str(tmp_path))
    with driver.serving(http.server.ThreadingHTTPServer(("localhost", 0), plain)) as url:
        page = opened(browser, f"{url}some/folder/", locale="en-GB")
        assert "one thread" in page.inner_text("#status")
        page.wait_for_selector("#status:has-text('without network')")
        show(page, drawn(0))
        assert page.is_visible(".answer")
        page.reload()  # from the service worker, which adds the headers
        page.wait_for_selector(driver.READY, state="attached")
        assert page.evaluate("self.crossOriginIsolated")
        page.context.close()


class Silent(http.server.SimpleHTTPRequestHandler):
    """The standard library's handler, as any static host: no header of ours."""

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hosted(built: Path, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of one's own that is served, to replace its files."""
    folder = Path(shutil.copytree(built, tmp_path / "hosted"))
    with driver.serving(serve.server(folder, 0, "localhost")) as url:
        yield folder, url


def another_model(folder: Path) -> Path:
    """What stage ``ship`` might leave next: other bytes, their hash in the JSON."""
    import onnx

    from dermdistill.core.files import sha256
    from dermdistill.deployment import onnx_export

    shutil.copytree(build.DEPLOYED, folder)
    model = onnx.load(folder / MODEL.name)
    onnx_export.describe(model, {"note": "another"})
    onnx_export.save(model, folder / MODEL.name)
    manifest = DESCRIPTION | {"sha256": sha256(folder / MODEL.name), "id": "another"}
    (folder / MODEL.with_suffix(".json").name).write_text(json.dumps(manifest))
    return folder


def test_an_old_page_with_a_new_model_says_so(browser: api.Browser, hosted: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = hosted
    for path in another_model(tmp_path / "deploy").glob("student*"):
        shutil.copy(path, folder)
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#status.error")
    assert "different versions" in page.inner_text("#status") and page.is_disabled("#files")
    context.close()


def test_a_new_release_is_offered_and_taken(browser: api.Browser, hosted: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = hosted
    page = opened(browser, url, locale="en-GB")
    page.wait_for_selector("#status:has-text('without network')")
    build.build(folder, another_model(tmp_path / "deploy"))
    page.reload()
    page.wait_for_selector("#update:visible")
    assert DESCRIPTION["id"] in page.inner_text("#status"), "until its reader agrees, the old release is used whole"
    page.click("#reload")
    page.wait_for_selector("#status:has-text('Model another')")
    page.context.close()


@pytest.mark.parametrize("fault", ["model", "example", "absent"])
def test_what_is_not_the_evaluated_model_judges_nothing(
    browser: api.Browser, hosted: tuple[Path, str], fault: str
) -> None:
    folder, url = hosted
    if fault == "model":
        content = bytearray((folder / MODEL.name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / MODEL.name).write_bytes(content)
    elif fault == "absent":
        (folder / MODEL.name).unlink()
    else:
        Image.new("RGB", (WIDTH, HEIGHT), (200, 150, 140)).save(folder / "example.png")
    context = browser.new_context(locale="en-GB")
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector("#status.error")
    expected = {"model": "different versions", "example": "other probabilities", "absent": "could not be loaded"}
    assert expected[fault] in page.inner_text("#status") and page.is_disabled("#files")
    context.close()


# --- how it is used -------------------------------------------------------------------------------------------------


def test_one_alarm_among_pictures_of_a_lesion_is_an_alarm(page: api.Page, asked: driver.Asked) -> None:
    files = [drawn(seed) for seed in range(12)]
    decisions = [answer["decision"] for answer in asked.answer("int8", files)]
    refer, calm = decisions.index("refer"), decisions.index("no alarm")
    show(page, files[calm])
    page.check("#lesion")
    assert page.get_attribute("#lesion-verdict", "data-decision") == "no alarm"
    show(page, b"no picture", files[calm])
    assert page.get_attribute("#lesion-verdict", "data-decision") == "cannot judge"
    show(page, files[refer], b"", b"")
    assert page.get_attribute("#lesion-verdict", "data-decision") == "refer"


def test_the_frame_moves_by_keyboard_and_zooms(page: api.Page) -> None:
    show(page, drawn(0, 300, 400))
    view = "document.querySelector('.model').toDataURL()"
    whole = page.evaluate(view)
    assert not page.is_visible(".framed")
    page.focus(".zoom")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_selector(".framed:visible")
    zoomed = page.evaluate(view)
    page.focus(".photo")
    for _ in range(8):
        page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1500)
    assert len({whole, zoomed, page.evaluate(view)}) == 3


def test_pictures_are_pasted_and_dropped(page: api.Page) -> None:
    give = """([kind, text]) => {
      const data = new DataTransfer();
      const content = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
      data.items.add(new File([content], "given.jpg", { type: "image/jpeg" }));
      const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
        : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }"""
    for count, kind in enumerate(("paste", "drop"), 1):
        page.evaluate(give, [kind, base64.b64encode(drawn(count)).decode()])
        page.wait_for_selector(f".card:nth-child({count}) .answer:visible")


def test_the_operating_point_is_that_of_the_json(page: api.Page) -> None:
    show(page, drawn(0))
    for point, threshold in DESCRIPTION["thresholds"].items():
        page.select_option("#point", point)
        assert f"threshold {threshold:.1%}" in page.inner_text(".melanoma")


def test_occlusion_is_shown_on_demand(page: api.Page) -> None:
    show(page, drawn(0))
    page.click(".occlusion")
    page.wait_for_selector(".occluded:has-text('→'), .occluded:has-text('hardly')")


def test_two_hundred_pictures_leave_memory_as_it_was(page: api.Page, photographs: list[bytes]) -> None:
    client = page.context.new_cdp_session(page)

    def used() -> float:
        client.send("HeapProfiler.collectGarbage")
        metrics = client.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "JSHeapUsedSize") / 1e6

    client.send("Performance.enable")
    after = []
    for start in range(0, 200, 25):
        show(page, *photographs[start : start + 25][:24])
        after.append(used())
    assert page.locator(".card").count() == 24
    assert max(after[4:]) < 1.1 * max(after[:4]) + 2, after


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_it_fits_and_axe_finds_nothing_serious(browser: api.Browser, address: str, width: int, scheme: Any) -> None:
    settings = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "locale": "en-GB"}
    page = opened(browser, address, bypass_csp=True, **settings)
    show(page, drawn(0), b"no picture")
    page.check("#lesion")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.evaluate((REPOSITORY / "web/node_modules/axe-core/axe.min.js").read_text())
    found = page.evaluate("async () => (await axe.run()).violations.map(({ id, impact }) => [impact, id])")
    assert [one for one in found if one[0] in ("serious", "critical")] == []
    page.context.close()


def test_german_readers_get_german(browser: api.Browser, address: str) -> None:
    page = opened(browser, address, locale="de-CH")
    assert page.get_attribute("html", "lang") == "de" and "Kein Medizinprodukt" in page.inner_text(".warning")
    show(page, drawn(0))
    page.click("#language")
    assert page.get_attribute("html", "lang") == "en" and "Not a medical device" in page.inner_text(".warning")
    assert "melanocytic nevus" in page.inner_text("table")
    page.context.close()


# --- words ----------------------------------------------------------------------------------------------------------


def test_both_languages_say_everything_and_no_number(asked: driver.Asked) -> None:
    words = asked.page.evaluate("""async () => (await import(new URL("words.js", location.href))).WORDS""")
    holes = {
        tongue: {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in words[tongue].items()} for tongue in words
    }
    assert holes["en"] == holes["de"] and len(holes["en"]) > 60
    names = re.compile("HAM10000|Derm7pt|F1")
    assert [text for one in words.values() for text in one.values() if re.search(r"\d", names.sub("", text))] == []


def test_every_sentence_is_used_and_there(asked: driver.Asked) -> None:
    words = asked.page.evaluate(
        """async () => Object.keys((await import(new URL("words.js", location.href))).WORDS.en)"""
    )
    sources = "".join((REPOSITORY / "web" / name).read_text() for name in build.PAGE if name.endswith(("js", "html")))
    said = set(re.findall(r"""say\(["'`]([\w.]+)["']""", sources)) | set(re.findall(r'data-word="(\w+)"', sources))
    said |= {f"refuse.{code}" for code in re.findall(r'Refusal\((?:kind === )?"(\w+)"', sources)} - {"refuse.heic"}
    said |= {f"load.{code}" for code in re.findall(r'LoadError\("(\w+)"', sources)}
    assert said <= set(words)
    dynamic = re.compile(r"(refuse|load|verdict|because|lesion|point|place|chance)\.|offline|noOffline")
    assert {word for word in words if not dynamic.match(word)} <= said


def test_a_folder_of_something_else_is_left_alone(built: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit, match="holds something else"):
        build.build(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    before = (built / "version.js").read_bytes()
    assert (build.build(built) / "version.js").read_bytes() == before, "the same inputs, the same release"


def test_the_manifest_makes_it_installable(built: Path) -> None:
    manifest = read_json(built / "manifest.webmanifest")
    assert {"name", "start_url", "display", "icons"} <= set(manifest)
    assert all((built / icon["src"]).exists() for icon in manifest["icons"])
    assert Image.open(built / "icon.png").size == (512, 512)


def test_the_qr_code_holds_the_address() -> None:
    import cv2

    if not shutil.which("node") or not build.RUNTIME.exists():
        missing("node or web/node_modules is missing")
    url = "http://192.0.2.7:8000/"
    done = subprocess.run(["node", str(build.WEB / "qr.js"), url], capture_output=True, text=True, check=True)
    rows = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in done.stdout.splitlines()]
    halves = {" ": (0, 0), "▀": (255, 0), "▄": (0, 255), "█": (255, 255)}
    bits = np.array([[halves[one][half] for one in row] for row in rows for half in (0, 1)], np.uint8)
    picture = np.pad(bits.repeat(8, 0).repeat(8, 1), 32, constant_values=255)
    assert cv2.QRCodeDetector().detectAndDecode(picture)[0] == url


def test_no_npm_package_is_fetched_from_a_host_named_here() -> None:
    lock = (REPOSITORY / "web/package-lock.json").read_text()
    assert "integrity" in lock and "://" not in lock

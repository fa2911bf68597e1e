"""The report as a person sees it: in a real Chromium, on a phone and on a desk, light and dark, and printed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright import sync_api as api


@pytest.fixture
def opened(browser: api.Browser, pristine: Path, request: pytest.FixtureRequest) -> Iterator[api.Page]:
    """The page, opened as asked for by (width, color scheme); it must neither complain nor ask for anything."""
    width, scheme = getattr(request, "param", (1280, "light"))
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda said: complaints.append(said.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto((pristine / "reports/report.html").as_uri())
    yield page
    outside = [url for url in requests if not url.startswith("data:")]
    assert outside == [(pristine / "reports/report.html").as_uri()]
    assert complaints == []
    context.close()


@pytest.mark.parametrize(
    "opened", [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")], indirect=True
)
def test_it_fits_and_reads_on_phone_and_desk(opened: api.Page) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    loaded = "image => image.complete && image.naturalWidth > 0"
    assert opened.evaluate(f"[...document.querySelectorAll('figure img')].every({loaded})")
    contrast = opened.evaluate(
        """() => {
          const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number)
            .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const paper = light(getComputedStyle(document.body).backgroundColor);
          return ["p", "td", "figcaption", "a", "td small"].map(name => {
            const ink = light(getComputedStyle(document.querySelector("main " + name)).color);
            return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
          });
        }"""
    )
    assert min(contrast) >= 4.5  # WCAG 2.2, AA


def test_a_table_sorts_by_its_numbers_and_back(opened: api.Page) -> None:
    table = opened.locator("table").first
    column = 1  # melanoma AUC
    values = "cells => cells.map(cell => parseFloat(cell.firstChild.textContent))"
    cells = table.locator(f"tbody tr td:nth-child({column + 1})")
    before = cells.evaluate_all(values)
    button = table.locator("thead th").nth(column).locator("button")
    button.click()
    assert cells.evaluate_all(values) == sorted(before, reverse=True)
    assert table.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"
    button.focus()
    opened.keyboard.press("Enter")
    assert cells.evaluate_all(values) == sorted(before) != sorted(before, reverse=True)


def test_a_picture_enlarges_and_closes_by_keyboard(opened: api.Page) -> None:
    viewer = opened.locator("dialog.viewer")
    opened.locator(".panel button.zoom").first.focus()
    opened.keyboard.press("Enter")
    assert viewer.is_visible() and viewer.locator("img").get_attribute("alt")
    opened.keyboard.press("Escape")
    assert not viewer.is_visible()


def test_the_policy_forbids_what_the_page_does_not_need(opened: api.Page) -> None:
    policy = opened.locator("meta[http-equiv='Content-Security-Policy']").get_attribute("content")
    assert policy is not None and "default-src 'none'" in policy and "connect-src" not in policy
    assert opened.locator("button.sort").count() > 10  # the script did run under it


def test_it_prints(opened: api.Page) -> None:
    printed = opened.pdf(format="A4")
    assert printed.startswith(b"%PDF") and len(printed) > 20_000
    opened.emulate_media(media="print")
    assert not opened.locator("nav").is_visible()

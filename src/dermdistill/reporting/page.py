"""What a section of the report is made of, and the pictures inside it.

A section is a function ``(Page) -> Section | None`` named once in ``sections.SECTIONS``; the template knows the kinds
of blocks and nothing of their content. So a new section needs no HTML.
"""

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dermdistill.errors import UserError
from dermdistill.reporting.cells import Table
from dermdistill.reporting.results import Drawn, Results

PHOTOGRAPH_WIDTH = 1500  # pixels: what a panel keeps of its size inside the page


class Picture(NamedTuple):
    title: str
    uri: str
    alt: str
    caption: str


class Block(NamedTuple):
    kind: str  # text | bullets | heading | table | figures | panels
    content: Any


class Section(NamedTuple):
    id: str  # of the link in the contents
    title: str
    blocks: list[Block]


class Page(NamedTuple):
    """What every section may draw on: the folder, the metrics, and the figures already saved below it."""

    root: Path
    results: Results
    drawn: dict[str, Drawn]

    def figures(self, *names: str) -> Block:
        """Figures of ``plots/figures`` by name; one that was not drawn in this run is left out."""
        shown = [self.drawn[name] for name in names if name in self.drawn]
        return figures(picture(self.root / f"plots/figures/{one.name}.png", *one[2:]) for one in shown)


def text(*paragraphs: str) -> Block:
    return Block("text", list(paragraphs))


def bullets(items: Iterable[str]) -> Block:
    return Block("bullets", list(items))


def heading(title: str) -> Block:
    return Block("heading", title)


def table(shown: Table) -> Block:
    return Block("table", shown)


def tables(*shown: Table | None) -> list[Block]:
    return [table(one) for one in shown if one is not None]


def figures(pictures: Iterable[Picture]) -> Block:
    return Block("figures", list(pictures))


def panels(pictures: Iterable[Picture]) -> Block:
    """Wide pictures, one below the other; on a phone they scroll sideways."""
    return Block("panels", list(pictures))


def picture(path: str | Path, title: str, alt: str, caption: str, photograph: bool = False) -> Picture:
    """A PNG as a data URI; photographs become JPEG, which keeps the page small enough to mail."""
    try:
        content, kind = Path(path).read_bytes(), "png"
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro` makes it") from None
    if photograph:
        buffer = io.BytesIO()
        shown = Image.open(io.BytesIO(content)).convert("RGB")
        shown.thumbnail((PHOTOGRAPH_WIDTH, 100 * PHOTOGRAPH_WIDTH))
        shown.save(buffer, "JPEG", quality=75, optimize=True)
        content, kind = buffer.getvalue(), "jpeg"
    return Picture(title, f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt, caption)

"""One self-contained HTML page, the Markdown fragments and one small JSON, all from files of metrics.

The page fetches nothing: style, script and pictures are inside, and a content security policy forbids everything else,
so that it can be opened in a clinic without network and kept as a record. Its script only sorts tables and enlarges
pictures; without it nothing is lost.

Deliberately absent: any metric of its own (``evaluation`` computes, ``tables`` words, ``sections`` arranges) and any
date or revision, which would make two equal reports differ.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dermdistill.core.files import read_json, write_json, write_text
from dermdistill.metrics import predictions
from dermdistill.params import Params
from dermdistill.reporting import figures, fragments, plots, results, sections, tables
from dermdistill.reporting.cells import percent
from dermdistill.reporting.page import Page
from dermdistill.reporting.results import Drawn, Results

HERE = Path(__file__).parent
PHANTOM = "HAM_9"  # the embedded phantom's lesions carry ids that HAM10000 does not use


def build(root: str | Path, settings: Params) -> None:
    """Write report, figures, summary and fragments below ``root``.

    Raises:
        UserError: naming the first file that is missing.
    """
    root = Path(root)
    found = results.load(root, settings)
    write_json(root / "metrics/summary.json", tables.summary(found.val, found.holdout))
    for name, text in fragments.texts(found).items():
        write_text(root / f"{fragments.FOLDER}/{name}.md", text)
    drawn = figures.figures(root, found)
    for item in drawn:
        plots.save(item.figure, root / f"plots/figures/{item.name}.png")
    write_text(root / "reports/report.html", html(root, found, drawn))


def html(root: Path, found: Results, drawn: Sequence[Drawn]) -> str:
    """The report; the ``drawn`` figures must have been saved to ``plots/figures``."""
    shipped = found.settings.shipped
    at = Page(root, found, {item.name: item for item in drawn})
    holdout = found.holdout[shipped]
    context = {
        "shipped": shipped,
        "phantom": is_phantom(root, shipped),
        "headline": tables.headline(holdout, read_json(root / f"metrics/quantize/{shipped}.json")),
        "prevalence": percent(holdout["n"]["melanoma"] / holdout["n"]["images"]),
        "sections": [section for make in sections.SECTIONS if (section := make(at)) is not None],
    }
    return render(context)


def is_phantom(root: Path, model: str) -> bool:
    known = predictions.read(root / f"predictions/holdout/{model}.csv")
    return all(str(lesion).startswith(PHANTOM) for lesion in known.lesion_id)


def render(context: Mapping[str, Any]) -> str:
    """Fill the template; a name it needs and does not get is an error, and every value is escaped."""
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    script = (HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    inside = {"script": Markup(script), "script_digest": digest}  # our own file: nothing in it to escape
    return environment.get_template("report.html.j2").render(**context, **inside) + "\n"

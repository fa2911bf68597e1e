"""How a number is written, what a table is, and how templates are filled.

A table is described once, in ``templates/tables.yaml`` (header → what a row shows there), and rendered twice:
:func:`markdown` for the documents, the macro ``grid`` of ``templates/macros.html.j2`` for the page. All prose stands in
``templates``: captions and sentences are macros of ``words.j2``, which :func:`words` fills. An undefined value is a
dash, never a 0; a minus is a minus sign; an interval stands below its value (HTML) or in brackets behind it (Markdown).

Deliberately absent: numbers of its own, and HTML or Markdown put together anywhere else.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import yaml

from dermdistill.errors import UserError

TEMPLATES = Path(__file__).parent / "templates"
Metrics = Mapping[str, Any]


class Cell(NamedTuple):
    value: str
    interval: str = ""
    prose: bool = False  # aligned to the left
    code: bool = False  # a name: in backticks where it is Markdown


class Table(NamedTuple):
    caption: str
    head: list[str]
    rows: list[list[Cell]]
    strong: str = ""  # first cell of the row that is emphasised


# Numbers ------------------------------------------------------------------------------------------


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def bounds(pair: Sequence[float | None] | None, digits: int = 3) -> str:
    return "" if pair is None or None in pair else f"{number(pair[0], digits)} to {number(pair[1], digits)}"


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def of_hundred(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f}"


def p_value(value: float | None) -> str:
    """A p value, without the false precision of a very small one."""
    return "< 0.001" if value is not None and value < 0.001 else number(value)


def millions(value: float, digits: int) -> str:
    return f"{value / 1e6:.{digits}f}"


def megas(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{millions(value, digits)} M"


def significant(value: float, digits: int) -> str:
    return f"{value:.{digits}g}"


def short(value: Any) -> str:
    """One value of a JSON file, as briefly as it can be shown."""
    if isinstance(value, list):
        text = ", ".join(map(short, value[:8]))
        return (text + (f", … ({len(value)} in all)" if len(value) > 8 else "")) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


FORMATS: dict[str, Callable[..., str]] = {
    one.__name__: one for one in (number, percent, p_value, millions, megas, significant)
}


# Tables -------------------------------------------------------------------------------------------


def lookup(metrics: Metrics, key: str) -> Any:
    """``lookup(m, "melanoma.roc_auc")``; a key that is not there is a UserError, a null stays None."""
    if key in metrics:
        return metrics[key]
    value: Any = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"metrics lack {key}; they were written by another version, run `dvc repro evaluate`")
        value = value[part]
    return value


def interval(metrics: Metrics, key: str) -> Sequence[float | None] | None:
    """The interval of a metric; none of an ECE: its percentile interval is biased upwards, see the report."""
    pair: Sequence[float | None] | None = None if key.endswith("ece") else metrics["intervals"].get(key)
    return pair


def estimate(value: float | None, pair: Sequence[float | None] | None, digits: int = 3) -> Cell:
    """A value with its interval."""
    return Cell(number(value, digits), bounds(pair, digits))


def cell(metrics: Metrics, key: str) -> Cell:
    """A metric and its interval."""
    return estimate(lookup(metrics, key), interval(metrics, key))


@cache
def descriptions() -> dict[str, dict[str, Any]]:
    """The content of ``tables.yaml``."""
    made: dict[str, dict[str, Any]] = yaml.safe_load((TEMPLATES / "tables.yaml").read_text(encoding="utf-8"))
    return made


def labels(of: str) -> dict[str, str]:
    """Key → how it is called in tables."""
    made: dict[str, str] = descriptions()["labels"][of]
    return made


def table(
    name: str, rows: Iterable[Metrics], more: Mapping[str, str] | None = None, strong: str = "", **values: Any
) -> Table:
    """The table ``name`` of ``tables.yaml`` with a line for each of ``rows``.

    Args:
        more: further columns, if they depend on the run.
        values: what its caption in ``words.j2`` needs.
    """
    rows = list(rows)
    columns = descriptions()[name] | dict(more or {})
    columns = {head: how for head, how in columns.items() if not how.endswith("?") or how[:-1] in rows[0]}
    lines = [[_shown(row, how.removesuffix("?")) for how in columns.values()] for row in rows]
    return Table(words(name, **values), list(columns), lines, strong)


def _shown(row: Metrics, how: str) -> Cell:
    """What a row shows in a column; :file:`tables.yaml` explains the notation."""
    for sign in (" → ", " / "):
        if sign in how:
            return Cell(sign.join(_shown(row, one).value for one in how.split(sign)))
    key, _, form = how.partition("|")
    if key.endswith(" ±"):
        first, _, rest = key.removesuffix(" ±").partition(".")
        return cell(row, f"{first}.{rest}") if "intervals" in row else cell(row[first], rest)
    value, (name, _, digits) = lookup(row, key), form.partition(" ")
    if isinstance(value, Cell):
        return value
    if name in FORMATS:
        return Cell(FORMATS[name](value, *([int(digits)] if digits else [])))
    text = number(value) if value is None or isinstance(value, float) else short(value)
    return Cell(text, prose=name == "prose", code=name == "code")


def named(rows: Mapping[str, Metrics], key: str = "model") -> list[dict[str, Any]]:
    """Rows with their name under ``key``."""
    return [{key: name, **row} for name, row in rows.items()]


# Templates ----------------------------------------------------------------------------------------


@cache
def environment(html: bool) -> jinja2.Environment:
    """Templates in which a missing name is an error; on the page every value is escaped."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    made = jinja2.Environment(
        loader=loader, autoescape=html, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {one.__name__: one for one in (number, bounds, percent, of_hundred)}
    made.globals |= {"words": words, "lookup": lookup, "cell": cell, "markdown": markdown}
    return made


def words(name: str, **values: Any) -> str:
    """The caption or sentence ``name`` of ``words.j2`` as plain text in one line."""
    text = getattr(environment(html=False).get_template("words.j2").module, name)(**values)
    return " ".join(str(text).split())


def markdown(table: Table) -> str:
    """A table as Markdown, its caption below; intervals stand in brackets, the emphasised row begins in bold."""
    lines = [table.head, ["---"] * len(table.head)]
    for first, *others in table.rows:
        name = f"**{_plain(first)}**" if table.strong and first.value == table.strong else _plain(first)
        lines.append([name, *map(_plain, others)])
    caption = ["", table.caption] if table.caption else []
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *caption])


def _plain(cell: Cell) -> str:
    value = f"`{cell.value}`" if cell.code and cell.value else cell.value
    text = f"{value} [{cell.interval.replace(' to ', ', ')}]" if cell.interval else value
    return text.replace("|", "\\|")


# Any JSON -----------------------------------------------------------------------------------------


def facts(title: str, content: Metrics) -> list[Table]:
    """Any JSON as small tables: nested counts become a grid, everything else a line of two columns."""
    flat = _flat(content)
    lines = [[Cell(key), Cell(short(one), prose=True)] for key, one in flat if not isinstance(one, Mapping)]
    grids = []
    for key, rows in flat:
        if isinstance(rows, Mapping):
            heads = list(dict.fromkeys(column for row in rows.values() for column in row))
            cells = [[Cell(str(key)), *(Cell(short(row.get(head))) for head in heads)] for key, row in rows.items()]
            grids.append(Table(key, ["", *map(str, heads)], cells))
    return ([Table(title, ["", ""], lines)] if lines else []) + grids


def _flat(content: Metrics, prefix: str = "") -> list[tuple[str, Any]]:
    """Scalars by dotted name; a mapping of mappings of scalars is left whole."""
    pairs: list[tuple[str, Any]] = []
    for key, one in content.items():
        label = f"{prefix}{key}".replace("_", " ")
        pairs += [(label, one)] if not isinstance(one, Mapping) or _is_grid(one) else _flat(one, f"{label}, ")
    return pairs


def _is_grid(content: Metrics) -> bool:
    rows = list(content.values())
    return bool(rows) and all(
        isinstance(row, Mapping) and row and not any(isinstance(item, Mapping | list) for item in row.values())
        for row in rows
    )

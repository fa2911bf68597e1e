"""The cells that every table of the report is made of, and how a number is written.

An undefined value is a dash, never a 0; a minus is a minus sign; an interval stands below its figure. Any JSON can be
shown as small tables too (:func:`facts`), for the stages whose numbers need no wording of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dermdistill.errors import UserError

Metrics = Mapping[str, Any]


class Cell(NamedTuple):
    value: str
    interval: str = ""
    prose: bool = False


class Table(NamedTuple):
    caption: str
    head: list[str]
    rows: list[list[Cell]]


def lookup(metrics: Metrics, key: str) -> Any:
    """``lookup(m, "melanoma.roc_auc")``; a key that is not there is a UserError, a null stays None."""
    value: Any = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise UserError(f"metrics lack {key}; they were written by another version, run `dvc repro evaluate`")
        value = value[part]
    return value


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def bounds(pair: Sequence[float] | None, digits: int = 3) -> str:
    return "" if pair is None or None in pair else f"{number(pair[0], digits)} to {number(pair[1], digits)}"


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def cell(metrics: Metrics, key: str, digits: int = 3) -> Cell:
    """The figure and its interval, except for ECE: its percentile interval is biased upwards, see the report."""
    pair = None if key.endswith("ece") else metrics["intervals"].get(key)
    return Cell(number(lookup(metrics, key), digits), bounds(pair, digits))


def p_value(value: float) -> str:
    """A p value, without the false precision of a very small one."""
    return "< 0.001" if value < 0.001 else number(value)


def facts(name: str, content: Metrics) -> list[Table]:
    """Any JSON as small tables: nested counts become a grid, everything else a line of two columns."""
    lines: list[list[Cell]] = []
    grids: list[Table] = []
    for key, value in _flat(content):
        if isinstance(value, Mapping):
            grids.append(_matrix(key, value))
        else:
            lines.append([Cell(key), Cell(short(value), prose=True)])
    return ([Table(name, ["", ""], lines)] if lines else []) + grids


def _flat(content: Metrics, prefix: str = "") -> list[tuple[str, Any]]:
    """Scalars by dotted name; a mapping of mappings of scalars is left whole."""
    found: list[tuple[str, Any]] = []
    for key, value in content.items():
        name = f"{prefix}{key}".replace("_", " ")
        if not isinstance(value, Mapping) or _is_grid(value):
            found.append((name, value))
        else:
            found += _flat(value, f"{name}, ")
    return found


def _is_grid(value: Metrics) -> bool:
    rows = list(value.values())
    return bool(rows) and all(
        isinstance(row, Mapping) and row and not any(isinstance(item, Mapping | list) for item in row.values())
        for row in rows
    )


def _matrix(name: str, value: Metrics) -> Table:
    columns = list(dict.fromkeys(column for row in value.values() for column in row))
    rows = [[Cell(str(key)), *(Cell(short(row.get(column))) for column in columns)] for key, row in value.items()]
    return Table(name, ["", *map(str, columns)], rows)


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

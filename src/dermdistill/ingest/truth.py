"""What a table says of each image's diagnosis, from all columns that say something: the one place for diagnoses.

Words (``dx``, ``diagnosis``), the ISIC archive's levels (``diagnosis_1`` to ``diagnosis_5``), marks (``MEL,NV,…``) and
melanoma or not (``melanoma``, ``target``) each say what an image may show; together they must leave something.
:func:`settle` then does with the rows outside our seven what was asked for.
"""

import re
import sys
from functools import cache
from typing import Any

import pandas as pd

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest import vocabulary
from dermdistill.ingest.vocabulary import ANYTHING, BENIGN, MALIGNANT, NO_MELANOMA, OTHER, REST

REFUSE, DROP = "refuse", "drop"
WAYS = (REFUSE, DROP, REST)  # with rows outside our seven
NO_MARK = "none or several"  # of a row's marks

Says = tuple[str, pd.Series, pd.Series]  # column(s); what each image may show; the word for it


def says(table: pd.DataFrame, mapping: dict[str, Any]) -> list[Says]:
    """Each column, or group of columns, of ``table`` (all text) that says something of the diagnosis.

    Args:
        mapping: the content of ``columns.yaml``.
    """
    names = {str(name): vocabulary.column(name) for name in table}
    theirs = mapping.get("columns", {})
    own = {str(word).strip().casefold(): frozenset((str(dx),)) for word, dx in mapping.get("dx", {}).items()}

    def meaning(word: str) -> frozenset[str]:
        return own.get(word.strip().casefold()) or vocabulary.may_be(word)

    found = [_marks(table, marks)] if (marks := mark_columns(table)) else []
    words = [theirs["dx"]] if "dx" in theirs else [n for d in vocabulary.DIAGNOSIS for n in names if names[n] == d]
    found += [(name, table[name].map(meaning), table[name].str.strip()) for name in words if name in table]
    if "dx" not in theirs and (levels := sorted(n for n in names if vocabulary.LEVEL.fullmatch(names[n]))):
        filled = [[level for level in row if vocabulary.filled(level)] for row in table[levels].to_numpy()]
        word = pd.Series([row[-1].strip() if row else "" for row in filled], index=table.index)
        found.append((f"{levels[0]} …", pd.Series([meaning(":".join(row)) for row in filled], index=table.index), word))
    binary = [theirs.get("melanoma"), *(n for n in names if names[n] in vocabulary.MELANOMA_OR_NOT and n not in marks)]
    found += [
        _yes_or_no(table, name, frozenset(("mel",)), NO_MELANOMA) for name in dict.fromkeys(binary) if name in table
    ]
    return found + _malignant(table, {name: plain for name, plain in names.items() if name not in binary})


def mark_columns(table: pd.DataFrame) -> dict[str, frozenset[str]]:
    """Columns of a one-hot truth table (``MEL``, ``NV``, ``AK``) → what a mark there may be; empty if it is none."""
    known = {str(name): vocabulary.may_be(str(name)) for name in table}
    marks = {name: meaning for name, meaning in known.items() if meaning != ANYTHING}
    classes = frozenset().union(*marks.values())
    return marks if {"mel", "nv"} <= classes else {}


def _marks(table: pd.DataFrame, meanings: dict[str, frozenset[str]]) -> Says:
    cells = table[list(meanings)].apply(lambda column: column.str.strip().str.lower())
    marked = cells.isin(("x", "true")) | (cells.apply(pd.to_numeric, errors="coerce") == 1)  # blanks are no marks
    single = marked.sum(axis=1) == 1
    name = marked.idxmax(axis=1).where(single, NO_MARK)
    return "the marks", name.map(lambda one: meanings.get(one, ANYTHING)), name


def _yes_or_no(table: pd.DataFrame, name: str, yes: frozenset[str], no: frozenset[str]) -> Says:
    value = table[name].str.strip().str.lower().str.removesuffix(".0")
    meaning = value.map(lambda one: yes if one in vocabulary.YES else no if one in vocabulary.NO - {""} else ANYTHING)
    return name, meaning, table[name].str.strip()


def _malignant(table: pd.DataFrame, names: dict[str, str]) -> list[Says]:
    """``benign_malignant`` and ``target``: of melanoma where the ids are ISIC 2020's, otherwise of any cancer."""
    melanoma = (frozenset(("mel",)), NO_MELANOMA) if "image_name" in names.values() else (MALIGNANT, BENIGN)
    return [_yes_or_no(table, name, *melanoma) for name in names if names[name] in vocabulary.MALIGNANT_OR_NOT]


def combine(image_id: pd.Series, said: list[Says], source: str) -> pd.DataFrame:
    """``dx`` and ``may_be`` of each image: a class, REST, or the word of what is outside our seven.

    ``dx`` is REST if melanoma or not is all that is said of any image.

    Raises:
        UserError: two columns contradict each other, with their names and the first image; or malignant or not is all
            that is said, which need not be melanoma or not.
    """
    meanings = [meaning for _, meaning, _ in said]
    both = pd.Series([ANYTHING.intersection(*row) for row in zip(*meanings, strict=True)], image_id.index, dtype=object)
    if len(both) and both.isin((MALIGNANT, BENIGN)).all():
        raise UserError(
            f"{source} says in {said[0][0]} malignant or not, which need not be melanoma or not; if it is, write "
            f"`columns: {{melanoma: {said[0][0]}}}` into columns.yaml beside the table"
        )
    if (empty := both[both.map(len) == 0]).size:
        row = empty.index[0]
        words = ", ".join(f"{name} {word[row]!r}" for name, meaning, word in said if meaning[row] != ANYTHING)
        raise UserError(
            f"{source} contradicts itself in {len(empty)} rows, first {image_id[row]} ({words}); correct it"
        )
    word = said[0][2]
    for _, _, other in said[1:]:
        word = word.where(word != "", other)
    single = both.map(lambda meaning: next(iter(meaning)) if len(meaning) == 1 else OTHER)
    dx = single.where(single.isin(CLASSES), word)
    rest = both.isin((NO_MELANOMA, BENIGN))
    if rest.any() and (rest | (dx == "mel")).all():
        dx = dx.where(dx == "mel", REST)
    return pd.DataFrame({"dx": dx, "may_be": both})


def settle(table: pd.DataFrame, way: str, source: str) -> pd.DataFrame:
    """``table`` without the column ``may_be``, and with what was asked for done to the rows outside our seven.

    REFUSE leaves all rows, so that :mod:`dermdistill.ingest.schema` refuses those outside our seven; DROP leaves them
    out; REST makes those that are surely no melanoma ``rest``, and leaves out those that may be one, such as
    "indeterminate". A word that is not known is never counted as rest. Prints a note that names what is left out.
    """
    outside = ~table["dx"].isin((*CLASSES, REST))
    leave = outside & (way == DROP)
    if way == REST:
        rest = outside & ~table["may_be"].map(lambda meaning: "mel" in meaning)
        _note(table["dx"][rest], source, "count as no melanoma")
        leave = outside & ~rest & table["may_be"].map(lambda meaning: meaning != ANYTHING)
        table = table.assign(dx=table["dx"].mask(rest, REST))
    _note(table["dx"][leave], source, "are left out")
    return table[~leave].drop(columns="may_be")


def _note(words: pd.Series, source: str, what: str) -> None:
    if len(words):
        print(f"note: {len(words):,} rows of {source} {what}: {counts(words)}", file=sys.stderr)


def counts(words: pd.Series, most: int = 10) -> str:
    """``628 × 'SCC', 12 × 'AIMP'``: the most frequent first."""
    numbers = words.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    named = [f"{count:,} × {repr(word) if word else 'no diagnosis'}" for word, count in numbers.items()]
    return ", ".join(named[:most]) + (f" and {len(named) - most} more" if len(named) > most else "")


@cache
def site(levels: tuple[str, ...]) -> str:
    """The deepest of the archive's levels of a body site that HAM10000 has a word for, otherwise the first."""
    named = [re.sub(" +", " ", level.strip().lower()) for level in levels if vocabulary.filled(level)]
    return next((one for one in reversed(named) if one in vocabulary.SITES), named[0] if named else "")

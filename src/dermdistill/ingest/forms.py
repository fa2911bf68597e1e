"""Recognises the form in which a data set is stored from the files themselves, so that nothing has to be configured.

=============  ===================================================================================
HAM10000       ``HAM10000_metadata`` with any or no suffix, comma or tab, and zips or folders
challenge      a one-hot truth table (``image,MEL,NV,…``), with or without the lesion grouping table
DermaMNIST     one ``.npz`` of MedMNIST: HAM10000 again, without ids of lesions
mapped         any other folder with one table whose columns have other known names
=============  ===================================================================================

A mapped table is recognised by the column names and diagnoses of :mod:`dermdistill.ingest.vocabulary`; ``columns.yaml``
beside it adds others (``columns: {image_id: File}``, ``dx: {"blue nevus": nv}``). Every form becomes a table with the
columns of HAM10000, all text; :mod:`dermdistill.ingest.schema` validates it. Without lesion ids each image counts as a
lesion of its own, and the reports say that leakage cannot be excluded.

Deliberately absent: guessing a diagnosis from a folder's name.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest import dermamnist
from dermdistill.ingest.archives import IMAGES, File, Reader, images_among, walk
from dermdistill.ingest.vocabulary import COLUMNS, CONFIRMATIONS, DIAGNOSES, SEXES, SYNONYMS, UNKNOWN

Table = tuple[File, pd.DataFrame]  # a file and its content

HAM, MAPPING = "HAM10000_metadata", "columns.yaml"
TABLES = (".csv", ".tsv", ".tab")
ABSENT = (
    "{folder} holds no HAM10000: run `make data SOURCE=DIR` to bring in a local copy, `make data` to download the "
    "originals, `dvc checkout data/raw` if this machine had them before, or `make demo` for the embedded data set"
)


@dataclass(frozen=True)
class Dataset:
    """A recognised data set. ``table`` holds :data:`COLUMNS` as text, not yet validated."""

    form: str  # HAM10000 | challenge | DermaMNIST | mapped
    table: pd.DataFrame
    source: str  # where the table lies, for messages
    images: dict[str, Reader]  # by image id in lower case
    lesions_known: bool


def detect(folder: str | Path) -> Dataset:
    """Recognise the data set in ``folder``.

    Raises:
        UserError: the folder holds no data set, or several.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(ABSENT.format(folder=folder))
    files = list(walk(folder))
    arrays = [file for file in files if file.name.lower().endswith(".npz")]
    if arrays:
        return _dermamnist(_only(arrays, "data sets", folder))
    return from_tables(_tables(files), str(folder), images_among(files), _mapping(folder / MAPPING))


def from_tables(tables: list[Table], where: str, images: dict[str, Reader], mapping: dict[str, Any]) -> Dataset:
    """The data set that ``tables`` describe, in the first form that fits: HAM10000, challenge, mapped.

    Raises:
        UserError: no form fits, two tables fit one form, or a HAM10000 table lacks a column.
    """
    ham = [pair for pair in tables if pair[0].name.startswith(HAM)]
    truths = [pair for pair in tables if is_one_hot(pair[1])]
    mapped = [pair for pair in tables if {"image_id", "dx"} <= set(renamed(pair[1], mapping))]
    if ham:
        table, source = _one(ham, where)
        return Dataset("HAM10000", ham_table(table, source), source, images, True)
    if truths:
        table, source = _one(truths, where)
        groupings = [pair for pair in tables if {"image", "lesion_id"} <= set(pair[1])]
        grouping = _one(groupings, where)[0] if groupings else None
        lesions_known = grouping is not None or "lesion_id" in renamed(table, {})
        return Dataset("challenge", challenge_table(table, grouping, source), source, images, lesions_known)
    if mapped:
        table, source = _one(mapped, where)
        return Dataset("mapped", mapped_table(table, mapping), source, images, "lesion_id" in renamed(table, mapping))
    raise UserError(_no_form(tables, where))


def read_labels(path: str | Path) -> pd.DataFrame:
    """One table of labels, in any of the forms, with the columns of HAM10000; not yet validated.

    Raises:
        UserError: the file is missing, or has no image ids and diagnoses.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"labels {path} do not exist; give a CSV table")
    file = File(path.name, str(path), path.read_bytes)
    return from_tables([(file, parse_table(file))], f"labels {path}", {}, _mapping(path.parent / MAPPING)).table


def ham_table(table: pd.DataFrame, source: str) -> pd.DataFrame:
    """HAM10000's own table without further columns.

    Raises:
        UserError: a column is missing.
    """
    absent = [name for name in COLUMNS if name not in table.columns]
    if absent:
        raise UserError(f"{source} lacks the column(s) {', '.join(absent)}; it has {', '.join(table.columns)}")
    return table[COLUMNS].assign(dx=table["dx"].str.lower())


def challenge_table(truth: pd.DataFrame, grouping: pd.DataFrame | None, source: str) -> pd.DataFrame:
    """A one-hot truth table, with lesion ids and kinds of confirmation if there is a grouping table, as HAM10000's.

    Raises:
        UserError: the grouping lists an image more than once.
    """
    marks = truth[[name.upper() for name in CLASSES]].apply(pd.to_numeric, errors="coerce")
    marked = marks == 1  # blanks are no marks
    single = marked.sum(axis=1) == 1
    dx = pd.Series(marked.to_numpy().argmax(axis=1), index=marks.index).map(dict(enumerate(CLASSES)))
    table = renamed(truth, {}).assign(image_id=truth["image"], dx=dx.where(single, "none or several"))
    if grouping is None:
        return _complete(table)
    grouping = grouping.rename(columns={"image": "image_id", "diagnosis_confirm_type": "dx_type"})
    if grouping["image_id"].duplicated().any():
        raise UserError(f"{source}: the lesion grouping beside it lists images more than once; keep one row each")
    added = [name for name in ("lesion_id", "dx_type") if name in grouping]
    table = table.drop(columns=added, errors="ignore")
    merged = table.merge(grouping[["image_id", *added]], on="image_id", how="left")
    return _complete(merged.fillna({"lesion_id": ""}))


def mapped_table(table: pd.DataFrame, mapping: dict[str, Any]) -> pd.DataFrame:
    """A table with other column names and words as HAM10000's.

    Raises:
        UserError: ``columns.yaml`` names a column that the table lacks.
    """
    if absent := [name for name in mapping.get("columns", {}).values() if name not in table]:
        raise UserError(f"{MAPPING} names the column(s) {', '.join(absent)}, which the table lacks; correct it")
    table = renamed(table, mapping)
    words = DIAGNOSES | {str(key).lower(): str(value) for key, value in mapping.get("dx", {}).items()}
    dx = table["dx"].str.strip().str.lower()
    image = table["image_id"].str.strip().map(lambda name: Path(name).stem if name.lower().endswith(IMAGES) else name)
    table = _complete(table.assign(dx=dx.map(lambda word: words.get(word, word)), image_id=image))
    sex = table["sex"].str.strip().str.lower()
    return table.assign(sex=sex.map(lambda word: SEXES.get(word, word)))


def renamed(table: pd.DataFrame, mapping: dict[str, Any]) -> pd.DataFrame:
    """The recognised columns, under HAM10000's names."""
    plain = {re.sub(r"\W+", "_", str(name).strip().lower()): name for name in reversed(table.columns)}
    theirs = {ours: next((plain[name] for name in names if name in plain), None) for ours, names in SYNONYMS.items()}
    theirs |= {ours: name for ours, name in mapping.get("columns", {}).items() if name in table}
    return pd.DataFrame({ours: table[name] for ours, name in theirs.items() if name is not None})


def is_one_hot(table: pd.DataFrame) -> bool:
    """Whether the table has the columns ``image, MEL, NV, …`` of the challenge."""
    return {"image", *map(str.upper, CLASSES)} <= set(table)


def parse_table(file: File) -> pd.DataFrame:
    """Any table, every column as text: comma, semicolon or tab, with or without BOM, quotes, CRLF.

    Raises:
        UserError: the file is no UTF-8 table.
    """
    try:
        text = file.read().decode("utf-8-sig")
        header = text.partition("\n")[0]
        separator = max(",\t;", key=header.count)
        return pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False, quoting=csv.QUOTE_MINIMAL
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{file.where} is no readable table ({' '.join(str(error).split())}); replace it") from None


def _complete(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with all of COLUMNS, ``patient_id`` if it has that. Without lesion_id each image is its own lesion."""
    absent = {name: value for name, value in UNKNOWN.items() if name not in table}
    lesion = table["lesion_id"] if "lesion_id" in table else table["image_id"]
    patient = ["patient_id"] if "patient_id" in table else []
    table = table.assign(lesion_id=lesion, **absent)[[*COLUMNS, *patient]].fillna("")
    return table.assign(dx_type=table["dx_type"].map(lambda words: CONFIRMATIONS.get(words, words)))


def _tables(files: list[File]) -> list[Table]:
    """The tables named after HAM10000; if there are none, all tables."""
    ham = [file for file in files if file.name.startswith(HAM) and Path(file.name).suffix in ("", ".txt", *TABLES)]
    others = [file for file in files if file.name.lower().endswith(TABLES) and not file.name.startswith(".")]
    return [(file, parse_table(file)) for file in ham or others]


def _one(pairs: list[Table], where: str) -> tuple[pd.DataFrame, str]:
    file = _only([file for file, _ in pairs], "metadata tables", where)
    return next(table for other, table in pairs if other is file), file.where


def _only(files: list[File], what: str, where: object) -> File:
    if len(files) > 1:
        raise UserError(f"{where} holds several {what} ({', '.join(f.name for f in files)}); keep one")
    return files[0]


def _no_form(tables: list[Table], where: str) -> str:
    """The message that ``tables`` fit no form."""
    if not tables:
        return ABSENT.format(folder=where)
    columns = "; ".join(f"{file.where}: {', '.join(table.columns)}" for file, table in tables[:3])
    return (
        f"{where} has no table with an image id and a diagnosis ({columns}); name its columns in {MAPPING}, "
        "such as `columns: {image_id: File, dx: Label}`"
    )


def _mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    wrong = not isinstance(content, dict) or not all(isinstance(block, dict) for block in content.values())
    if wrong or set(content) - {"columns", "dx"} or set(content.get("columns", {})) - set(COLUMNS):
        raise UserError(f"{path} may hold `columns:` (of {', '.join(COLUMNS)}) and `dx:` (their word: ours) only")
    return content


def _dermamnist(file: File) -> Dataset:
    table, images = dermamnist.read(Path(file.where))
    return Dataset("DermaMNIST", _complete(table), file.where, images, False)

"""Recognises the form in which a data set is stored from the files themselves, so that nothing has to be configured.

=============  ===================================================================================
HAM10000       ``HAM10000_metadata`` with any or no suffix, and zips or folders
challenge      a one-hot truth table (``image,MEL,NV,…``), with or without tables of lesions and patients
DermaMNIST     one ``.npz`` of MedMNIST: HAM10000 again, without ids of lesions
mapped         any other folder with one table whose columns have known names
=============  ===================================================================================

A table is recognised by the column names of :mod:`dermdistill.ingest.vocabulary`; ``columns.yaml`` beside it adds
others (``columns: {image_id: File}``), words (``dx: {"blue nevus": nv}``) and what becomes of rows outside our seven
(``other: drop``). Every form becomes a table with the columns of HAM10000, all text, read by the same rules;
:mod:`dermdistill.ingest.schema` validates it. Without lesion ids each image counts as a lesion of its own, and the
reports say that leakage cannot be excluded.

Deliberately absent: guessing a diagnosis from a folder's name.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dermdistill.core.classes import CLASSES
from dermdistill.errors import UserError
from dermdistill.ingest import dermamnist, tables, truth, vocabulary
from dermdistill.ingest.archives import File, Reader, image_id, images_among, walk
from dermdistill.ingest.vocabulary import COLUMNS, CONFIRMATIONS, SEXES, SYNONYMS, UNKNOWN

Table = tuple[File, pd.DataFrame]  # a file and its content

UNREAD = (".xlsx", ".xls", ".ods", ".parquet", ".json", ".jsonl")  # other ways to keep a table
HAM, MAPPING = "HAM10000_metadata", "columns.yaml"
ABSENT = (
    "{folder} holds no HAM10000: run `make data SOURCE=DIR` to bring in a local copy, `make data` to download the "
    "originals, `dvc checkout data/raw` if this machine had them before, or `make demo` for the embedded data set"
)


@dataclass(frozen=True)
class Dataset:
    """A recognised data set. ``table`` holds :data:`COLUMNS` and perhaps ``patient_id`` as text, not yet validated."""

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
    found = _tables(files)
    unread = [file.where for file in files if file.name.lower().endswith(UNREAD)]
    if unread and not found:
        raise UserError(f"{unread[0]} is no table that can be read here; save it as CSV in UTF-8 beside it")
    return from_tables(found, str(folder), images_among(files), read_mapping(folder))


def from_tables(found: list[Table], where: str, images: dict[str, Reader], mapping: dict[str, Any]) -> Dataset:
    """The data set that the tables describe, in the first form that fits: HAM10000, challenge, mapped.

    Raises:
        UserError: no form fits, two tables fit one form, a HAM10000 table lacks a column, or columns contradict.
    """
    ham = [pair for pair in found if pair[0].name.startswith(HAM)]
    labelled = [pair for pair in found if _is_labelled(pair[1], mapping)]
    one_hot = [pair for pair in labelled if truth.mark_columns(pair[1])]
    if not (ham or labelled):
        raise UserError(_no_form(found, where, mapping))
    table, source = _one(ham or one_hot or labelled, where)
    if ham and (absent := [name for name in COLUMNS if name not in recognised(table, mapping)]):
        raise UserError(f"{source} lacks the column(s) {', '.join(absent)}; it has {', '.join(table.columns)}")
    beside = [pair for pair in found if not ham and not any(pair is one for one in labelled)]
    form = "HAM10000" if ham else "challenge" if one_hot else "mapped"
    unified, lesions_known = unify(table, beside, source, mapping)
    settled = truth.settle(unified, mapping.get("other", truth.REFUSE), source)
    return Dataset(form, settled, source, images, lesions_known)


def read_labels(path: str | Path, other: str = truth.REFUSE) -> pd.DataFrame:
    """One table of labels, in any of the forms, with the columns of HAM10000; not yet validated.

    Args:
        other: what becomes of rows outside our seven, one of ``truth.WAYS``; ``columns.yaml`` may say so too.

    Raises:
        UserError: the file is missing, or has no image ids and diagnoses.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"labels {path} do not exist; give a CSV table")
    file = File(path.name, str(path), path.read_bytes)
    mapping = read_mapping(path.parent)
    if other != truth.REFUSE:
        mapping = mapping | {"other": other}
    return from_tables([(file, tables.parse(file))], f"labels {path}", {}, mapping).table


def read_split(path: str | Path, data: pd.DataFrame) -> pd.DataFrame:
    """Somebody's own split: ``part``, and ``image_id`` as ``data`` (image_id, lesion_id) writes it, or ``lesion_id``.

    Raises:
        UserError: there is no such table, or it lacks a column; ``columns.yaml`` beside it may name others.
    """
    mapping = read_mapping(Path(path).parent)
    table = tables.read(path)
    rows = renamed(table, mapping).map(str.strip)  # no blanks: an id may well be NA
    key = next((name for name in ("image_id", "lesion_id") if name in rows), "")
    if "part" not in rows or not key:
        raise UserError(
            f"{path} needs the columns part and lesion_id or image_id, and has {', '.join(map(str, table))}; name them "
            f"in {MAPPING} beside it, such as `columns: {{part: Subset}}`"
        )
    ours = {name.casefold(): name for name in data[key]}
    ids = rows[key].map(image_id) if key == "image_id" else rows[key]
    return pd.DataFrame(
        {key: ids.map(lambda name: ours.get(name.casefold(), name)), "part": rows["part"].map(vocabulary.part)}
    )


def unify(table: pd.DataFrame, beside: list[Table], source: str, mapping: dict[str, Any]) -> tuple[pd.DataFrame, bool]:
    """``table`` with the COLUMNS of HAM10000, ``patient_id`` if it has some, and ``may_be``.

    The second result is whether every lesion id is known.

    Args:
        table: as read.
        beside: further tables of the same images, such as the lesion grouping of the challenge.

    Raises:
        UserError: ``columns.yaml`` names a column that the table lacks, or two columns or tables contradict each other.
    """
    if absent := [name for name in mapping.get("columns", {}).values() if name not in table]:
        raise UserError(f"{MAPPING} names the column(s) {', '.join(absent)}, which the table lacks; correct it")
    ours = _clean(renamed(table, mapping))
    for file, other in beside:
        ours = _join(ours, file, _clean(renamed(other, {})), source)
    lesion = ours["lesion_id"]
    diagnoses = truth.combine(ours["image_id"], truth.says(table, mapping), source)
    filled = {name: ours[name].replace("", value) for name, value in UNKNOWN.items()}
    ours = ours.assign(lesion_id=lesion.where(lesion != "", ours["image_id"]), dx=diagnoses["dx"], **filled)
    patient = ["patient_id"] if (ours["patient_id"] != "").any() else []
    return ours[[*COLUMNS, *patient]].assign(may_be=diagnoses["may_be"]), bool((lesion != "").all())


def renamed(table: pd.DataFrame, mapping: dict[str, Any]) -> pd.DataFrame:
    """The recognised columns but those of the diagnosis, under HAM10000's names."""
    plain = {vocabulary.column(name): name for name in reversed(table.columns)}
    theirs = {ours: next((plain[name] for name in names if name in plain), None) for ours, names in SYNONYMS.items()}
    theirs |= {ours: name for ours, name in mapping.get("columns", {}).items() if name in table and ours in SYNONYMS}
    result = pd.DataFrame({ours: table[name] for ours, name in theirs.items() if name is not None}, table.index)
    levels = sorted(str(name) for name in table if vocabulary.SITE_LEVEL.fullmatch(vocabulary.column(name)))
    if levels and "localization" not in result:
        result["localization"] = [truth.site(tuple(row)) for row in table[levels].to_numpy()]
    return result


def _clean(table: pd.DataFrame) -> pd.DataFrame:
    """All recognised columns, each cell as HAM10000 writes it; empty where it is unknown or absent."""
    table = table.reindex(columns=[name for name in (*COLUMNS, "patient_id") if name != "dx"], fill_value="")
    table = table.apply(lambda column: column.map(vocabulary.filled))
    lower = {name: table[name].str.lower() for name in ("dx_type", "sex", "localization")}
    return table.assign(
        image_id=table["image_id"].map(image_id),
        age=table["age"].map(vocabulary.age),
        dx_type=lower["dx_type"].map(lambda word: CONFIRMATIONS.get(word, word)),
        sex=lower["sex"].map(lambda word: SEXES.get(word, word)),
        localization=lower["localization"],
    )


def _join(table: pd.DataFrame, file: File, other: pd.DataFrame, source: str) -> pd.DataFrame:
    """``table`` with what ``other`` knows of its images and it does not."""
    key, keys = table["image_id"].str.casefold(), other["image_id"].str.casefold()
    if keys[keys.isin(key)].duplicated().any():
        raise UserError(f"{file.where} beside {source} lists images more than once; keep one row each")
    theirs = other.set_axis(keys).loc[lambda rows: ~rows.index.duplicated()].reindex(key).fillna("")
    theirs.index = table.index
    differ = (table != theirs) & (table != "") & (theirs != "")
    for name in table.columns.drop("image_id"):
        if differ[name].any():
            row = int(differ[name].to_numpy().argmax())
            image, ours, said = (column.iloc[row] for column in (table["image_id"], table[name], theirs[name]))
            raise UserError(f"{source} and {file.where} contradict each other: {name} of {image} is {ours} or {said}")
    return table.where(table != "", theirs)


def _is_labelled(table: pd.DataFrame, mapping: dict[str, Any]) -> bool:
    return {"image_id", "dx"} <= recognised(table, mapping)


def recognised(table: pd.DataFrame, mapping: dict[str, Any]) -> set[str]:
    """The columns of HAM10000 that the table has under some name; ``dx`` if any column tells of the diagnosis."""
    head = table.head(0)
    return {*renamed(head, mapping), *(["dx"] if truth.says(head, mapping) else [])}


def _tables(files: list[File]) -> list[Table]:
    """The tables named after HAM10000 or PH2; if there are none, all tables."""
    texts = ("", ".txt", *tables.SUFFIXES)
    named = [file for file in files if file.name.startswith((HAM, tables.PH2)) and Path(file.name).suffix in texts]
    others = [f for f in files if f.name.lower().endswith(tables.SUFFIXES) and not f.name.startswith(".")]
    return [(file, tables.parse(file)) for file in named or others]


def _one(pairs: list[Table], where: str) -> tuple[pd.DataFrame, str]:
    file = _only([file for file, _ in pairs], "metadata tables", where)
    return next(table for other, table in pairs if other is file), file.where


def _only(files: list[File], what: str, where: object) -> File:
    if len(files) > 1:
        raise UserError(f"{where} holds several {what} ({', '.join(f.name for f in files)}); keep one")
    return files[0]


def _no_form(found: list[Table], where: str, mapping: dict[str, Any]) -> str:
    """The message that the tables fit no form."""
    if not found:
        return ABSENT.format(folder=where)
    theirs = mapping.get("columns", {}).values()
    if absent := [name for name in theirs if not any(name in table for _, table in found)]:
        return f"{MAPPING} names the column(s) {', '.join(absent)}, which {where} lacks; correct it"
    columns = "; ".join(f"{file.where}: {', '.join(map(str, table.columns))}" for file, table in found[:3])
    return (
        f"{where} has no table with an image id and a diagnosis ({columns}); name its columns in {MAPPING}, "
        "such as `columns: {image_id: File, dx: Label}`"
    )


def read_mapping(folder: Path) -> dict[str, Any]:
    """The content of ``columns.yaml`` in ``folder``; empty if there is none.

    Raises:
        UserError: it holds something else than columns, words and ``other``.
    """
    path = folder / MAPPING
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or set(content) - {"columns", "dx", "other"}:
        raise UserError(f"{path} may hold `columns:` (ours: theirs), `dx:` (their word: ours) and `other: drop` only")
    columns, words, other = (content.get(key) or {} for key in ("columns", "dx", "other"))
    _check_pairs(columns, f"{path}: columns", "ours: theirs", (*COLUMNS, "melanoma", "part"))
    swapped = {ours: word for word, ours in words.items()} if _is_plain(words) else words
    _check_pairs(swapped, f"{path}: dx", "their word: ours", (*CLASSES, vocabulary.OTHER))
    if other not in ({}, truth.DROP):
        raise UserError(f"{path} says `other: {other}`, but only `other: {truth.DROP}` is known; correct it")
    mapping = {"columns": {ours: str(theirs) for ours, theirs in columns.items()}, "dx": words}
    return mapping | ({"other": other} if other else {})


def _is_plain(block: Any) -> bool:
    """Whether ``block`` maps plain values to plain values."""
    return isinstance(block, dict) and not any(isinstance(one, list | dict | None) for one in (*block, *block.values()))


def _check_pairs(block: Any, where: str, shape: str, ours: tuple[str, ...]) -> None:
    """Raise UserError unless ``block`` maps names of ``ours`` to plain values."""
    if not _is_plain(block):
        raise UserError(f"{where} must have one `{shape}` a line, each a plain word, not {block}; correct it")
    if wrong := [str(name) for name in block if name not in ours]:
        raise UserError(f"{where} knows no {', '.join(wrong)}, only {', '.join(ours)} (`{shape}`); correct it")


def _dermamnist(file: File) -> Dataset:
    table, images = dermamnist.read(Path(file.where))
    table = table.assign(lesion_id=table["image_id"], **UNKNOWN)[COLUMNS]
    return Dataset("DermaMNIST", table, file.where, images, False)

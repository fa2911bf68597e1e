"""In which form are the raw data? Found out from the files themselves, so that nothing has to be configured.

=============  ===================================================================================
HAM10000       ``HAM10000_metadata`` with any or no suffix, comma or tab, and zips or folders
challenge      a one-hot truth table (``image,MEL,NV,…``), with or without the lesion grouping table
DermaMNIST     one ``.npz`` of MedMNIST: HAM10000 again, without ids of lesions
mapped         any other folder with one table whose columns are known by another name
=============  ===================================================================================

Columns and diagnoses of a mapped table are recognised by the names below; ``columns.yaml`` beside it adds
others (``columns: {image_id: File}``, ``dx: {"blue nevus": nv}``). Every form becomes the table of HAM10000,
as text; :mod:`dermdistill.ingest.schema` checks it. Without ids of lesions each image is taken for a lesion of
its own, and the reports say that leakage cannot be excluded.

Deliberately absent: guessing of a diagnosis from a folder's name.
"""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from dermdistill.core.classes import CLASSES, NAMES
from dermdistill.errors import UserError
from dermdistill.ingest import dermamnist
from dermdistill.ingest.archives import IMAGES, File, Reader, images_among, walk

COLUMNS = ["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"]
HAM, MAPPING = "HAM10000_metadata", "columns.yaml"
TABLES = (".csv", ".tsv", ".tab")
ABSENT = (
    "{folder} holds no HAM10000: run `make data SOURCE=DIR` to bring in a local copy, `make data` to download the "
    "originals, `dvc checkout data/raw` if this machine had them before, or `make demo` for the embedded data set"
)
UNKNOWN = {"dx_type": "", "age": "", "sex": "unknown", "localization": "unknown"}  # as HAM10000 writes it

# Names that public collections use, in lower case, anything but letters and digits as "_".
SYNONYMS = {
    "image_id": ("image_id", "image", "isic_id", "img_id", "image_name", "filename", "file_name", "file"),
    "lesion_id": ("lesion_id", "lesion"),
    "dx": ("dx", "diagnosis", "diagnostic", "label", "class", "target"),
    "dx_type": ("dx_type", "diagnosis_confirm_type", "confirmation"),
    "age": ("age", "age_approx", "patient_age"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "location", "anatom_site_general", "site", "body_site", "region"),
}
DIAGNOSES = {name.lower(): dx for dx, name in NAMES.items()} | {
    "nevus": "nv", "nev": "nv", "melanocytic nevi": "nv",
    "benign keratosis-like lesions": "bkl", "seborrheic keratosis": "bkl", "sek": "bkl", "solar lentigo": "bkl",
    "lichenoid keratosis": "bkl", "actinic keratosis": "akiec", "ack": "akiec", "ak": "akiec",
    "bowen's disease": "akiec", "basal cell carcinoma": "bcc", "vascular lesions": "vasc",
}  # fmt: skip
SEXES = {"m": "male", "f": "female", "": "unknown"}
CONFIRMED = {  # the challenge's words → HAM10000's
    "histopathology": "histo",
    "serial imaging showing no change": "follow_up",
    "single image expert consensus": "consensus",
    "confocal microscopy with consensus dermoscopy": "confocal",
}


@dataclass(frozen=True)
class Found:
    """``table`` holds :data:`COLUMNS` as text, unchecked; ``images`` are by image id in lower case."""

    form: str
    table: pd.DataFrame
    source: str  # where the table lies, for messages
    images: dict[str, Reader]
    lesions_known: bool


def detect(folder: str | Path) -> Found:
    """Recognise the data in ``folder``.

    Raises:
        UserError: if there are none, or they could be taken for several things.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(ABSENT.format(folder=folder))
    files = list(walk(folder))
    arrays = [file for file in files if file.name.lower().endswith(".npz")]
    if arrays:
        return _dermamnist(_only(arrays, "data sets", folder))
    return from_tables(_tables(files), str(folder), images_among(files), _mapping(folder / MAPPING))


def from_tables(
    tables: list[tuple[File, pd.DataFrame]], where: str, images: dict[str, Reader], mapping: dict[str, Any]
) -> Found:
    """The first of the forms HAM10000, challenge, mapped that ``tables`` are in."""
    ham = [pair for pair in tables if pair[0].name.startswith(HAM)]
    truths = [pair for pair in tables if is_one_hot(pair[1])]
    mapped = [pair for pair in tables if {"image_id", "dx"} <= set(renamed(pair[1], mapping))]
    if ham:
        table, source = _one(ham, where)
        absent = [name for name in COLUMNS if name not in table.columns]
        if absent:
            raise UserError(f"{source} lacks the column(s) {', '.join(absent)}; it has {', '.join(table.columns)}")
        return Found("HAM10000", table[COLUMNS].assign(dx=table["dx"].str.lower()), source, images, True)
    if truths:
        table, source = _one(truths, where)
        groups = [pair for pair in tables if {"image", "lesion_id"} <= set(pair[1])]
        group = _one(groups, where)[0] if groups else None
        known = group is not None or "lesion_id" in renamed(table, {})
        return Found("challenge", challenge(table, group, source), source, images, known)
    if mapped:
        table, source = _one(mapped, where)
        known = "lesion_id" in renamed(table, mapping)
        return Found("mapped", mapped_table(table, mapping), source, images, known)
    if not tables:
        raise UserError(ABSENT.format(folder=where))
    seen = "; ".join(f"{file.where}: {', '.join(table.columns)}" for file, table in tables[:3])
    raise UserError(
        f"{where} has no table with an image id and a diagnosis ({seen}); name its columns in {MAPPING}, "
        "such as `columns: {image_id: File, dx: Label}`"
    )


def labels(path: str | Path) -> pd.DataFrame:
    """One table of labels, in any of the forms, as HAM10000's; unchecked.

    Raises:
        UserError: if the file is missing or has no image ids and diagnoses.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"labels {path} do not exist; give a CSV table")
    file = File(path.name, str(path), path.read_bytes)
    return from_tables([(file, read_table(file))], f"labels {path}", {}, _mapping(path.parent / MAPPING)).table


def challenge(truth: pd.DataFrame, groups: pd.DataFrame | None, source: str) -> pd.DataFrame:
    """One-hot truth and, if there, lesion ids and ways of confirmation, as HAM10000's table."""
    marks = truth[[name.upper() for name in CLASSES]].apply(pd.to_numeric, errors="coerce")
    marked = marks == 1  # blanks are no marks
    single = marked.sum(axis=1) == 1
    dx = pd.Series(marked.to_numpy().argmax(axis=1), index=marks.index).map(dict(enumerate(CLASSES)))
    table = renamed(truth, {}).assign(image_id=truth["image"], dx=dx.where(single, "none or several"))
    if groups is None:
        return _complete(table)
    groups = groups.rename(columns={"image": "image_id", "diagnosis_confirm_type": "dx_type"})
    if groups["image_id"].duplicated().any():
        raise UserError(f"{source}: the lesion grouping beside it lists images more than once; keep one row each")
    kept = [name for name in ("lesion_id", "dx_type") if name in groups]
    merged = table.drop(columns=kept, errors="ignore").merge(groups[["image_id", *kept]], on="image_id", how="left")
    return _complete(merged.fillna({"lesion_id": ""}))


def mapped_table(table: pd.DataFrame, mapping: dict[str, Any]) -> pd.DataFrame:
    """A table with other column names and words as HAM10000's."""
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
    """The columns that are recognised, under HAM10000's names."""
    plain = {re.sub(r"\W+", "_", str(name).strip().lower()): name for name in reversed(table.columns)}
    found = {ours: next((plain[name] for name in names if name in plain), None) for ours, names in SYNONYMS.items()}
    found |= {ours: theirs for ours, theirs in mapping.get("columns", {}).items() if theirs in table}
    return pd.DataFrame({ours: table[theirs] for ours, theirs in found.items() if theirs is not None})


def is_one_hot(table: pd.DataFrame) -> bool:
    return {"image", *map(str.upper, CLASSES)} <= set(table)


def read_table(file: File) -> pd.DataFrame:
    """Any table as text: comma, semicolon or tab, with or without BOM, quotes, CRLF."""
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
    """All of COLUMNS; without lesion_id each image is its own lesion."""
    absent = {name: value for name, value in UNKNOWN.items() if name not in table}
    lesion = table["lesion_id"] if "lesion_id" in table else table["image_id"]
    table = table.assign(lesion_id=lesion, **absent)[COLUMNS].fillna("")
    return table.assign(dx_type=table["dx_type"].map(lambda words: CONFIRMED.get(words, words)))


def _tables(files: list[File]) -> list[tuple[File, pd.DataFrame]]:
    ham = [file for file in files if file.name.startswith(HAM) and Path(file.name).suffix in ("", ".txt", *TABLES)]
    others = [file for file in files if file.name.lower().endswith(TABLES) and not file.name.startswith(".")]
    return [(file, read_table(file)) for file in ham or others]


def _one(pairs: list[tuple[File, pd.DataFrame]], where: str) -> tuple[pd.DataFrame, str]:
    file = _only([file for file, _ in pairs], "metadata tables", where)
    return next(table for other, table in pairs if other is file), file.where


def _only(files: list[File], what: str, where: object) -> File:
    if len(files) > 1:
        raise UserError(f"{where} holds several {what} ({', '.join(f.name for f in files)}); keep one")
    return files[0]


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


def _dermamnist(file: File) -> Found:
    table, images = dermamnist.read(Path(file.where))
    return Found("DermaMNIST", _complete(table), file.where, images, False)

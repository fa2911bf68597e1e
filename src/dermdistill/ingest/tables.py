"""Reads one table as text, however it was saved: the one place for separators and encodings.

Comma, semicolon, tab; LF, CRLF; UTF-8 or UTF-16, with or without a byte order mark; Excel's first line ``sep=;``; and
PH2's own text, whose cells lie between ``||`` and whose clinical diagnosis is a number.

Deliberately absent: other encodings, which cannot be told apart, and workbooks.
"""

import csv
import io
import warnings
from pathlib import Path

import pandas as pd

from dermdistill.errors import UserError
from dermdistill.ingest.archives import File

SUFFIXES = (".csv", ".tsv", ".tab")
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
PH2 = "PH2_dataset"
PH2_DIAGNOSES = {"0": "common nevus", "1": "atypical nevus", "2": "melanoma"}


def read(path: str | Path) -> pd.DataFrame:
    """The table in a file on disk; errors as :func:`parse`.

    Raises:
        UserError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; give a CSV table")
    return parse(File(path.name, str(path), path.read_bytes))


def parse(file: File) -> pd.DataFrame:
    """Any table, every cell as text.

    Raises:
        UserError: the file is a workbook or no table.
    """
    content = file.read()
    if content.startswith(WORKBOOKS):
        raise UserError(f"{file.where} is a workbook, no text; save its sheet as CSV in UTF-8")
    try:
        text = content.decode(_encoding(content))
        if text.lstrip().startswith("||"):
            return _ph2(text)
        first, _, rest = text.partition("\n")
        text, header = (rest, rest.partition("\n")[0]) if first.lower().startswith("sep=") else (text, first)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error", pd.errors.ParserWarning
            )  # rows longer than the header would shift its columns
            return pd.read_csv(
                io.StringIO(text),
                sep=max(",\t;", key=header.count),
                dtype=str,
                keep_default_na=False,
                index_col=False,
                quoting=csv.QUOTE_MINIMAL,
            )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file.where} is no readable table ({reason}); save it as CSV in UTF-8") from None


def _encoding(content: bytes) -> str:
    """UTF-16 has a mark, or a zero in one byte of each letter of the header."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    return {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get(
        (content[:1] == b"\0", content[1:2] == b"\0"), "utf-8-sig"
    )


def _ph2(text: str) -> pd.DataFrame:
    """The lines between ``||``; the legend below the table is none. The colour codes at the end may hold ``|``."""
    lines = [line.strip() for line in text.splitlines() if line.lstrip().startswith("||")]
    head, *rows = ([cell.strip() for cell in line.strip("|").split("||")] for line in lines)
    table = pd.DataFrame([row for row in rows if len(row) == len(head)], columns=head, dtype=str)
    words = {column: table[column].replace(PH2_DIAGNOSES) for column in table if column == "Clinical Diagnosis"}
    return table.assign(**words).rename(columns={"Name": "image_id"})

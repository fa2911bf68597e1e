"""Writing files so that a reader never meets a half-written one, and telling files apart."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermdistill.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the final name only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)  # mkstemp's 0600 would surprise whoever shares the folder
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON; NaN is refused, since no reader agrees on what it means."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write ``table`` as CSV without its index; numbers with six digits, which is more than any of them means."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def copy(source: str | Path, target: str | Path) -> None:
    """Copy a file of the pipeline, bytes alone.

    Raises:
        UserError: if there is no such file.
    """
    with atomic(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except FileNotFoundError:
            raise UserError(f"{source} does not exist; `dvc repro` makes it") from None


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro` makes it") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it or run `dvc repro`") from None


def read_table(path: str | Path) -> "pd.DataFrame":
    """A CSV table of the pipeline, every column as text: an id may be a number, begin with zeros, or read NA.

    Raises:
        UserError: if there is no such file, or it is no table.
    """
    import pandas as pd  # not at the top: most of what imports this module reads none

    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; restore it from git or run `dvc repro`") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
        raise UserError(f"{path} is not a readable CSV table; restore it from git or run `dvc repro`") from None


def sha256(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

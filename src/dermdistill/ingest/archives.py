"""Lists the files below a folder and inside its zips, each with a function that reads its bytes.

Zips are never unpacked to disk, and only the file name of a member's path is used. Paths that lead out of the archive
are refused all the same: no image collection needs one. Image ids are compared without regard to case, as some
file systems do. This module imports only the standard library, so that ``dermdistill predict`` starts fast.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from dermdistill.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LARGEST = 100_000_000  # bytes a member of a zip may unpack to
ENCRYPTED = 0x1  # bit of a member's flags

Reader = Callable[[], bytes]


class File(NamedTuple):
    """A file in a folder or a zip.

    ``name`` has no folders; ``where`` is its full place, for messages; ``read`` returns its bytes.
    """

    name: str
    where: str
    read: Reader


def walk(path: str | Path) -> Iterator[File]:
    """Every file below a folder, including those inside its zips, or every file of one zip; sorted.

    Raises:
        UserError: when ``path`` is neither a folder nor a zip, or a zip is broken, encrypted or has unsafe names.
    """
    path = Path(path)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix.lower() == ".zip" or file == path:
            yield from _members(file)
        elif file.is_file():
            yield File(file.name, str(file), partial(_file, file))


def find_images(path: str | Path) -> dict[str, Reader]:
    """Image id in lower case (file name without suffix) → reader of its bytes."""
    return images_among(walk(path))


def images_among(files: Iterable[File]) -> dict[str, Reader]:
    """Image id in lower case → reader of its bytes, of the images among ``files``.

    Raises:
        UserError: when an image id occurs twice.
    """
    readers: dict[str, Reader] = {}
    for name, where, read in files:
        if not name.lower().endswith(IMAGES) or name.startswith("."):  # macOS adds ._NAME.jpg to its zips
            continue
        image = Path(name).stem
        if image.casefold() in readers:
            raise UserError(f"image {image} is there more than once, the second time as {where}; remove one")
        readers[image.casefold()] = read
    return readers


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); replace it or run `make data` again") from None


def _members(path: Path) -> Iterator[File]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if path.suffix.lower() != ".zip":
            raise UserError(f"{path} is neither a folder nor a zip; name one that holds the images") from None
        raise UserError(
            f"{path} is no complete zip (a broken download?); replace it, or run `make data` again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} is neither a folder nor a zip that can be read ({error.strerror}); check the path"
        ) from None
    for info in archive.infolist():
        if info.is_dir():
            continue
        if _leaves(info.filename):
            raise UserError(f"{path} holds {info.filename!r}, a path that leads out of the archive; repack the images")
        if info.flag_bits & ENCRYPTED:
            raise UserError(f"{path} is encrypted ({info.filename}); unpack it with its password into a folder")
        name = PureWindowsPath(info.filename).name  # parts both kinds of slash
        yield File(name, f"{path}:{info.filename}", partial(_member, archive, info, path))


def _leaves(name: str) -> bool:
    return name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive) or ".." in PureWindowsPath(name).parts


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    where = f"{info.filename} in {path}"
    if info.file_size > LARGEST:
        raise UserError(f"{where} unpacks to more than {LARGEST:,} bytes; it is no image of this data set")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{where} is damaged ({error}); replace the zip, or run `make data` again") from None

"""Lists the files below a folder and inside its zips, each with a function that reads its bytes.

Zips are never unpacked to disk, a zip inside a zip is read into memory, and only the file name of a member's path is
used. Paths that lead out of the archive
are refused all the same: no image collection needs one. Image ids are compared without regard to case, as some
file systems do. This module imports only the standard library, so that ``dermdistill predict`` starts fast.
"""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

from dermdistill.errors import UserError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LARGEST = 100_000_000  # bytes a member of a zip may unpack to
DOWNSAMPLED = "_downsampled"
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
    """Every file below a folder, including those inside its zips and inside zips in these, or every file of one zip.

    They are sorted.

    Raises:
        UserError: when ``path`` is neither a folder nor a zip, or a zip is broken, encrypted or has unsafe names.
    """
    path = Path(path)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.suffix.lower() == ".zip" or file == path:
            yield from _members(file, str(file))
        elif file.is_file():
            yield File(file.name, str(file), partial(_file, file))


def image_id(name: str) -> str:
    """The id of an image, from how a table or a path writes it: the one place for ids.

    Neither folders (with / or \\) nor the suffix of an image belong to it, nor ISIC 2019's ``_downsampled``. Ids are
    the same whatever their case; what compares them casefolds them.
    """
    name = PureWindowsPath(name.strip()).name  # parts both kinds of slash
    stem, dot, suffix = name.rpartition(".")
    name = stem if dot + suffix.lower() in IMAGES else name
    return name[: -len(DOWNSAMPLED)] if name.casefold().endswith(DOWNSAMPLED) else name


def find_images(path: str | Path) -> dict[str, Reader]:
    """Image id in lower case (:func:`image_id` of the file) → reader of its bytes."""
    return images_among(walk(path))


def images_among(files: Iterable[File]) -> dict[str, Reader]:
    """Image id in lower case → reader of its bytes, of the images among ``files``. Equal copies count as one.

    Raises:
        UserError: when two files of one image id differ.
    """
    images: dict[str, File] = {}
    for file in files:
        if not file.name.lower().endswith(IMAGES) or file.name.startswith("."):  # macOS adds ._NAME.jpg to its zips
            continue
        name = image_id(file.name)
        first = images.setdefault(name.casefold(), file)
        if first is not file and first.read() != file.read():
            raise UserError(
                f"image {name} is there twice with other content, {first.where} and {file.where}; remove one"
            )
    return {key: file.read for key, file in images.items()}


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); replace it or run `make data` again") from None


def _members(path: Path, where: str, content: bytes | None = None) -> Iterator[File]:
    """The members of a zip; ``content`` are its bytes if it lies in another one, as ``where`` says."""
    try:
        archive = zipfile.ZipFile(path if content is None else io.BytesIO(content))
    except zipfile.BadZipFile:
        if path.suffix.lower() != ".zip":
            raise UserError(f"{path} is neither a folder nor a zip; name one that holds the images") from None
        raise UserError(
            f"{where} is no complete zip (a broken download?); replace it, or run `make data` again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} is neither a folder nor a zip that can be read ({error.strerror}); check the path"
        ) from None
    for info in archive.infolist():
        if info.is_dir():
            continue
        if _leaves(info.filename):
            raise UserError(f"{where} holds {info.filename!r}, a path that leads out of the archive; repack the images")
        if info.flag_bits & ENCRYPTED:
            raise UserError(f"{where} is encrypted ({info.filename}); unpack it with its password into a folder")
        name = PureWindowsPath(info.filename).name  # parts both kinds of slash
        file = File(name, f"{where}:{info.filename}", partial(_member, archive, info, where))
        if not name.lower().endswith(".zip") or name.startswith("."):
            yield file
        elif content is not None or info.file_size > LARGEST:
            raise UserError(f"{file.where} is a zip inside a zip, too large or too deep to look into; unpack {path}")
        else:
            yield from _members(Path(name), file.where, file.read())


def _leaves(name: str) -> bool:
    return name.startswith(("/", "\\")) or bool(PureWindowsPath(name).drive) or ".." in PureWindowsPath(name).parts


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> bytes:
    where = f"{info.filename} in {path}"
    if info.file_size > LARGEST:
        raise UserError(f"{where} unpacks to more than {LARGEST:,} bytes; it is no image of this data set")
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{where} is damaged ({error}); replace the zip, or run `make data` again") from None

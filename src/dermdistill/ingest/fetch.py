"""Bring HAM10000 to ``data/raw``: from a folder on this machine, or from its publisher.

The download follows Dataverse's documented API (guides.dataverse.org, "Native API" and "Data Access API"). It is tested
against a local stand-in only, because the publisher could not be reached during development. For the same reason the
expected size and MD5 of each file are not constants here but come from the server's own metadata.
"""

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dermdistill.errors import UserError
from dermdistill.ingest import forms, prepare, tables
from dermdistill.ingest.archives import IMAGES

SERVER = "https://dataverse.harvard.edu"
DOI = "doi:10.7910/DVN/DBW86T"
FILES = {3172585: "HAM10000_images_part_1.zip", 3172584: "HAM10000_images_part_2.zip", 4338392: "HAM10000_metadata"}
BLOCK = 1 << 20
COPIED = (*IMAGES, *tables.SUFFIXES, ".zip", ".npz")


def bring(source: str | Path, target: str | Path = "data/raw") -> None:
    """Copy a local HAM10000 (zips or folders, and the table) to ``target``, whole or not at all.

    Raises:
        UserError: the source is incomplete or damaged; ``target`` is untouched then.
    """
    source, target = Path(source), Path(target)
    raw = prepare.open_raw(source)  # refuses an incomplete source before anything is copied
    fresh, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            shutil.copytree(path, fresh / path.name)
        elif (
            path.suffix.lower() in COPIED or path.name == forms.MAPPING or path.name.startswith((forms.HAM, tables.PH2))
        ):
            shutil.copyfile(path, fresh / path.name)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # not before: after a kill between the renames it is the only copy
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{target}: {len(raw.table):,} images of {raw.table['lesion_id'].nunique():,} lesions; `dvc repro` uses them")


def download(target: str | Path = "data/raw", parts: str | Path = "runtime/download", server: str = SERVER) -> None:
    """Download the originals (2.6 GB) to ``parts``, resuming an earlier try, and bring them to ``target``.

    Raises:
        UserError: the server failed, or what it sent is damaged; ``target`` is untouched then.
    """
    parts = Path(parts)
    parts.mkdir(parents=True, exist_ok=True)
    try:
        listing = _list_files(server)
        for file_id, name in FILES.items():
            _fetch(f"{server}/api/access/datafile/{file_id}", parts / name, listing[file_id])
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise UserError(
            f"{server} did not deliver ({error}); run `make data` again to go on where it stopped, or "
            "`make data SOURCE=DIR` with a local copy"
        ) from None
    bring(parts, target)
    shutil.rmtree(parts)


def _list_files(server: str) -> dict[int, dict[str, Any]]:
    """File id → the server's metadata of it, with ``filesize`` (bytes) and ``md5`` (hex)."""
    with urllib.request.urlopen(f"{server}/api/datasets/:persistentId/?persistentId={DOI}", timeout=60) as response:
        content = response.read()
    try:
        listing = json.loads(content)
        files = {item["dataFile"]["id"]: item["dataFile"] for item in listing["data"]["latestVersion"]["files"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{server} did not list the files of {DOI}; check the network, or make data SOURCE=DIR"
        ) from None
    absent = [name for file_id, name in FILES.items() if file_id not in files]
    if absent:
        raise UserError(
            f"{DOI} at {server} no longer lists {', '.join(absent)}; bring a local copy: make data SOURCE=DIR"
        )
    return files


def _fetch(url: str, path: Path, metadata: dict[str, Any]) -> None:
    """Complete ``path`` from ``url`` and compare its size and MD5 with the server's ``metadata``."""
    # Dataverse stores a table it has "ingested" in another format than it sends, and lists size and MD5 of the
    # stored one (github.com/IQSS/dataverse, issue 9501). Such a table is checked by reading it, in `bring`.
    ingested = "originalFileFormat" in metadata or "UNF" in metadata
    have = path.stat().st_size if path.exists() and not ingested else 0
    if ingested or have < metadata["filesize"]:
        have = _receive(url, path, have, metadata["filesize"])
    if ingested:
        return
    if have < metadata["filesize"]:
        raise ConnectionError(f"{path.name} ended at {have:,} of {metadata['filesize']:,} bytes")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "md5").hexdigest()
    if digest != metadata["md5"]:
        path.unlink()
        raise UserError(f"{path.name} arrived damaged (wrong MD5) and was deleted; run `make data` again")


def _receive(url: str, path: Path, have: int, size: int) -> int:
    """Append what follows the first ``have`` bytes to ``path``; return its size in bytes."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = response.status == 206  # a server that ignores the range sends the whole file again
        with path.open("ab" if resumed else "wb") as out, _bar(path.name, size, have if resumed else 0) as bar:
            while block := response.read(BLOCK):
                out.write(block)
                bar.update(len(block))
    return path.stat().st_size


def _bar(name: str, total: int, start: int) -> "tqdm[Any]":
    return tqdm(desc=name, total=total, initial=start, unit="B", unit_scale=True)

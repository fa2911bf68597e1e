"""Bringing the data: whole or not at all, from a folder or from a server that behaves as well or badly as it likes."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dermdistill.errors import UserError
from dermdistill.ingest import fetch
from dermdistill.phantom.phantom import PARTS, TABLE


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- from a folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def source(phantom_raw: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(phantom_raw, tmp_path / "source"))
    (folder / "notes.txt").write_text("not ours")
    return folder


def test_a_local_copy_is_brought_without_what_does_not_belong(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "data/raw"
    fetch.bring(source, target)
    assert set(content(target)) == {*PARTS, TABLE}
    assert content(target) == {name: (source / name).read_bytes() for name in content(target)}
    assert "images of 60 lesions" in capsys.readouterr().out
    assert [path.name for path in target.parent.iterdir()] == ["raw"]


def test_unpacked_folders_are_brought_as_folders(source: Path, tmp_path: Path) -> None:
    for name in PARTS:
        shutil.unpack_archive(source / name, source / "images" / Path(name).stem)
        (source / name).unlink()
    fetch.bring(source, tmp_path / "data/raw")
    assert content(tmp_path / "data/raw/images") == content(source / "images")


def test_what_was_there_is_replaced_as_a_whole(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data/raw"
    fetch.bring(source, target)
    (target / "ISIC_0000001.jpg").write_bytes(b"left over")
    (target.parent / "raw.new").mkdir()  # of a run that was killed
    (target.parent / "raw.new/half").write_bytes(b"half")
    fetch.bring(source, target)
    assert set(content(target)) == {*PARTS, TABLE}
    assert [path.name for path in target.parent.iterdir()] == ["raw"]


def test_a_run_killed_between_the_two_renames_can_be_repeated(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "data/raw"
    fetch.bring(source, target)
    shutil.copytree(target, target.with_name("raw.old"))
    fetch.bring(source, target)
    assert [path.name for path in target.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize("missing", [PARTS[0], TABLE, "everything"])
def test_an_incomplete_source_is_refused_and_what_was_there_is_kept(source: Path, tmp_path: Path, missing: str) -> None:
    target = tmp_path / "data/raw"
    fetch.bring(source, target)
    before = content(tmp_path / "data")
    if missing == "everything":
        shutil.rmtree(source)
    else:
        (source / missing).unlink()
    with pytest.raises(UserError, match=r"lacks the files of|holds no HAM10000"):
        fetch.bring(source, target)
    assert content(tmp_path / "data") == before


def test_a_truncated_zip_is_refused_before_anything_is_copied(source: Path, tmp_path: Path) -> None:
    path = source / PARTS[1]
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="is no complete zip"):
        fetch.bring(source, tmp_path / "data/raw")
    assert not (tmp_path / "data").exists()


def test_a_copy_that_fails_half_way_keeps_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data/raw"
    fetch.bring(source, target)
    before = content(target)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(shutil, "copyfile", full)
        fetch.bring(source, target)
    assert content(target) == before


# --- from a server ----------------------------------------------------------------------------------------------


class Publisher:
    """A stand-in for Dataverse on this machine: the listing, the three files, and its whims."""

    def __init__(self, folder: Path) -> None:
        table = next(path for path in folder.iterdir() if path.name.startswith("HAM10000_metadata"))
        names = {"HAM10000_metadata": table.name}
        self.files = {i: (folder / names.get(name, name)).read_bytes() for i, name in fetch.FILES.items()}
        self.listing = {
            i: {"id": i, "filesize": len(c), "md5": hashlib.md5(c).hexdigest()} for i, c in self.files.items()
        }
        self.ranges = True  # whether Range is honoured
        self.stop_after: dict[int, int] = {}  # file id → bytes after which the connection breaks, once
        self.reset = False  # … with a reset, else it just ends
        self.status = 200
        self.raw_listing: bytes | None = None
        self.requests: list[tuple[int, str | None]] = []  # file id, Range
        self.sent: dict[int, int] = dict.fromkeys(self.files, 0)
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if self.status != 200:
            request.send_error(self.status)
        elif request.path == f"/api/datasets/:persistentId/?persistentId={fetch.DOI}":
            files = [{"dataFile": item} for item in self.listing.values()]
            listing = json.dumps({"status": "OK", "data": {"latestVersion": {"files": files}}}).encode()
            self.send(request, 200, listing if self.raw_listing is None else self.raw_listing)
        elif request.path.startswith("/api/access/datafile/"):
            self.send_file(request, int(request.path.rpartition("/")[2].partition("?")[0]))
        else:
            request.send_error(404)

    def send_file(self, request: BaseHTTPRequestHandler, file_id: int) -> None:
        whole, wanted = self.files[file_id], request.headers.get("Range")
        self.requests.append((file_id, wanted))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        body, limit = whole[start:], self.stop_after.pop(file_id, None)
        status = 206 if wanted and self.ranges else 200
        self.sent[file_id] += self.send(request, status, body, limit)

    def send(self, request: BaseHTTPRequestHandler, status: int, body: bytes, limit: int | None = None) -> int:
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:limit])
        if limit is not None and self.reset:  # closing with SO_LINGER 0 sends RST instead of FIN
            request.wfile.flush()
            threading.Event().wait(0.3)  # or the reset would overtake what was sent
            request.connection.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
            request.connection.close()
        request.close_connection = True
        return len(body[:limit])


@pytest.fixture
def publisher(phantom_raw: Path) -> Iterator[Publisher]:
    standin = Publisher(phantom_raw)
    yield standin
    standin.close()


PART = 3172585


class Place:
    """Where a download goes."""

    def __init__(self, folder: Path) -> None:
        self.target, self.parts = folder / "data/raw", folder / "runtime/download"

    def download(self, publisher: Publisher) -> None:
        fetch.download(self.target, self.parts, publisher.url)

    def refused(self, publisher: Publisher) -> str:
        with pytest.raises(UserError) as caught:
            self.download(publisher)
        assert "\n" not in str(caught.value) and not self.target.exists()
        return str(caught.value)

    def complete(self, publisher: Publisher) -> bool:
        return content(self.target) == {fetch.FILES[i]: c for i, c in publisher.files.items()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(fetch, "BLOCK", 4096)  # the files are small; a block that breaks off is lost
    return Place(tmp_path)


def test_a_download_brings_the_three_files_and_cleans_up(publisher: Publisher, place: Place) -> None:
    place.download(publisher)
    assert place.complete(publisher) and not place.parts.exists()
    assert publisher.requests == [(i, None) for i in fetch.FILES]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_reset_connection_is_one_sentence_and_the_next_try_goes_on(
    publisher: Publisher, place: Place, ranges: bool
) -> None:
    half = len(publisher.files[PART]) // 2
    publisher.stop_after, publisher.reset, publisher.ranges = {PART: half}, True, ranges
    assert "run `make data` again to go on where it stopped" in place.refused(publisher)
    have = (place.parts / PARTS[0]).stat().st_size
    assert 0 < have <= half
    place.download(publisher)
    assert place.complete(publisher)
    assert publisher.requests[1] == (PART, f"bytes={have}-")
    again = len(publisher.files[PART]) - (have if ranges else 0)  # without ranges the whole file is sent again
    assert publisher.sent[PART] == half + again


def test_a_connection_that_just_ends_is_resumed(publisher: Publisher, place: Place) -> None:
    half = len(publisher.files[PART]) // 2
    publisher.stop_after = {PART: half}
    assert "run `make data` again" in place.refused(publisher)
    assert (place.parts / PARTS[0]).stat().st_size == half
    place.download(publisher)
    assert place.complete(publisher) and publisher.requests[1] == (PART, f"bytes={half}-")


def test_what_has_arrived_is_not_requested_again(publisher: Publisher, place: Place) -> None:
    publisher.stop_after, publisher.reset = {3172584: 10}, True
    place.refused(publisher)
    place.download(publisher)
    assert [file_id for file_id, _ in publisher.requests].count(PART) == 1 and place.complete(publisher)


def test_a_file_with_another_md5_is_deleted_and_fetched_anew(publisher: Publisher, place: Place) -> None:
    good = publisher.files[PART]
    publisher.files[PART] = bytes([good[0] ^ 1]) + good[1:]
    text = place.refused(publisher)
    assert text.startswith(f"{PARTS[0]} arrived damaged") and "deleted" in text
    assert not (place.parts / PARTS[0]).exists()
    publisher.files[PART] = good
    place.download(publisher)
    assert place.complete(publisher)


def test_a_stale_part_of_another_file_is_noticed(publisher: Publisher, place: Place) -> None:
    place.parts.mkdir(parents=True)
    (place.parts / PARTS[0]).write_bytes(b"of something else")
    assert "arrived damaged" in place.refused(publisher)
    place.download(publisher)
    assert place.complete(publisher)


def test_existing_data_stay_until_the_download_is_complete(publisher: Publisher, place: Place) -> None:
    place.download(publisher)
    before = content(place.target)
    publisher.stop_after, publisher.reset = {PART: 100}, True
    with pytest.raises(UserError, match="did not deliver"):
        place.download(publisher)
    assert content(place.target) == before


def test_a_server_that_is_down_is_one_sentence(publisher: Publisher, place: Place) -> None:
    publisher.close()
    text = place.refused(publisher)
    assert publisher.url in text and "did not deliver" in text and "make data SOURCE=DIR" in text


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_an_http_error_is_one_sentence(publisher: Publisher, place: Place, status: int) -> None:
    publisher.status = status
    text = place.refused(publisher)
    assert str(status) in text and "did not deliver" in text


def test_a_listing_without_a_file_is_one_sentence(publisher: Publisher, place: Place) -> None:
    del publisher.listing[3172584]
    assert f"{fetch.DOI} at {publisher.url} no longer lists {PARTS[1]}" in place.refused(publisher)


@pytest.mark.parametrize("answer", [b"<html>please log in</html>", b'{"status": "ERROR", "message": "moved"}', b"{}"])
def test_an_answer_that_is_no_listing_is_one_sentence(publisher: Publisher, place: Place, answer: bytes) -> None:
    """As of a hotel's captive portal."""
    publisher.raw_listing = answer
    assert publisher.url in place.refused(publisher)


def test_a_table_ingested_by_dataverse_is_accepted(publisher: Publisher, place: Place) -> None:
    """The listing's size and MD5 are of the table as stored, without a header; what is sent has one.

    Source: github.com/IQSS/dataverse, issue 9501.
    """
    table = 4338392
    stored = publisher.files[table].partition(b"\n")[2]
    publisher.listing[table] |= {
        "filesize": len(stored),
        "md5": hashlib.md5(stored).hexdigest(),
        "contentType": "text/tab-separated-values",
        "originalFileFormat": "text/csv",
    }
    place.download(publisher)
    assert place.complete(publisher)

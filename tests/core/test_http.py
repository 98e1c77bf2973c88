"""Objects on web servers, as `core.remote` reads them: with and without ranges, whatever the server leaves out."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from vqa_train.core import remote
from vqa_train.core.errors import UsageError
from vqa_train.core.locations import is_remote, location
from vqa_train.core.retry import PATIENCE_VARIABLE, DamagedTransferError

DATA = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """Paths say what the server does: `ranges`, `plain` (no ranges), `get` (refuses HEAD), `short` (breaks off)..."""

    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        deed = self.path.strip("/").partition("/")[0]
        self.asked.append((self.command, self.path, self.headers.get("Range")))
        status = {"gone": 404, "forbidden": 403, "broken": 500}.get(deed, 200)
        if deed == "get" and not body:
            status = 405
        if deed == "moved":
            self.send_response(302)
            self.send_header("Location", "/ranges/a.mp4" if "file" not in self.path else "file:///etc/hostname")
            self.end_headers()
            return
        data, wanted = (DATA, self.headers.get("Range")) if status == 200 else (b"", None)
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if deed == "ranges" and found:
            status, data = 206, data[int(found[1]) : int(found[2]) + 1 if found[2] else None]
        self.send_response(status)
        if deed != "sizeless":
            self.send_header("Content-Length", str(len(data)))
        if deed == "ranges":
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", '"one"')
        if deed == "plain":
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(data[: 4000 if deed == "short" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, "0")
    Handler.asked.clear()


def test_an_address_is_a_remote_place(server: str) -> None:
    place = location(f"{server}/ranges/a b.mp4")
    assert is_remote(place)
    assert (place.suffix, str(place)) == (".mp4", f"{server}/ranges/a b.mp4")
    assert remote.read(place) == DATA
    assert Handler.asked[-1][1] == "/ranges/a%20b.mp4"


@pytest.mark.parametrize("kind", ["ranges", "plain", "get", "moved"])
def test_all_bytes_arrive_in_order(server: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 1000)
    place = location(f"{server}/{kind}/a.mp4")
    size = remote.size(place)
    assert size == len(DATA)
    arrived = b"".join(remote.chunks(place, size))
    assert hashlib.sha256(arrived).hexdigest() == hashlib.sha256(DATA).hexdigest()
    whole = [asked for asked in Handler.asked if asked[0] == "GET" and asked[2] is None and asked[1] != "/get/a.mp4"]
    # Without ranges one connection brings it, not one for each part.
    assert len(whole) == (1 if kind == "plain" else 0)


@pytest.mark.parametrize("kind", ["ranges", "plain"])
def test_a_part_is_that_part(server: str, kind: str) -> None:
    place = location(f"{server}/{kind}/a.mp4")
    assert remote.range_of(place, 300, 557) == DATA[300:557]


def test_its_state_is_its_tag_or_its_time(server: str) -> None:
    assert remote.state(location(f"{server}/ranges/a.mp4")) == f'{len(DATA)}|"one"'
    assert remote.state(location(f"{server}/plain/a.mp4")) == f"{len(DATA)}|2015-10-21 07:28:00+00:00"


def test_what_is_not_there_or_refused_says_so(server: str) -> None:
    assert remote.info(location(f"{server}/gone/a.mp4")) is None
    with pytest.raises(PermissionError, match="HTTP 403"):
        remote.size(location(f"{server}/forbidden/a.mp4"))
    with pytest.raises(OSError, match="500"):
        remote.size(location(f"{server}/broken/a.mp4"))
    with pytest.raises(OSError, match="does not say how large it is"):
        remote.size(location(f"{server}/sizeless/a.mp4"))


def test_a_connection_that_breaks_is_no_short_video(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = location(f"{server}/short/a.mp4")
    with pytest.raises(OSError):
        remote.range_of(place, 0, len(DATA))
    monkeypatch.setattr(remote, "CHUNK", 1000)
    with pytest.raises(OSError) as caught:
        b"".join(remote.chunks(place, len(DATA)))
    assert isinstance(caught.value, DamagedTransferError | ConnectionError)


def test_a_redirect_out_of_the_web_is_refused(server: str) -> None:
    with pytest.raises(OSError, match="redirect|not allowed"):
        remote.read(location(f"{server}/moved/file"))


def test_nobody_there_is_an_error_that_may_pass() -> None:
    with pytest.raises(ConnectionRefusedError):
        remote.read(location("http://127.0.0.1:9/a.mp4"))


def test_an_address_with_a_secret_is_refused() -> None:
    with pytest.raises(UsageError, match="password or a signature"):
        location("https://example.org/a.mp4?signature=x")

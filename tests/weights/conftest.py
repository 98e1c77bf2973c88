"""A weights folder of its own for every test, and real HTTP servers on loopback that misbehave on demand."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vqa_train.weights.manifest import Source, WeightsEntry, WeightsFile


@dataclass
class Site:
    """What a server holds and how it answers.

    Attributes:
        files: path -> bytes.
        plan: one word per GET, first to last, then whole answers: "cut:N" breaks off after N bytes, "500" and the like
            answer with that status, "whole" ignores ranges, "shifted" answers another range than was asked for.
        heads: the same for HEAD.
        seen: (method, path, headers) of every request.
        redirects: path -> URL that it is sent to.
        extra: headers of every answer.
        headers: path -> headers of its answers.
        etag: of every file; None sends no validator.
        chunked: answer without a length.
        stall: set it to let an answer that was cut by "stall:N" go on.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    etag: str | None = '"v1"'
    chunked: bool = False
    stall: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def gets(self) -> list[dict[str, str]]:
        """Headers of the GET requests."""
        return [headers for method, _, headers in self.seen if method == "GET"]


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            site.seen.append((self.command, self.path, dict(self.headers.items())))
            self.close_connection = True
            plan = site.plan if body else site.heads
            step = plan.pop(0) if plan else ""
            if step.isdecimal():
                return self._head(int(step), {"Content-Length": "0"})
            if self.path in site.redirects:
                return self._head(302, {"Location": site.redirects[self.path], "Content-Length": "0"})
            data = site.files.get(self.path)
            if data is None:
                return self._head(404, {"Content-Length": "0"})
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            fresh = self.headers.get("If-Range") in (None, site.etag)
            start = int(asked[1]) if asked and fresh and step != "whole" else 0
            headers = {} if site.etag is None else {"ETag": site.etag}
            if start >= len(data) > 0:
                return self._head(416, {**headers, "Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
            if start:
                start = start // 2 if step == "shifted" else start
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            headers |= {} if site.chunked else {"Content-Length": str(len(data) - start)}
            self._head(206 if start else 200, headers)
            if body:
                kind, _, count = step.partition(":")
                self.wfile.write(data[start : start + int(count)] if count else data[start:])
                if kind == "stall":
                    self.wfile.flush()
                    site.stall.wait(60)

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Connection", "close")
            for name, value in {**site.extra, **site.headers.get(self.path, {}), **headers}.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[[Site], Site]]:
    """Starts a server for a `Site` and sets its `url`."""
    running: list[tuple[ThreadingHTTPServer, threading.Thread, Site]] = []

    def start(site: Site) -> Site:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread, site))
        site.url = f"http://127.0.0.1:{server.server_port}"
        return site

    yield start
    for server, thread, site in running:
        site.stall.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def site(serve: Callable[[Site], Site]) -> Site:
    """A server without files."""
    return serve(Site())


@pytest.fixture(autouse=True)
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The weights folder of the test; the Hugging Face cache is empty."""
    import huggingface_hub.constants

    folder = tmp_path / "weights"
    monkeypatch.setenv("VQA_TRAIN_WEIGHTS", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


@pytest.fixture
def make_entry() -> Callable[..., WeightsEntry]:
    """An entry called "one"; files are names or (name, sha256)."""

    def make(*files: str | tuple[str, str], url: str | None = None, **fields: object) -> WeightsEntry:
        source = Source(url=url) if url else Source(repo="owner/one")
        listed = [WeightsFile(path=f) if isinstance(f, str) else WeightsFile(path=f[0], sha256=f[1]) for f in files]
        values = {"name": "one", "license": "MIT", "commercial_use": True, **fields}
        return WeightsEntry(source=source, files=tuple(listed), **values)

    return make

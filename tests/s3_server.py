"""A real S3 API server (moto) on loopback, and a proxy before it that answers late, wrongly, partly or not at all."""

from __future__ import annotations

import http.client
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep

from moto.server import ThreadedMotoServer

FAULTS = ("error", "slow_down", "slow", "truncated", "lost", "reset")
"""500 without effect; 503 SlowDown; late answer; half a body; done but not answered; neither done nor answered."""

_REFUSALS = {"error": (500, "InternalError"), "slow_down": (503, "SlowDown"), "forbidden": (403, "AccessDenied")}
_BODY = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
# moto does not check signatures, but lets nobody change anything without one.
_LOGIN = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


class Server:
    """S3 without faults; `url` is its endpoint."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
        self._moto.start()
        self.address: tuple[str, int] = self._moto.get_host_and_port()
        self.url = f"http://127.0.0.1:{self.address[1]}"

    def request(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """An answer of the server itself, by no S3 library: status and body."""
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method, path, body, {"Authorization": _LOGIN})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def empty_bucket(self, name: str) -> None:
        """Forget everything, then make the bucket `name`."""
        self.request("POST", "/moto-api/reset")
        assert self.request("PUT", f"/{name}")[0] == 200

    def close(self) -> None:
        self._moto.stop()


class Proxy:
    """Hands requests on to `server`; what goes wrong is drawn per request from `seed`, or decided by `watch`.

    Attributes:
        url: the endpoint to talk to.
        rate: part of the requests that meet a fault.
        faults: which of FAULTS are drawn.
        met: how often each fault was injected.
        watch: called with method and path before a request is handed on; it may name a fault.
    """

    def __init__(self, server: Server, *, seed: int = 0) -> None:
        self.rate = 0.0
        self.faults: tuple[str, ...] = FAULTS
        self.met: Counter[str] = Counter()
        self.requests: list[tuple[str, str]] = []
        self.watch: Callable[[str, str], str | None] = lambda _method, _path: None
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def _serve(self) -> None:
                proxy._serve(self, server.address)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _draw(self, method: str, path: str) -> str | None:
        with self._lock:
            self.requests.append((method, path))
            fault = self.watch(method, path)
            if fault is None and self._random.random() < self.rate:
                fault = self._random.choice(self.faults)
            if fault is not None:
                self.met[fault] += 1
            return fault

    def _serve(self, handler: BaseHTTPRequestHandler, upstream: tuple[str, int]) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault = self._draw(handler.command, handler.path)
        if fault in _REFUSALS:
            status, code = _REFUSALS[fault]
            self._answer(handler, status, [], _BODY.format(code).encode())
            return
        if fault == "reset":
            handler.close_connection = True
            return
        connection = http.client.HTTPConnection(*upstream, timeout=30)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            response = connection.getresponse()
            data, length = response.read(), response.getheader("Content-Length")
            headers = [pair for pair in response.getheaders() if pair[0].lower() not in _HOP]
        finally:
            connection.close()
        if fault == "lost":
            handler.close_connection = True
            return
        if fault == "slow":
            sleep(0.2)
        cut = fault == "truncated" and len(data) > 1
        self._answer(handler, response.status, headers, data, length if handler.command == "HEAD" else None, cut=cut)

    @staticmethod
    def _answer(
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        data: bytes,
        length: str | None = None,
        *,
        cut: bool = False,
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", length or str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data[: len(data) // 2] if cut else data)
        handler.close_connection = handler.close_connection or cut

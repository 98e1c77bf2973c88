"""Videos on web servers, read with the standard library: the few calls of a filesystem that `core.remote` makes."""

from __future__ import annotations

import contextlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

_STALL_S = 30.0
_BLOCK = 1 << 20


class HttpFiles:
    """Objects behind http:// and https:// addresses, for reading.

    Redirects are followed to http and https alone; proxies and certificates are those of the environment. Nothing is
    listed and nothing is written.
    """

    protocol = ("http", "https")

    def __init__(self) -> None:
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            _Redirects(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self._opener.add_handler(handler)

    def info(self, url: str) -> dict[str, Any]:
        """`type`, `size`, `ranges` (whether parts may be asked for) and, where the server says, `ETag`, `LastModified`.

        Raises:
            OSError: there is nothing, it is forbidden, or the server does not answer or say its size.
        """
        try:
            with self._open(url, method="HEAD") as answer:
                headers = answer.headers
        except urllib.error.HTTPError as error:
            if error.code not in (403, 405, 501):
                raise
            # Some servers answer to GET alone.
            with self._open(url) as answer:
                headers = answer.headers
        length = headers.get("Content-Length", "")
        if not length.isdecimal():
            raise OSError(None, "the server does not say how large it is", url)
        found = {"name": url, "type": "file", "size": int(length), "ranges": headers.get("Accept-Ranges") == "bytes"}
        if headers.get("ETag"):
            found["ETag"] = headers["ETag"]
        with contextlib.suppress(TypeError, ValueError):
            found["LastModified"] = parsedate_to_datetime(headers["Last-Modified"])
        return found

    def cat_file(self, url: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes `start` to `end` - 1, all by default; fewer where the object ends before.

        Raises:
            OSError: it cannot be read.
        """
        first = start or 0
        asked = {"Range": f"bytes={first}-{'' if end is None else end - 1}"} if first or end is not None else {}
        with self._open(url, headers=asked) as answer:
            skip = first if answer.status != 206 else 0
            while skip:
                passed = len(self._read(answer, url, min(skip, _BLOCK)))
                if not passed:
                    return b""
                skip -= passed
            return self._read(answer, url, None if end is None else end - first)

    def stream(self, url: str) -> Iterator[bytes]:
        """All bytes in order, over one connection; for servers that give no ranges.

        Raises:
            OSError: it cannot be read.
        """
        with self._open(url) as answer:
            while block := self._read(answer, url, _BLOCK):
                yield block

    @staticmethod
    def _read(answer: HTTPResponse, url: str, count: int | None) -> bytes:
        try:
            return answer.read() if count is None else answer.read(count)
        except HTTPException as error:
            raise ConnectionError(None, f"the connection was lost ({error})", url) from error

    @contextlib.contextmanager
    def _open(self, url: str, *, method: str = "GET", headers: dict[str, str] | None = None) -> Iterator[HTTPResponse]:
        headers = {"User-Agent": "vqa-train", "Accept-Encoding": "identity", **(headers or {})}
        request = urllib.request.Request(_encoded(url), method=method, headers=headers)  # noqa: S310  # see the opener
        try:
            answer = cast(HTTPResponse, self._opener.open(request, timeout=_STALL_S))
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(2, "No such object", url) from error
            if error.code in (401, 403) and method != "HEAD":
                raise PermissionError(13, f"the server refuses it (HTTP {error.code})", url) from error
            raise
        except urllib.error.URLError as error:
            # What went wrong, as a plain OSError, tells whether to try again.
            raise (
                error.reason if isinstance(error.reason, OSError) else OSError(None, str(error.reason), url)
            ) from error
        except HTTPException as error:
            raise ConnectionError(None, f"the server's answer makes no sense ({error})", url) from error
        with contextlib.closing(answer):
            yield answer


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows with the method that was asked for; the library's own turns HEAD into GET."""

    def redirect_request(self, req: urllib.request.Request, *rest: Any) -> urllib.request.Request | None:
        """The request to where an answer points."""
        found = super().redirect_request(req, *rest)
        if found is not None:
            found.method = req.get_method()
        return found


def _encoded(url: str) -> str:
    """The address with what an HTTP request cannot carry (spaces, other alphabets) percent-encoded."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.encode("idna").decode("ascii")
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    return urllib.parse.urlunsplit((parts.scheme, host, path, "", ""))

"""Fetches one file over HTTP: goes on where it was cut, checks size and hash, and only then gives it its name."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from vqa_train import __version__
from vqa_train.core.errors import WeightsError
from vqa_train.core.files import atomic_write_bytes, fsync_dir
from vqa_train.core.hashing import sha256_file
from vqa_train.weights.sniff import not_a_checkpoint

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_LONGEST_PAUSE_S = 30.0
# Answers that another try may change; other 4xx will not.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        url: http or https.
        source: how to name it in messages and pins; free of tokens.
        sha256, bytes: what it must be, where known.
        headers: sent to the host of `url` alone, not to where it redirects.
    """

    url: str
    source: str
    sha256: str | None = None
    bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often to try again.

    Attributes:
        tries: after so many in a row that brought nothing, give up.
        pause_s: before the next try at first; doubles with each that brings nothing.
    """

    tries: int = 5
    pause_s: float = 1.0

    def pause(self, failures: int) -> None:
        """Wait before the try after so many failures in a row."""
        time.sleep(min(_LONGEST_PAUSE_S, self.pause_s * 2.0**failures))


def download(
    remote: RemoteFile,
    target: Path,
    *,
    retries: Retries | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> str:
    """Fetch `remote` into `target`; its sha256.

    What has arrived lies in `<target>.part` until it is whole, so that an interrupted call, even a killed one, goes on
    there; a server that does not do ranges, or whose file has changed, is read from the start.

    Args:
        retries: None is five tries, the first pause one second.
        advance: told of every piece of bytes.

    Raises:
        WeightsError: refused by the server, out of tries, or other bytes than expected; `target` is then unchanged.
        OSError: the file cannot be written.
    """
    retries = retries or Retries()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with _alone(part, remote) as handle:
        failures = 0
        while True:
            before = handle.tell()
            try:
                _fetch(remote, handle, _Validator(part), advance)
                break
            except _AgainError as error:
                failures = 0 if handle.tell() > before else failures + 1
                if failures >= retries.tries:
                    raise WeightsError(
                        f"{remote.source} could not be fetched: {error}",
                        hint=f"{handle.tell():,} bytes are kept; the same command goes on from there",
                    ) from error
                retries.pause(failures)
        found = _checked(remote, part)
        part.replace(target)
        _Validator(part).forget()
    fsync_dir(target.parent)
    return found


class _AgainError(Exception):
    """Worth another try."""


class _Validator:
    """What the server said identifies the bytes of a .part file, kept beside it; without it they are not used."""

    def __init__(self, part: Path) -> None:
        self._path = part.with_name(f"{part.name}.json")

    def read(self, url: str) -> str | None:
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        validator = value.get("validator") if isinstance(value, dict) and value.get("url") == url else None
        return validator if isinstance(validator, str) else None

    def write(self, url: str, response: http.client.HTTPResponse) -> None:
        etag = response.headers.get("ETag")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")
        atomic_write_bytes(self._path, json.dumps({"url": url, "validator": validator}).encode())

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


@contextmanager
def _alone(part: Path, remote: RemoteFile) -> Iterator[IO[bytes]]:
    """The .part file, held so that no other process writes to it, positioned at its end."""
    import fcntl

    with part.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WeightsError(f"{remote.source} is being fetched by another process into {str(part)!r}") from error
        yield handle


def _fetch(remote: RemoteFile, handle: IO[bytes], validator: _Validator, advance: Callable[[int], None]) -> None:
    """One request; returns when the file is whole.

    Raises:
        _AgainError: the connection failed or was cut.
        WeightsError: the server has no such file, or one of another size.
    """
    known = validator.read(remote.url)
    have = handle.tell()
    request = urllib.request.Request(  # noqa: S310  the manifest admits http and https only
        remote.url, headers={"User-Agent": f"vqa-train/{__version__}", "Accept-Encoding": "identity"}
    )
    if have and known is not None:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known)
    for name, value in remote.headers.items():
        request.add_unredirected_header(name, value)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310  as above
    except urllib.error.HTTPError as error:
        with error:
            _refused(remote, error, handle)
        return
    except (OSError, http.client.HTTPException) as error:
        raise _AgainError(_reason(error)) from error
    with response:
        total = _begin(remote, response, handle)
        validator.write(remote.url, response)
        _read(response, handle, total, advance)
    if total is not None and handle.tell() < total:
        raise _AgainError(f"the connection was cut after {handle.tell():,} of {total:,} bytes")


def _refused(remote: RemoteFile, error: urllib.error.HTTPError, handle: IO[bytes]) -> None:
    """Returns when the answer says that the file is whole already."""
    if error.code == 416:
        if error.headers.get("Content-Range") == f"bytes */{handle.tell()}":
            return
        _restart(handle)
        raise _AgainError("the server has fewer bytes than were fetched before")
    message = f"HTTP {error.code} {error.reason}"
    if error.code in TRANSIENT:
        raise _AgainError(message)
    raise WeightsError(
        f"{remote.source} could not be fetched: {message}",
        hint="fetch the file by hand and pass it to `vqa-train weights add`",
    )


def _begin(remote: RemoteFile, response: http.client.HTTPResponse, handle: IO[bytes]) -> int | None:
    """Bring `handle` to where the answer begins; how many bytes the whole file has, if the server says so."""
    length = response.headers.get("Content-Length")
    total = int(length) if length is not None and length.isdecimal() else None
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != handle.tell():
            _restart(handle)
            raise _AgainError("the server sent another range than was asked for")
        total = int(match[2]) if match[2] != "*" else None
    else:
        _restart(handle)
    if total is not None and remote.bytes is not None and total != remote.bytes:
        raise WeightsError(f"{remote.source} has {total:,} bytes, expected {remote.bytes:,}")
    return total


def _read(
    response: http.client.HTTPResponse, handle: IO[bytes], total: int | None, advance: Callable[[int], None]
) -> None:
    while total is None or handle.tell() < total:
        try:
            # What is there, not a whole chunk: a connection that stalls must not keep what it has brought.
            piece = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _AgainError(_reason(error)) from error
        if not piece:
            return
        handle.write(piece)
        handle.flush()
        advance(len(piece))


def _restart(handle: IO[bytes]) -> None:
    handle.seek(0)
    handle.truncate()


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    return str(error) or type(error).__name__


def _checked(remote: RemoteFile, part: Path) -> str:
    """The sha256 of a whole .part file; one that is not what was expected is deleted."""
    found, size, wrong = sha256_file(part), part.stat().st_size, not_a_checkpoint(part)
    problem = None
    if remote.sha256 is not None and found != remote.sha256:
        problem = f"has sha256 {found}, expected {remote.sha256}"
    elif remote.bytes is not None and size != remote.bytes:
        problem = f"has {size:,} bytes, expected {remote.bytes:,}"
    elif wrong is not None:
        problem = wrong
    if problem is None:
        return found
    part.unlink()
    _Validator(part).forget()
    raise WeightsError(f"what {remote.source} sent {problem}", hint="it was not kept")

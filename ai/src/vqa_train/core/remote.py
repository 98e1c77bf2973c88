"""Reads, writes and lists what lies behind a URL, each call made again while its error passes (`core.retry`).

Every function takes a `upath.UPath` and raises OSErrors: FileNotFoundError, PermissionError, ... A write is one object,
whole or absent, as object stores promise; there is no rename, and no folder but in names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vqa_train.core.retry import DamagedTransferError, retrying, transient

if TYPE_CHECKING:
    from upath import UPath

    from vqa_train.core.http import HttpFiles

T = TypeVar("T")
P = TypeVar("P")
_HTTP = ("http", "https")
_AT_ONCE = 32
_RANGES_AHEAD = 3
CHUNK = 8 << 20


def filesystem_of(path: UPath) -> Any:
    """The fsspec filesystem of `path`, with its own retries off where it lets us."""
    if path.protocol in _HTTP:
        # fsspec's own needs packages that the base install does not have.
        return _http()
    found = path.fs
    if "s3" in _protocols(found):
        # botocore's are off too (core.locations): three loops in one another would wait for hours.
        found.retries = 1
    return found


@cache
def _http() -> HttpFiles:
    from vqa_train.core.http import HttpFiles

    return HttpFiles()


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def call(path: UPath, do: Callable[[Any, str], T], verb: str) -> T:
    """`do(filesystem, path in it)`, again while its error passes; other exceptions of the library become OSErrors.

    Raises:
        OSError: it failed for good.
    """
    # Only here: it takes a while to load, and whoever reads local files does not need it.
    import asyncio

    fs = filesystem_of(path)
    try:
        return retrying(lambda: do(fs, path.path), f"{verb} {path}")
    except OSError:
        raise
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Every library has exceptions of its own, which callers should not have to know.
        raise OSError(None, _in_words(error), str(path)) from error


def _in_words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def hint(error: BaseException, path: UPath | Path) -> str | None:
    """How to mend what `error` says, None where nothing is known."""
    if isinstance(error, PermissionError) or type(error.__cause__).__name__ == "NoCredentialsError":
        return "check the credentials (environment, configuration file or role) and what they allow on this address"
    text = str(error).lower()
    if "bucket" in text and ("not exist" in text or "no such" in text or "nosuchbucket" in text):
        return f"create the bucket or container of {str(path)!r} first; vqa-train makes none"
    if transient(error):
        return "the service does not answer; run again later, everything committed so far is kept"
    return None


def read(path: UPath) -> bytes:
    """The bytes of one object.

    Raises:
        OSError: missing, forbidden, not answering.
    """
    return call(path, _cat, "reading")


def _cat(fs: Any, name: str) -> bytes:
    # s3fs would ask for the size first, to split large objects; what is read whole here is small.
    extra = {"max_concurrency": 1} if "s3" in _protocols(fs) else {}
    data: bytes = fs.cat_file(name, **extra)
    return data


def together(do: Callable[[P], T], items: Sequence[P]) -> list[T]:
    """`do(item)` for each of `items`, in their order, 32 at a time in threads; for calls that wait for a network.

    Raises:
        Exception: what one of them raised; those not yet begun are given up.
    """
    pool = ThreadPoolExecutor(max_workers=min(_AT_ONCE, max(1, len(items))), thread_name_prefix="remote")
    try:
        return list(pool.map(do, items))
    finally:
        pool.shutdown(cancel_futures=True)


def write(path: UPath, data: bytes) -> None:
    """Put `data` at `path`, whole or not at all, and look that it is there with its size.

    An upload whose answer was lost is made again: the same name gets the same bytes. A multipart upload that fails is
    aborted.

    Raises:
        OSError: forbidden, no such bucket, not answering.
    """
    call(path, lambda fs, name: _put(fs, name, data), "writing")


def _put(fs: Any, name: str, data: bytes) -> None:
    fs.pipe_file(name, data)
    stored = fs.info(name)["size"]
    if stored != len(data):
        raise DamagedTransferError(f"{name} has {stored} bytes after {len(data)} were written")


def download(path: UPath, target: Path) -> None:
    """Copy the object at `path` to the local file `target`, which a failure may leave in part.

    Raises:
        OSError: missing, forbidden, not answering, or the local disk is full.
    """
    call(path, lambda fs, name: fs.get_file(name, str(target)), "reading")


def names(folder: UPath) -> list[str]:
    """Names right below `folder`, in no order.

    Raises:
        FileNotFoundError: nothing lies there.
        OSError: forbidden, not answering.
    """
    listed = call(folder, lambda fs, name: fs.ls(name, detail=False), "listing")
    place = folder.path.rstrip("/")
    found = {str(name).rstrip("/") for name in listed}
    return [name.rpartition("/")[2] for name in found if name != place]


def info(path: UPath) -> dict[str, Any] | None:
    """What the library tells of `path` (`type`: file or directory, `size`, ...); None when nothing is there.

    Raises:
        OSError: forbidden, not answering.
    """
    try:
        found: dict[str, Any] = call(path, lambda fs, name: fs.info(name), "looking at")
    except FileNotFoundError:
        return None
    return found


def exists(path: UPath) -> bool:
    """Whether there is an object at `path` or below it."""
    return info(path) is not None


def is_dir(path: UPath) -> bool:
    """Whether anything lies below `path`."""
    found = info(path)
    return found is not None and found["type"] == "directory"


def size(path: UPath) -> int:
    """Bytes of the object.

    Raises:
        FileNotFoundError: it is gone.
    """
    return int(_info(path)["size"])


def _info(path: UPath) -> dict[str, Any]:
    found = info(path)
    if found is None:
        raise FileNotFoundError(2, "No such object", str(path))
    return found


_MODIFIED = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")


def age_s(path: UPath) -> float:
    """Seconds from when the server says the object was written to this machine's time; 0 where it does not say.

    Raises:
        FileNotFoundError: it is gone.
    """
    found = _info(path)
    for name in _MODIFIED:
        written = moment(found.get(name))
        if written is not None:
            return (datetime.now(UTC) - written).total_seconds()
    return 0.0


def moment(value: Any) -> datetime | None:
    """A time as the libraries give it: datetime, ISO text or seconds since 1970."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, datetime):
        return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return None


def state(path: UPath) -> str:
    """What changes when the object does: its entity tag where the store has one, else its size and time.

    Raises:
        FileNotFoundError: it is gone.
    """
    return _state(_info(path))


def remove(path: UPath) -> None:
    """Delete the object; one that is already gone is fine.

    Raises:
        OSError: forbidden, not answering.
    """
    try:
        call(path, lambda fs, name: fs.rm_file(name), "deleting")
    except FileNotFoundError:
        return


@dataclass(frozen=True)
class Listed:
    """An object in a listing: its bytes, and a text that changes when it does (`state`)."""

    bytes: int
    state: str


def find(root: UPath) -> dict[str, Listed]:
    """Every object below `root`, however deep, by its path relative to it.

    Raises:
        OSError: forbidden, no such bucket, not answering.
    """
    listed = call(root, lambda fs, name: fs.find(name, detail=True), "listing")
    place = root.path.rstrip("/") + "/"
    return {
        str(name)[len(place) :]: Listed(int(entry["size"]), _state(entry))
        for name, entry in listed.items()
        if str(name).startswith(place) and entry["type"] == "file"
    }


def _state(entry: dict[str, Any]) -> str:
    """The entity tag where there is one; what a listing and a single look say of times may differ."""
    for name in ("ETag", "etag", "md5Hash", "md5"):
        if entry.get(name):
            return f"{entry.get('size')}|{entry[name]}"
    written = next((found for name in _MODIFIED if (found := moment(entry.get(name))) is not None), None)
    return f"{entry.get('size')}|{written}"


def chunks(path: UPath, size: int) -> Iterator[bytes]:
    """The bytes of the object at `path` in order, in ranges of 8 MiB of which three are on their way at a time.

    Each range is asked for again on its own, so that a connection that breaks does not begin a large file anew.

    Raises:
        OSError: missing, forbidden, not answering.
    """

    def read_range(start: int) -> bytes:
        return range_of(path, start, min(start + CHUNK, size))

    starts = range(0, size, CHUNK)
    if len(starts) > 1 and path.protocol in _HTTP and not _info(path)["ranges"]:
        yield from _in_one(path, size)
        return
    if len(starts) < 2:
        yield from (read_range(start) for start in starts)
        return
    pool = ThreadPoolExecutor(max_workers=_RANGES_AHEAD, thread_name_prefix="ranges")
    try:
        waiting: deque[Future[bytes]] = deque()
        for start in starts:
            waiting.append(pool.submit(read_range, start))
            if len(waiting) >= _RANGES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _in_one(path: UPath, size: int) -> Iterator[bytes]:
    """The bytes of an object on a server that gives no parts; a connection that breaks ends it."""
    arrived = 0
    for block in _http().stream(path.path):
        arrived += len(block)
        yield block
    if arrived != size:
        raise DamagedTransferError(f"{arrived} of {size} bytes of {path} arrived")


def range_of(path: UPath, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` - 1.

    Raises:
        OSError: missing, forbidden, not answering, or the object ends before.
    """

    def get(fs: Any, name: str) -> bytes:
        data: bytes = fs.cat_file(name, start=start, end=stop)
        if len(data) != stop - start:
            raise DamagedTransferError(f"{len(data)} of the bytes {start} to {stop} of {path} arrived")
        return data

    return call(path, get, "reading")

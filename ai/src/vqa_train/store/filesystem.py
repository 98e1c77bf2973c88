"""The only place where the store touches its files, local ones and those behind a URL: whole writes, reads, listings.

Local writes are durable by fsync and rename. A URL's write is one upload, whole or absent by the object store's own
promise. `path` may be a `upath.UPath` wherever a `Path` is asked for (`core.locations`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vqa_train.core import objectcache, remote, uploads
from vqa_train.core.errors import StoreError
from vqa_train.core.files import atomic_write_bytes, fsync_dir
from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import is_remote
from vqa_train.core.remote import together
from vqa_train.core.uploads import Upload

if TYPE_CHECKING:
    from upath import UPath

T = TypeVar("T")
_SETTLE_NS = 2_000_000_000
_AT_A_TIME = 64


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`, durably: after a crash at any byte the file is whole or not there.

    Raises:
        StoreError: the disk is full, read-only, failing, ...; nothing is left at `path` but what was there before.
    """
    try:
        if is_remote(path):
            remote.write(path, data)
            return
        make_folder(path.parent)
        atomic_write_bytes(path, data)
    except OSError as error:
        mend = "mend that and run again; everything committed so far is kept"
        raise _failed(f"cannot write {str(path)!r}", error, path, mend) from error


def make_folder(path: Path) -> None:
    """Create `path` and its parents, durably; behind a URL there are no folders to create.

    Raises:
        OSError: it cannot be created.
    """
    if is_remote(path) or path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync_dir(path.parent)


def read(path: Path, what: str) -> bytes:
    """The bytes of `path`.

    Raises:
        StoreError: missing or unreadable; `what` says what the file is.
    """
    try:
        return remote.read(path) if is_remote(path) else path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{what} {str(path)!r} is missing") from error
    except OSError as error:
        raise _failed(f"{what} {str(path)!r} cannot be read", error, path) from error


def read_many(paths: Sequence[Path], what: str) -> list[bytes]:
    """The bytes of each of `paths`, in their order; behind a URL many are fetched at once.

    Raises:
        StoreError: as `read`, of the first that fails.
    """
    if not any(is_remote(path) for path in paths):
        return [read(path, what) for path in paths]
    return together(lambda path: read(path, what), paths)


def read_each(paths: Sequence[Path], what: str) -> Iterator[bytes]:
    """`read_many` with memory for 64 files at a time (for one where they are local).

    Raises:
        StoreError: as `read`, of the first that fails.
    """
    step = _AT_A_TIME if paths and is_remote(paths[0]) else 1
    for start in range(0, len(paths), step):
        yield from read_many(paths[start : start + step], what)


def names(folder: Path, suffix: str = "", *, hidden: bool = False) -> list[str]:
    """Names of what is in `folder` and ends with `suffix`, sorted; empty when there is no folder.

    Args:
        hidden: those that begin with a dot too (temporary files).

    Raises:
        StoreError: the folder cannot be listed.
    """
    try:
        # A Path for each of thousands of names would take longer than the listing.
        listed = remote.names(folder) if is_remote(folder) else os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _failed(f"folder {str(folder)!r} cannot be listed", error, folder) from error
    return sorted(name for name in listed if name.endswith(suffix) and (hidden or not name.startswith(".")))


def stamp(folder: Path) -> int | None:
    """A number that changes whenever a name comes into or goes from `folder`; None where only a listing can tell.

    That is: behind a URL, without a folder, and for two seconds after a change, as the next one may get the same time.
    """
    if is_remote(folder):
        return None
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return None
    return changed if time.time_ns() - changed > _SETTLE_NS else None


def exists(path: Path) -> bool:
    """Whether there is a file or folder at `path`.

    Raises:
        StoreError: that cannot be found out.
    """
    return _looked(path, lambda: remote.exists(path) if is_remote(path) else path.exists())


def is_dir(path: Path) -> bool:
    """Whether `path` is a folder, through links too; behind a URL: whether anything lies below it.

    Raises:
        StoreError: that cannot be found out.
    """
    return _looked(path, lambda: remote.is_dir(path) if is_remote(path) else path.is_dir())


def is_link(path: Path) -> bool:
    """Whether `path` is a symbolic link; nothing behind a URL is."""
    return not is_remote(path) and path.is_symlink()


def size(path: Path) -> int:
    """Bytes of the file at `path` (of the link, where it is one).

    Raises:
        FileNotFoundError: it is gone.
        StoreError: that cannot be found out.
    """
    return _looked(path, lambda: remote.size(path) if is_remote(path) else path.lstat().st_size)


def age_s(path: Path) -> float:
    """Seconds since `path` was last written, by this machine's clock; 0 where nobody knows.

    Raises:
        FileNotFoundError: it is gone.
        StoreError: that cannot be found out.
    """
    return _looked(path, lambda: remote.age_s(path) if is_remote(path) else time.time() - path.lstat().st_mtime)


def remove(path: Path) -> None:
    """Delete one file; one that is already gone is fine.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        if is_remote(path):
            remote.remove(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(f"cannot delete {str(path)!r}", error, path) from error


def unfinished_uploads(root: Path) -> list[Upload]:
    """Multipart uploads below `root` that were begun and not completed; none below a local folder.

    Raises:
        StoreError: they cannot be listed.
    """
    return _looked(root, lambda: uploads.unfinished(root)) if is_remote(root) else []


def abort_upload(path: Path, upload_id: str) -> None:
    """Have the server forget an upload; one that is gone is fine.

    Raises:
        StoreError: it cannot be aborted.
    """
    if is_remote(path):
        _looked(path, lambda: uploads.abort(path, upload_id))


def checksum(path: Path) -> tuple[str, int]:
    """Hex sha256 and size of the bytes at `path`, read anew; no cache is asked.

    Raises:
        FileNotFoundError: it is missing.
        StoreError: it cannot be read.
    """
    if is_remote(path):
        return _looked(path, lambda: objectcache.read_anew(path))
    return _looked(path, lambda: (sha256_file(path), path.stat().st_size))


def fetch(path: Path, sha256: str, *, again: bool = False) -> Path:
    """A local file with the bytes of `path`, for libraries that read files: `path` itself where it is local.

    Behind a URL: a copy in the user's cache folder, whose bytes hash to `sha256`. A local `path` is not hashed here.
    The copy may be removed when others are fetched, ten minutes from now at the earliest: open it soon, an open file
    stays readable.

    Args:
        again: drop the copy that is there, which was found to be damaged.

    Raises:
        FileNotFoundError: it is missing.
        StoreError: it cannot be read, or its bytes hash to something else.
    """
    if not is_remote(path):
        return path
    if again:
        objectcache.forget(sha256)
    return _looked(path, lambda: objectcache.fetch(path, sha256))


def fetch_many(wanted: Sequence[tuple[Path, str, int]]) -> None:
    """`fetch` of (path, sha256, bytes) side by side, of as many from the first on as half the room for copies holds.

    Raises:
        StoreError: one is missing or unreadable, or its bytes hash to something else.
    """
    room, some = objectcache.limit_bytes() // 2, []
    for path, sha256, size in wanted:
        room -= size
        if room < 0:
            break
        some.append((path, sha256))
    try:
        together(lambda pair: fetch(*pair), some)
    except FileNotFoundError as error:
        raise StoreError(f"{str(error.filename)!r} is missing", hint="run vqa-train store verify") from error


def cache_folder(folder: Path, name: str) -> Path:
    """Where files derived from those in `folder` are kept: `folder / name`, or for a URL a folder in the user's cache.

    Always a local folder; it need not exist yet.
    """
    return objectcache.derived(folder, name) if is_remote(folder) else folder / name


def _looked(path: Path | UPath, look: Callable[[], T]) -> T:
    """`look()`, its OSErrors as StoreErrors, but for a file that is not there."""
    try:
        return look()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed(f"{str(path)!r} cannot be read", error, path) from error


def _failed(what: str, error: OSError, path: Path | UPath, mend: str | None = None) -> StoreError:
    hint = remote.hint(error, path) if is_remote(path) else None
    return StoreError(f"{what}: {error.strerror or error}", hint=hint or mend)

"""Local files for remote videos while they are decoded: bounded in bytes over all processes, gone after a crash too."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_train.core import remote
from vqa_train.core.files import locked
from vqa_train.core.hashcache import cache_dir

if TYPE_CHECKING:
    from upath import UPath

FOLDER_VARIABLE = "VQA_TRAIN_SPOOL"
LIMIT_VARIABLE = "VQA_TRAIN_SPOOL_BYTES"
DEFAULT_LIMIT = 16 << 30
_LOOK_AGAIN_S = 0.2
_LOCK = ".lock"


def folder() -> Path:
    """Where spooled files are: $VQA_TRAIN_SPOOL, else `spool` in the user's cache folder."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else cache_dir() / "spool"


def limit_bytes() -> int:
    """Bytes that the spooled files of all processes may take: $VQA_TRAIN_SPOOL_BYTES, else 16 GiB."""
    try:
        return max(0, int(os.environ[LIMIT_VARIABLE]))
    except (KeyError, ValueError):
        return DEFAULT_LIMIT


def fits(size: int) -> bool:
    """Whether a file of `size` bytes may be spooled at all."""
    return size <= limit_bytes()


@contextmanager
def spooled(path: UPath, size: int, *, waited: Callable[[], None] = lambda: None) -> Iterator[tuple[Path, str]]:
    """A local copy of the `size` bytes at `path` and their sha256; it is removed at the end.

    Waits while the files of this and other processes leave no room. What a killed process left is removed by whoever
    spools next: a file belongs to a process as long as that holds its lock.

    Args:
        waited: called each time there was no room yet.

    Raises:
        OSError: the object cannot be read, or the disk is full.
    """
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    local = place / f"{uuid.uuid4().hex}{path.suffix}"
    handle = _reserve(local, size, waited)
    try:
        digest = hashlib.sha256()
        with os.fdopen(os.dup(handle), "r+b") as file:
            for chunk in remote.chunks(path, size):
                digest.update(chunk)
                file.write(chunk)
        yield local, digest.hexdigest()
    finally:
        local.unlink(missing_ok=True)
        os.close(handle)


def _reserve(local: Path, size: int, waited: Callable[[], None]) -> int:
    """A new file of `size` bytes (not yet on the disk), locked by its descriptor."""
    while True:
        with locked(local.parent / _LOCK):
            sizes = _in_use(local.parent)
            if not sizes or sum(sizes) + size <= limit_bytes():
                handle = os.open(local, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
                os.truncate(handle, size)
                return handle
        waited()
        time.sleep(_LOOK_AGAIN_S)


def _in_use(place: Path) -> list[int]:
    """Bytes of each file that a living process holds; the others are removed."""
    sizes = []
    for path in place.iterdir():
        if path.name == _LOCK:
            continue
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                sizes.append(os.fstat(handle).st_size)
            finally:
                os.close(handle)
    return sizes


def sweep() -> None:
    """Remove what killed processes left."""
    place = folder()
    if place.is_dir():
        with locked(place / _LOCK):
            _in_use(place)

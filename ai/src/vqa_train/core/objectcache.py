"""Local copies of remote objects, named by the sha256 of their bytes; the least recently used make room for others."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_train.core import remote
from vqa_train.core.files import atomic_write_bytes, atomic_write_json, confined, locked
from vqa_train.core.hashcache import cache_dir
from vqa_train.core.hashing import sha256_bytes, sha256_file

if TYPE_CHECKING:
    from upath import UPath

LIMIT_VARIABLE = "VQA_TRAIN_CACHE_BYTES"
DEFAULT_LIMIT = 20 << 30
# A copy that was just handed out may not be open yet.
_KEEP_S = 600.0
_ABANDONED_S = 86400.0
_ATTEMPTS = 3
_TEMPORARY = ".part"
_USED = ".used"


class DamagedObjectError(OSError):
    """The bytes of an object are not those that were asked for, each time it was read.

    Attributes:
        sha256: of what is there.
        size: bytes of what is there.
    """

    def __init__(self, path: str, sha256: str, size: int) -> None:
        super().__init__(None, f"its bytes have sha256 {sha256[:12]}", path)
        self.sha256 = sha256
        self.size = size


def folder() -> Path:
    """Where the copies are, in the user's cache folder."""
    return cache_dir() / "objects"


def derived(place: UPath, name: str) -> Path:
    """A local folder for files derived from what lies at `place`."""
    return cache_dir() / "derived" / f"{place.name}-{sha256_bytes(str(place).encode())[:16]}" / name


def limit_bytes() -> int:
    """Bytes that the copies may take: $VQA_TRAIN_CACHE_BYTES, else 20 GiB."""
    try:
        return max(0, int(os.environ[LIMIT_VARIABLE]))
    except (KeyError, ValueError):
        return DEFAULT_LIMIT


def fetch(path: UPath, sha256: str) -> Path:
    """A local file whose bytes hash to `sha256`: the copy that is there, else a new one of `path`.

    A copy is hashed when it is made. It stays at least ten minutes after it was last asked for.

    Raises:
        DamagedObjectError: the object has other bytes.
        OSError: it cannot be read, or the disk is full.
    """
    copy = _place(sha256)
    if copy.exists():
        _mark(copy)
        return copy
    for attempt in range(_ATTEMPTS):
        found, size = read_anew(path)
        if found == sha256:
            return copy
        if attempt == _ATTEMPTS - 1:
            raise DamagedObjectError(str(path), found, size)
    raise AssertionError("unreachable")


def forget(sha256: str) -> None:
    """Remove a copy that was found to be damaged."""
    _place(sha256).unlink(missing_ok=True)


def read_anew(path: UPath) -> tuple[str, int]:
    """sha256 and size of the object's bytes, all of them read; they become the copy of that hash.

    Raises:
        OSError: it cannot be read, or the disk is full.
    """
    folder().mkdir(parents=True, exist_ok=True)
    temporary = folder() / f"{uuid.uuid4().hex}{_TEMPORARY}"
    try:
        remote.download(path, temporary)
        digest, size = sha256_file(temporary), temporary.stat().st_size
        copy = _place(digest)
        copy.parent.mkdir(exist_ok=True)
        _mark(copy)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
    _make_room(size)
    return digest, size


def _place(sha256: str) -> Path:
    return folder() / sha256[:2] / sha256


def _mark(copy: Path) -> None:
    """Note that `copy` is used now; in a file beside it, since its own times tell whether it has changed."""
    with suppress(OSError):
        copy.with_name(copy.name + _USED).touch()


class _Grown:
    """Bytes added by this process since the folder was last looked through."""

    bytes = -1


def _make_room(added: int) -> None:
    """Look through the copies when enough has been added since this process last did."""
    limit = limit_bytes()
    _Grown.bytes += added
    if added <= _Grown.bytes <= limit // 20:
        return
    _Grown.bytes = 0
    clean(limit)


def clean(limit: int, *, keep_s: float = _KEEP_S) -> int:
    """Remove the least recently used copies until the rest takes at most `limit` bytes; how many were removed.

    Copies used in the last `keep_s` seconds stay. Parts of downloads that died a day ago are removed too.
    """
    now, removed = time.time(), 0
    for part in folder().glob(f"*{_TEMPORARY}"):
        with suppress(OSError):
            if now - part.stat().st_mtime > _ABANDONED_S:
                part.unlink()
    copies = sorted(_copies())
    total = sum(size for _, size, _ in copies)
    for used, size, copy in copies:
        if total <= limit or now - used < keep_s:
            break
        with suppress(OSError):
            copy.unlink()
            copy.with_name(copy.name + _USED).unlink(missing_ok=True)
            total, removed = total - size, removed + 1
    return removed


def _copies() -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of every copy."""
    for shelf in folder().glob("??"):
        for copy in shelf.iterdir():
            if copy.suffix != _USED:
                with suppress(OSError):
                    found = copy.stat()
                    mark = copy.with_name(copy.name + _USED)
                    used = mark.stat().st_mtime if mark.exists() else found.st_mtime
                    yield used, found.st_size, copy


def mirror(place: UPath, local: Path) -> Path:
    """Bring the local folder `local` up to date with the small files below `place`; what went there goes here.

    A file is fetched when its size or entity tag is not that of the last time. An empty folder where nothing is there.

    Raises:
        OSError: it cannot be read, or the disk is full.
    """
    listing = remote.find(place) if remote.exists(place) else {}
    local.mkdir(parents=True, exist_ok=True)
    with _notes(local) as notes:
        for name, listed in listing.items():
            file = confined(local, name)
            if notes.get(name, ("", ""))[0] != listed.state or not file.exists():
                data = remote.read(place / name)
                atomic_write_bytes(file, data)
                notes[name] = (listed.state, sha256_bytes(data))
        for name in notes.keys() - listing.keys():
            confined(local, name).unlink(missing_ok=True)
            del notes[name]
    return local


def publish(local: Path, place: UPath, *, last: tuple[str, ...] = ()) -> None:
    """Put what was changed in `local` since its `mirror` below `place`, and remove there what was removed here.

    What others put there meanwhile stays. Files whose names end in one of `last` are written after the others, which
    they may name, and before removals.

    Raises:
        OSError: forbidden, not answering.
    """
    with _notes(local) as notes:
        names = [path.relative_to(local).as_posix() for path in local.rglob("[!.]*") if path.is_file()]
        for name in sorted(names, key=lambda name: (name.endswith(last), name)):
            data = (local / name).read_bytes()
            if notes.get(name, ("", ""))[1] != sha256_bytes(data):
                remote.write(place / name, data)
                notes[name] = (remote.state(place / name), sha256_bytes(data))
        for name in notes.keys() - set(names):
            remote.remove(place / name)
            del notes[name]


@contextmanager
def _notes(local: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """State and sha256 of each mirrored file, to be changed; one process at a time."""
    path = local.parent / f"{local.name}.json"
    with locked(local.parent / f"{local.name}.lock"):
        known = json.loads(path.read_bytes()) if path.exists() else {}
        notes = {name: (state, digest) for name, (state, digest) in known.items()}
        yield notes
        atomic_write_json(path, {name: list(notes[name]) for name in sorted(notes)})

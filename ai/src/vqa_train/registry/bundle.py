"""Bundles: one model with all its files as a `.tar.zst` archive of the same bytes each time, and safe unpacking."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol, cast

from vqa_train.core.errors import ModelError
from vqa_train.core.files import fsync_dir
from vqa_train.core.hashcache import HashCache, cache_dir
from vqa_train.registry.registry import REGISTRY_FILE

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=,-]{0,199}")
_DEEPEST = 5
_MOST_FILES = 1000
_MOST_BYTES = 64 << 30
# Weights hardly shrink; an archive that grows like this was made to fill the disk.
_MOST_GROWTH, _FREE_GROWTH = 200, 64 << 20
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_LEVEL = 3
_ABANDONED_S = 86400.0


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def check_name(name: str) -> str:
    """`name`, refused where it could leave a bundle's folder or mean different files on different systems.

    Raises:
        ModelError: not one to five parts of letters, digits and `. _ + @ = , -`, or a part that begins with a dot.
    """
    parts = name.split("/")
    if len(parts) > _DEEPEST or not all(_NAME.fullmatch(part) for part in parts):
        raise ModelError(
            f"a bundle cannot hold a file named {name[:200]!r}", hint="names are those that a model's registry has"
        )
    return name


def pack(archive: IO[bytes], files: Mapping[str, Path | bytes]) -> dict[str, str]:
    """Write a `.tar.zst` of `files` (name in the archive -> file or its bytes) to `archive`.

    The bytes depend on names and contents alone: entries are sorted, with no times, owners or permissions.

    Returns:
        Name -> sha256 of what was packed.

    Raises:
        ModelError: a name that a bundle cannot hold, or a file over 8 GiB.
        OSError: a file cannot be read, or the archive not written.
    """
    from backports import zstd

    hashes = {}
    with zstd.ZstdFile(archive, "w", level=_LEVEL) as stream:
        for name in sorted(files):
            content = files[name]
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            stream.write(_header(check_name(name), size))
            hashes[name] = _copy(content, stream, size)
            stream.write(bytes(-size % _BLOCK))
        stream.write(bytes(2 * _BLOCK))
    return hashes


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    try:
        return entry.tobuf(tarfile.USTAR_FORMAT)
    except ValueError as error:
        raise ModelError(
            f"file {name!r} of {size} bytes does not fit an archive: {error}", hint="export the bundle as a folder"
        ) from error


def _copy(content: Path | bytes, stream: _Writer, size: int) -> str:
    digest = hashlib.sha256()
    if isinstance(content, bytes):
        stream.write(content)
        digest.update(content)
        return digest.hexdigest()
    with content.open("rb") as handle:
        while piece := handle.read(_PIECE):
            size -= len(piece)
            digest.update(piece)
            stream.write(piece)
    if size:
        raise ModelError(f"file {str(content)!r} changed while it was packed")
    return digest.hexdigest()


def unpacked(path: Path) -> Path:
    """The folder of a `.tar.zst` bundle, unpacked once per machine into the cache under the sha256 of its bytes.

    Files appear all at once, whole; a process that dies leaves nothing that another would take. What is in them is
    verified by whoever opens the model.

    Returns:
        A registry folder: `registry.json`, `NAME/VERSION/`, `onnx/`.

    Raises:
        ModelError: there is no such file, or it is no bundle: links, devices, names that leave the folder, over 1000
            files or 64 GiB, more than 200 times its own size, cut off.
        OSError: the cache cannot be written.
    """
    try:
        with HashCache() as hashes:
            sha256 = hashes.sha256(path)
    except OSError as error:
        raise ModelError(f"bundle {str(path)!r} cannot be read: {error.strerror}") from error
    shelf = cache_dir() / "bundles"
    target = shelf / sha256
    if (target / REGISTRY_FILE).is_file():
        return target
    shelf.mkdir(parents=True, exist_ok=True)
    _clean(shelf)
    temporary = shelf / f".{sha256[:12]}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.mkdir()
        with path.open("rb") as archive:
            found = unpack(archive, temporary, archive_bytes=path.stat().st_size)
        if found != sha256:
            raise ModelError(f"bundle {str(path)!r} changed while it was unpacked", hint="run the command again")
        if not (temporary / REGISTRY_FILE).is_file():
            raise ModelError(f"{str(path)!r} is no bundle: it has no {REGISTRY_FILE}")
        try:
            temporary.rename(target)
        except OSError:
            # Another process was faster, with the same bytes.
            if not (target / REGISTRY_FILE).is_file():
                raise
        fsync_dir(shelf)
    except ModelError as error:
        raise ModelError(f"bundle {str(path)!r}: {error.message}", hint=error.hint) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def unpack(archive: IO[bytes], folder: Path, *, archive_bytes: int) -> str:
    """Unpack a `.tar.zst` into the empty folder `folder`; the sha256 of the archive's bytes.

    Args:
        archive_bytes: its size, which bounds what it may unpack to.

    Raises:
        ModelError: see `unpacked`.
        OSError: `folder` cannot be written.
    """
    from backports import zstd

    hashed = _Hashed(archive)
    stream = zstd.ZstdFile(cast(IO[bytes], hashed), "r")
    budget = min(_MOST_BYTES, _MOST_GROWTH * archive_bytes + _FREE_GROWTH)
    seen: set[str] = set()
    try:
        while (entry := _next(stream)) is not None:
            budget -= entry.size + _BLOCK
            if budget < 0 or len(seen) >= _MOST_FILES:
                raise ModelError(
                    f"it unpacks to over {_MOST_GROWTH} times its size, {_MOST_BYTES >> 30} GiB or {_MOST_FILES} files",
                    hint="it is damaged or made to fill the disk; get it from who made it",
                )
            name = check_name(entry.name)
            if name.lower() in seen:
                raise ModelError(f"it has {name!r} twice")
            seen.add(name.lower())
            _extract(stream, entry.size, folder / name)
        # Archivers fill the last block with zeros.
        if stream.read(_PIECE).strip(b"\0") or stream.read(1):
            raise ModelError("it goes on after its end")
        hashed.drain()
    except (zstd.ZstdError, EOFError) as error:
        raise ModelError(f"it is no zstd archive, or damaged: {str(error)[:200]}") from error
    for place in {folder, *(path.parent for path in folder.rglob("*"))}:
        fsync_dir(place)
    return hashed.hexdigest()


class _Hashed:
    """Reads an archive and hashes what is read."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._handle.read(size)
        self._digest.update(data)
        return data

    def drain(self) -> None:
        while self.read(_PIECE):
            pass

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _next(stream: _Reader) -> tarfile.TarInfo | None:
    """The next entry, a plain file; None at the end."""
    block = _exactly(stream, _BLOCK)
    if block == bytes(_BLOCK):
        return None
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, UnicodeDecodeError) as error:
        raise ModelError(f"it holds no tar archive, or a damaged one: {error}") from error
    # Extended headers too, which carry names and sizes of any length: a bundle has no use for them.
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ModelError(
            f"its entry {entry.name[:200]!r} is a link, device, folder or extended header, not a plain file",
            hint="`vqa-train models export-bundle` makes bundles",
        )
    if entry.size < 0:
        raise ModelError(f"its entry {entry.name[:200]!r} has a negative size")
    return entry


def _extract(stream: _Reader, size: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as handle:
        left = size
        while left:
            piece = _exactly(stream, min(left, _PIECE))
            handle.write(piece)
            left -= len(piece)
        handle.flush()
        os.fsync(handle.fileno())
    _exactly(stream, -size % _BLOCK)


def _exactly(stream: _Reader, size: int) -> bytes:
    pieces = b""
    while len(pieces) < size:
        piece = stream.read(size - len(pieces))
        if not piece:
            raise ModelError("it is cut off", hint="fetch it again")
        pieces += piece
    return pieces


def _clean(shelf: Path) -> None:
    """Remove what processes that died a day ago had begun to unpack."""
    for left in shelf.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)

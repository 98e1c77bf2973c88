"""Durable, atomic writes and paths that stay inside their root."""

from __future__ import annotations

import errno
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from vqa_train.core import remote
from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.locations import is_remote

if TYPE_CHECKING:
    from upath import UPath

_NUMBERS = re.compile(r"\[\n((?:\s*(?:-?[0-9][0-9.eE+-]*|null),?\n)+)\s*\]")


def fsync_dir(path: Path) -> None:
    """Make renames in `path` durable (no-op where folders cannot be opened)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Call `write` on a temporary file beside `path`, fsync it, rename it into place, fsync the folder.

    After a crash at any byte `path` is either as it was or complete. The temporary file is removed on error.

    Raises:
        OSError: the disk is full, the folder is read-only, ...; `path` is then unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with temporary.open("xb") as handle:
            write(handle)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_dir(path.parent)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """`atomic_write` of `data`."""
    atomic_write(path, lambda handle: _write_all(handle, data))


def atomic_write_json(path: Path, value: Any, *, numbers_inline: bool = False) -> None:
    """`atomic_write` of indented JSON with a final newline; NaN and infinity are refused.

    Args:
        numbers_inline: a list of nothing but numbers and null takes one line, not a line for each.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if numbers_inline:
        # Inside a text a line break is escaped, so only lists match.
        text = _NUMBERS.sub(lambda found: "[" + ", ".join(found[1].replace(",", " ").split()) + "]", text)
    atomic_write_bytes(path, text.encode("utf-8"))


def _write_all(handle: IO[bytes], data: bytes) -> None:
    handle.write(data)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path` for a read-modify-write; another process waits. A crash releases it.

    Raises:
        OSError: the file cannot be made.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def confined(root: Path, relative: str) -> Path:
    """`root / relative`, refused when it is absolute or leaves `root` (by `..` or through a symbolic link).

    Raises:
        VqaError: with reason `path_escape`.
        OSError: a loop of symbolic links.
    """
    if is_remote(root):
        return _confined_remote(root, relative)
    candidate = root / relative
    if Path(relative).is_absolute() or "\x00" in relative or not _resolves_inside(candidate, root):
        raise _escape(root, relative)
    return candidate


def _confined_remote(root: UPath, relative: str) -> Path:
    """Behind a URL there are no links: the name alone decides."""
    parts = relative.split("/")
    if relative.startswith("/") or "\x00" in relative or "://" in relative or ".." in parts:
        raise _escape(root, relative)
    for part in parts:
        root = root / part if part not in ("", ".") else root
    return cast(Path, root)


def _escape(root: Path | UPath, relative: str) -> VqaError:
    return VqaError(
        f"path {relative!r} leaves its root {str(root)!r}",
        hint="paths in manifests are relative and stay inside the data root",
        reason=Reason.PATH_ESCAPE,
    )


def _resolves_inside(candidate: Path, root: Path) -> bool:
    try:
        return candidate.resolve().is_relative_to(root.resolve())
    except RuntimeError as error:  # Python up to 3.12 says so of a loop of symbolic links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(candidate)) from error


def read_bytes(path: Path) -> bytes:
    """The bytes of a local file or of an object behind a URL.

    Raises:
        OSError: missing or unreadable.
    """
    return remote.read(path) if is_remote(path) else path.read_bytes()


def is_file(path: Path) -> bool:
    """Whether there is a file at `path`, or an object behind a URL.

    Raises:
        OSError: the service behind the URL does not say.
    """
    if not is_remote(path):
        return path.is_file()
    found = remote.info(path)
    return found is not None and found["type"] == "file"


def is_dir(path: Path) -> bool:
    """Whether `path` is a folder; behind a URL: whether anything lies below it.

    Raises:
        OSError: the service behind the URL does not say.
    """
    return remote.is_dir(path) if is_remote(path) else path.is_dir()


def size_of(path: Path) -> int:
    """Bytes of a local file or of an object behind a URL.

    Raises:
        OSError: it is gone, or the service does not say.
    """
    return remote.size(path) if is_remote(path) else path.stat().st_size


def display_path(path: Path) -> str:
    """`path` for artefacts: relative to the working folder where possible, home folder shown as ~; a URL as it is."""
    if is_remote(path):
        return str(path)
    absolute = path.absolute()
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if absolute.is_relative_to(base):
            return prefix + absolute.relative_to(base).as_posix()
    return absolute.as_posix()

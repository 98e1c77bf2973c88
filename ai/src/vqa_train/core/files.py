"""Durable, atomic writes and paths that stay inside their root."""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vqa_train.core.errors import Reason, VqaError


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


def atomic_write_json(path: Path, value: Any) -> None:
    """`atomic_write` of indented JSON with a final newline; NaN and infinity are refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
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
    candidate = root / relative
    if Path(relative).is_absolute() or "\x00" in relative or not _resolves_inside(candidate, root):
        raise VqaError(
            f"path {relative!r} leaves its root {str(root)!r}",
            hint="paths in manifests are relative and stay inside the data root",
            reason=Reason.PATH_ESCAPE,
        )
    return candidate


def _resolves_inside(candidate: Path, root: Path) -> bool:
    try:
        return candidate.resolve().is_relative_to(root.resolve())
    except RuntimeError as error:  # Python up to 3.12 says so of a loop of symbolic links
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(candidate)) from error


def display_path(path: Path) -> str:
    """`path` for artefacts: relative to the working folder where possible, home folder shown as ~."""
    absolute = path.absolute()
    for base, prefix in ((Path.cwd(), ""), (Path.home(), "~/")):
        if absolute.is_relative_to(base):
            return prefix + absolute.relative_to(base).as_posix()
    return absolute.as_posix()

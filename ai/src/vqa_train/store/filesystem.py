"""The only place where the store touches the file system: durable whole-file writes, reads, listings, removals."""

from __future__ import annotations

import time
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.core.files import atomic_write_bytes, fsync_dir


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`, durably: after a crash at any byte the file is whole or not there.

    Raises:
        StoreError: the disk is full, read-only, failing, ...; nothing is left at `path` but what was there before.
    """
    try:
        make_folder(path.parent)
        atomic_write_bytes(path, data)
    except OSError as error:
        raise StoreError(
            f"cannot write {str(path)!r}: {error.strerror or error}",
            hint="mend that and run again; everything committed so far is kept",
        ) from error


def make_folder(path: Path) -> None:
    """Create `path` and its parents, durably.

    Raises:
        OSError: it cannot be created.
    """
    if path.is_dir():
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
        return path.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{what} {str(path)!r} is missing") from error
    except OSError as error:
        raise StoreError(f"{what} {str(path)!r} cannot be read: {error.strerror or error}") from error


def names(folder: Path, suffix: str = "") -> list[str]:
    """Names in `folder` that end with `suffix`, sorted, without temporary files; empty when there is no folder.

    Raises:
        StoreError: the folder cannot be listed.
    """
    try:
        return sorted(p.name for p in folder.iterdir() if p.name.endswith(suffix) and not p.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"folder {str(folder)!r} cannot be listed: {error.strerror or error}") from error


def age_s(path: Path) -> float:
    """Seconds since `path` was last written."""
    return time.time() - path.lstat().st_mtime


def remove(path: Path) -> None:
    """Delete one file; one that is already gone is fine.

    Raises:
        StoreError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot delete {str(path)!r}: {error.strerror or error}") from error

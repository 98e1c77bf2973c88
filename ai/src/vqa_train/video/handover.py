"""Frames from worker to parent through files in shared memory, which do not outlive either, however it dies."""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqa_train.core.errors import MediaError, Reason, VqaError
from vqa_train.core.files import display_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_PREFIX = "vqa-train-"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # memory shared between processes is what is wanted here


def _bases() -> list[Path]:
    """Where folders are made: shared memory, then the temporary folder for when that is small (containers)."""
    temporary = Path(tempfile.gettempdir())
    return [_SHARED_MEMORY, temporary] if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else [temporary]


class Exchange:
    """The parent's side: folders that workers put frames into, locked as long as this process lives.

    Folders left by processes that were killed are swept when a new Exchange is made; a lock, not a process id,
    tells whether one is in use, so processes in other containers are safe.
    """

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self._locks: list[int] = []
        for base in _bases():
            _sweep(base)
            name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            hidden, folder = base / f".{name}", base / name
            hidden.mkdir(mode=0o700)
            lock = os.open(hidden, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            # It gets its name once it is locked: another process's sweep never finds it unlocked.
            hidden.rename(folder)
            self.folders.append(folder)
            self._locks.append(lock)

    def take(self, name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
        """The frames that a worker left under `name`; the file is gone at once, its memory with the last array.

        Raises:
            VqaError: there is no such file.
            ValueError: `name` leads elsewhere.
        """
        if not name or Path(name).name != name:
            raise ValueError(f"{name!r} names no file of a worker")
        path = next((path for folder in self.folders if (path := folder / name).exists()), None)
        if path is None:
            raise VqaError(f"decoded frames {name!r} are gone from {display_path(self.folders[0])}")
        with path.open("r+b") as handle:
            path.unlink()
            return _mapped(handle.fileno(), shape)

    def discard(self, prefix: str) -> None:
        """Remove what a dead worker left."""
        for folder in self.folders:
            for path in folder.glob(f"{prefix}*"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the folders; arrays taken stay valid."""
        for folder, lock in zip(self.folders, self._locks, strict=True):
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
        self.folders, self._locks = [], []


def _sweep(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def share(folders: Sequence[Path], name: str, shape: Sequence[int]) -> NDArray[np.uint8]:
    """The worker's side: an array backed by a new file `name` in the first folder with room.

    Raises:
        MediaError: OUT_OF_MEMORY, none has room.
    """
    size = _bytes(shape)
    for folder in folders:
        path = folder / name
        try:
            with path.open("x+b") as handle:
                handle.truncate(size)
                if hasattr(os, "posix_fallocate"):
                    # Without it a full tmpfs would show as SIGBUS when a page is first written.
                    os.posix_fallocate(handle.fileno(), 0, size)
                return _mapped(handle.fileno(), shape)
        except OSError:
            path.unlink(missing_ok=True)
    raise MediaError(f"no room for {size >> 20} MiB of frames in shared memory", reason=Reason.OUT_OF_MEMORY)


def _bytes(shape: Sequence[int]) -> int:
    # An empty file cannot be mapped.
    return max(1, math.prod(shape))


def _mapped(file: int, shape: Sequence[int]) -> NDArray[np.uint8]:
    return np.frombuffer(mmap.mmap(file, _bytes(shape)), np.uint8, math.prod(shape)).reshape(shape)

"""Brings a remote video to where decoders can read it: a spooled local copy, or ranged reads where it is too large."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vqa_train.core import remote, spool
from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.files import display_path
from vqa_train.core.locations import is_remote

if TYPE_CHECKING:
    from upath import UPath

    from vqa_train.video.job import DecodeJob

_BLOCKS = 8


@contextmanager
def at_hand(job: DecodeJob, sized: Callable[[int], None]) -> Iterator[DecodeJob]:
    """`job` with a path that can be decoded; errors about a local copy name the URL.

    A video is copied into the spool and hashed on the way: probing and decoding read every byte twice, which a network
    should carry once. One that is larger than the whole spool stays where it is and is read in ranges.

    Args:
        job: the file. Where it is local it is yielded as it is.
        sized: told the bytes of a remote video, also each time that it waits for room in the spool.

    Raises:
        MediaError: MISSING_FILE, UNREADABLE, EMPTY_FILE, or CHECKSUM_MISMATCH.
    """
    path = job.path
    if not is_remote(path):
        yield job
        return
    size = _size(path)
    sized(size)
    if not spool.fits(size):
        yield job
        return
    with spool.spooled(path, size, waited=lambda: sized(size)) as (local, sha256):
        if job.key and sha256 != job.key:
            raise MediaError(
                f"{str(path)!r} has sha256 {sha256[:12]}..., expected {job.key[:12]}...",
                hint="restore the object, or scan the dataset again if the change is meant",
                reason=Reason.CHECKSUM_MISMATCH,
            )
        try:
            yield replace(job, key=sha256, path=local, verify=False)
        except MediaError as error:
            message = error.message.replace(display_path(local), str(path))
            raise MediaError(message, hint=error.hint, reason=error.reason) from error


def _size(path: UPath) -> int:
    try:
        size = remote.size(path)
    except FileNotFoundError as error:
        raise MediaError(f"{str(path)!r} does not exist", reason=Reason.MISSING_FILE) from error
    except OSError as error:
        problem = f"{str(path)!r} cannot be read: {error.strerror or error}"
        raise MediaError(problem, hint=remote.hint(error, path), reason=Reason.UNREADABLE) from error
    if size == 0:
        raise MediaError(f"{str(path)!r} is empty (0 bytes)", reason=Reason.EMPTY_FILE)
    return size


class RangedFile(io.RawIOBase):
    """A remote object as a file that can be read and sought in; the last eight blocks of 8 MiB are kept.

    Raises:
        OSError: from `read`, when a range cannot be had.
    """

    def __init__(self, path: UPath) -> None:
        super().__init__()
        self._path = path
        self._size = remote.size(path)
        self._position = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; nothing is read yet."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes, fewer at the end of a block, none at the end."""
        if self._position >= self._size or size == 0:
            return b""
        number, offset = divmod(self._position, remote.CHUNK)
        stop = None if size is None or size < 0 else offset + size
        data = self._block(number)[offset:stop]
        self._position += len(data)
        return data

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * remote.CHUNK
            self._blocks[number] = remote.range_of(self._path, start, min(start + remote.CHUNK, self._size))
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

"""Reads and writes rows of a raw row-major file by position, with memory for what is asked for and no more."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa_train.core.errors import StoreError

State = Literal["made", "reused", "remade"]


class MappedMatrix:
    """N rows of one feature in a file. Reads copy into fresh arrays, so resident memory does not grow with the file.

    The file is kept open: deleting it (`store gc --delete`) does not disturb who reads it. Threads may share one.

    Attributes:
        path: the raw file, row-major, little-endian.
        shape: (N, D), or (N, T, D) for an output over time.
        dtype: float16 or float32.
        state: `made` or `reused`, or `remade` where the file that was there was damaged or not what its name says.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], state: State = "reused") -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise StoreError(f"matrix {str(path)!r} cannot be read: {error.strerror}") from error
        self._setup(descriptor, path, shape, dtype, state)
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of_descriptor(cls, descriptor: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> MappedMatrix:
        """A matrix in a file that the caller opened and closes."""
        matrix = cls.__new__(cls)
        matrix._setup(descriptor, Path(f"descriptor {descriptor}"), shape, dtype, "made")
        return matrix

    def _setup(self, descriptor: int, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], state: State) -> None:
        self._descriptor = descriptor
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self.state = state
        self._row_bytes = dtype.itemsize * int(np.prod(shape[1:]))

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"MappedMatrix({str(self.path)!r}, shape={self.shape}, dtype={self.dtype}, state={self.state!r})"

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows `start` to `stop` - 1, (stop - start, D).

        Args:
            start, stop: rows.
            out: where to put them, contiguous, of that shape and this dtype; a fresh array where None.

        Raises:
            IndexError: not 0 <= start <= stop <= N.
            ValueError: `out` has another shape or dtype or is not contiguous.
            StoreError: the file cannot be read or was cut short.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"rows {start} to {stop} of a matrix of {len(self)} rows")
        shape = (stop - start, *self.shape[1:])
        block = np.empty(shape, dtype=self.dtype) if out is None else out
        if block.shape != shape or block.dtype != self.dtype or not block.flags.c_contiguous:
            raise ValueError(f"out must be contiguous, {self.dtype} {shape}, got {block.dtype} {block.shape}")
        self._fill(block, start)
        return block

    def rows(self, index: ArrayLike) -> NDArray[Any]:
        """The rows `index` (any order, repeats allowed), (len(index), D); neighbours are read together.

        Raises:
            IndexError: an index below 0 or above N - 1.
            StoreError: the file cannot be read or was cut short.
        """
        wanted = np.asarray(index, dtype=np.int64)
        distinct, inverse = np.unique(wanted, return_inverse=True)
        if len(distinct) and not 0 <= distinct[0] <= distinct[-1] < len(self):
            raise IndexError(f"rows {distinct[0]} to {distinct[-1]} of a matrix of {len(self)} rows")
        block = np.empty((len(distinct), *self.shape[1:]), dtype=self.dtype)
        for start, stop in runs(distinct):
            self._fill(block[start:stop], int(distinct[start]))
        return block if len(distinct) == len(wanted) and _ascending(wanted) else block[inverse]

    def as_array(self) -> np.memmap[Any, np.dtype[Any]]:
        """The whole matrix as a read-only memory map; pages that are touched count as resident memory."""
        return np.memmap(self.path, dtype=self.dtype, mode="r", shape=self.shape)

    def _fill(self, block: NDArray[Any], row: int) -> None:
        """Read into the contiguous `block` from row `row` on."""
        view = block.reshape(-1).view(np.uint8).data
        offset = row * self._row_bytes
        while len(view):
            try:
                count = os.preadv(self._descriptor, [view], offset)
            except OSError as error:
                raise StoreError(f"matrix {str(self.path)!r} cannot be read: {error.strerror}") from error
            if not count:
                raise StoreError(f"matrix {str(self.path)!r} was cut short", hint="delete it; it is made anew")
            view, offset = view[count:], offset + count


def write_at(descriptor: int, positions: NDArray[np.int64], values: NDArray[Any]) -> None:
    """Write the rows `values` at ascending `positions` of a raw file; neighbours are written together.

    Raises:
        OSError: the disk is full or failing.
    """
    values = np.ascontiguousarray(values)
    row_bytes = values.dtype.itemsize * int(np.prod(values.shape[1:]))
    for start, stop in runs(positions):
        view = values[start:stop].reshape(-1).view(np.uint8).data
        offset = int(positions[start]) * row_bytes
        while len(view):
            count = os.pwrite(descriptor, view, offset)
            view, offset = view[count:], offset + count


def runs(positions: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """(start, stop) of each run of ascending neighbours in `positions`."""
    if len(positions):
        edges = (np.flatnonzero(np.diff(positions) != 1) + 1).tolist()
        yield from zip([0, *edges], [*edges, len(positions)], strict=True)


def _ascending(index: NDArray[np.int64]) -> bool:
    return bool(np.all(np.diff(index) > 0))

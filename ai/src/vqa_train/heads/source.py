"""Where training reads features from: all inputs side by side, from memory or from mapped files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Ranges = Sequence[tuple[int, int]]


class MappedRows(Protocol):
    """Rows in a file, such as `store.matrix.MappedMatrix`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 or float32."""

    def read(self, start: int, stop: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows start to stop - 1, read into the contiguous `out` or into a fresh array."""


class FeatureRows:
    """The inputs of N rows, each flattened, side by side: (N, C).

    Args:
        features: name -> array (N, ...) or `MappedRows`; float16 or float32.
    """

    def __init__(self, features: Mapping[str, NDArray[Any] | MappedRows]) -> None:
        self._names, self._parts = list(features), list(features.values())
        self.rows = int(self._parts[0].shape[0])
        self.widths = [int(np.prod(part.shape[1:])) for part in self._parts]
        self.dtype = np.result_type(*(part.dtype for part in self._parts))
        self.resident = all(isinstance(part, np.ndarray) for part in self._parts)
        self._whole: NDArray[Any] | None = None

    @property
    def columns(self) -> int:
        """C."""
        return sum(self.widths)

    def whole(self) -> NDArray[Any]:
        """All rows, made once; only of rows in memory."""
        if self._whole is None:
            self._whole = self.read([(0, self.rows)])
        return self._whole

    def block(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start to stop - 1, (n, C); a view where they are in memory."""
        return self.whole()[start:stop] if self.resident else self.read([(start, stop)])

    def read(self, ranges: Ranges, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The rows of some ranges, one after the other, (n, C).

        Args:
            ranges: (start, stop) each.
            out: (at least n, C) of `dtype`, whose first n rows they are put into. Memory that was used before costs
                less than fresh memory, every page of which is cleared first.
        """
        parts = [_flat(part) for part in self._parts if isinstance(part, np.ndarray)]
        if len(parts) == len(self._parts) == 1 and list(ranges) == [(0, self.rows)]:
            return parts[0]
        size = sum(stop - start for start, stop in ranges)
        out = np.empty((size, self.columns), dtype=self.dtype) if out is None else out[:size]
        place = 0
        for start, stop in ranges:
            self._fill(out[place : place + stop - start], start, stop)
            place += stop - start
        return out

    def _fill(self, out: NDArray[Any], start: int, stop: int) -> None:
        """Rows start to stop - 1 into the contiguous `out`."""
        only = self._parts[0] if len(self._parts) == 1 else None
        if only is not None and not isinstance(only, np.ndarray):
            only.read(start, stop, out.reshape(stop - start, *only.shape[1:]))
            return
        column = 0
        for part, width in zip(self._parts, self.widths, strict=True):
            rows = part[start:stop] if isinstance(part, np.ndarray) else part.read(start, stop)
            out[:, column : column + width] = rows.reshape(stop - start, width)
            column += width

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Rows by number, in this order, (n, C)."""
        if self.resident:
            return np.asarray(self.whole()[rows])
        order = np.argsort(rows, kind="stable")
        wanted = rows[order]
        out = np.empty((len(rows), self.columns), dtype=self.dtype)
        done = 0
        while done < len(wanted):
            start = int(wanted[done])
            # Rows that lie near one another are read in one piece.
            last = int(np.searchsorted(wanted, start + _PIECE))
            stop = int(wanted[last - 1]) + 1
            out[order[done:last]] = self.read([(start, stop)])[wanted[done:last] - start]
            done = last
        return out

    def count_nonfinite(self) -> dict[str, int]:
        """Input name -> NaN and infinite values."""
        counts = dict.fromkeys(self._names, 0)
        for name, part in zip(self._names, self._parts, strict=True):
            for start in range(0, self.rows, _PIECE):
                stop = min(start + _PIECE, self.rows)
                values = single(part[start:stop] if isinstance(part, np.ndarray) else part.read(start, stop))
                counts[name] += values.size - int(np.count_nonzero(np.isfinite(values)))
        return counts


_PIECE = 8192


def _flat(part: NDArray[Any]) -> NDArray[Any]:
    return part.reshape(len(part), -1)


def single(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32; torch turns float16 into it forty times as fast as NumPy."""
    if values.dtype != np.float16:
        return values.astype(np.float32, copy=False)
    return torch.from_numpy(np.ascontiguousarray(values)).float().numpy()

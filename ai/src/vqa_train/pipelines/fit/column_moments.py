"""Count, mean, deviation and range per column of rows that come in blocks; finite values only."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Values that are turned into float64 at once.
_BLOCK = 1 << 21


class ColumnMoments:
    """Moments of the last axis of (N, D) or (N, T, D); the T steps of a row are pooled.

    Blocks are merged as Chan, Golub and LeVeque (1979) do, in float64.

    Args:
        columns: D.

    Attributes:
        rows: rows with any finite value.
        values: values seen, finite or not.
        count: float64 (D,), finite values.
        mean: float64 (D,); 0 where there is no finite value.
        low, high: float64 (D,); infinite where there is none.
    """

    def __init__(self, columns: int) -> None:
        self.rows = 0
        self.values = 0
        self.count: Vector = np.zeros(columns)
        self.mean: Vector = np.zeros(columns)
        self.low: Vector = np.full(columns, np.inf)
        self.high: Vector = np.full(columns, -np.inf)
        self._square: Vector = np.zeros(columns)

    def add(self, block: NDArray[Any]) -> None:
        """Take in rows (n, D) or (n, T, D)."""
        step = max(1, _BLOCK // max(1, int(np.prod(block.shape[1:]))))
        for start in range(0, len(block), step):
            self._add(np.asarray(block[start : start + step], dtype=np.float64))

    def _add(self, block: Vector) -> None:
        self.values += block.size
        self.rows += int(np.isfinite(block).reshape(len(block), -1).any(axis=1).sum())
        values = block.reshape(-1, block.shape[-1])
        finite = np.isfinite(values)
        self.low = np.minimum(self.low, np.where(finite, values, np.inf).min(axis=0, initial=np.inf))
        self.high = np.maximum(self.high, np.where(finite, values, -np.inf).max(axis=0, initial=-np.inf))
        count = finite.sum(axis=0).astype(np.float64)
        mean = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        deviation = np.where(finite, values - mean, 0.0)
        both = np.maximum(self.count + count, 1)
        step = np.where(count > 0, mean - self.mean, 0.0)
        self._square += np.einsum("ij,ij->j", deviation, deviation) + step * step * self.count * count / both
        self.mean = self.mean + step * count / both
        self.count = self.count + count

    @property
    def std(self) -> Vector:
        """Population deviation, float64 (D,); 0 where there is no finite value."""
        return np.asarray(np.sqrt(self._square / np.maximum(self.count, 1)))

    @property
    def missing(self) -> float:
        """Share of values that are NaN or infinite, 0..1; 0 without rows."""
        return 1.0 - float(self.count.sum()) / self.values if self.values else 0.0

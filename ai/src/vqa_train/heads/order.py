"""The order of training rows, decided by seed and epoch alone: which rows are read together, which make a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from

WINDOW = 65_536
"""Most rows that are shuffled together. A table of more rows is read in windows, each of shuffled blocks."""
BLOCK = 1_024
"""Neighbouring rows that are read in one piece."""
_NUMBERS = WINDOW * 2_048
# Numbers in a window, at most: 256 MiB of float16. Rows of more than 2,048 columns are shuffled in smaller windows.


def table_seed(identity: str) -> int:
    """Seed of the windows of a table, the same for all heads, so that they read them together."""
    return seed_from("windows", identity)


def window_rows(columns: int) -> int:
    """Rows that are shuffled together, a multiple of `BLOCK`, at most `WINDOW`."""
    return min(WINDOW, max(1, _NUMBERS // columns // BLOCK) * BLOCK)


def windows(seed: int, epoch: int, rows: int, size: int = WINDOW) -> list[list[tuple[int, int]]]:
    """Ranges (start, stop) of rows per window, every row in exactly one; one window for up to `size` rows.

    Args:
        size: rows of a window, a multiple of `BLOCK`.
    """
    if rows <= size:
        return [[(0, rows)]]
    starts = _generator(seed, epoch, 0).permutation(-(-rows // BLOCK)) * BLOCK
    ranges = [(int(start), min(int(start) + BLOCK, rows)) for start in starts]
    size = size // BLOCK
    return [ranges[first : first + size] for first in range(0, len(ranges), size)]


def row_numbers(ranges: list[tuple[int, int]]) -> NDArray[np.int64]:
    """The rows of some ranges, one after the other."""
    return np.concatenate([np.arange(start, stop) for start, stop in ranges])


def steps(rows: int, batch_size: int) -> int:
    """Batches that `rows` are dealt into: of equal size, about `batch_size`, at least one; 0 for no rows."""
    return max(1, round(rows / batch_size)) if rows else 0


def shuffled(seed: int, epoch: int, window: int, rows: int) -> NDArray[np.int64]:
    """A permutation of 0 to rows - 1."""
    return _generator(seed, epoch, window + 1).permutation(rows)


def deal(rows: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Batch and place in the batch of each row, as `numpy.array_split` into `count` parts would deal them."""
    size, longer = divmod(len(rows), count)
    position = np.arange(len(rows))
    edge = longer * (size + 1)
    tail = position - edge
    batch = np.where(position < edge, position // (size + 1), longer + tail // max(size, 1))
    place = np.where(position < edge, position % (size + 1), tail % max(size, 1))
    return batch, place


def _generator(seed: int, epoch: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, (epoch << 32) | stream]))

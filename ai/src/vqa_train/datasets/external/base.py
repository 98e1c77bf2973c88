"""What every kind of feature file offers: its columns by name, and its features in blocks of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import LabelError, Reason, VqaError

BLOCK_BYTES = 16 << 20
MIN_ROWS, MAX_ROWS = 256, 20_000
_LISTED = 12


class FeatureFileError(LabelError):
    """A feature file that cannot be read as it was asked for."""


@dataclass(frozen=True)
class Columns:
    """Columns about the rows.

    Attributes:
        rows: number of rows of the file.
        texts: name -> per row a text, stripped; "" where empty.
        numbers: name -> float64 (rows,), NaN where empty.
    """

    rows: int
    texts: Mapping[str, list[str]]
    numbers: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Block:
    """Features of the next n rows.

    Attributes:
        values: float32 (n, D); NaN and infinity as published.
        given: bool (n,), False for a row whose vector is null; its values are NaN.
        beyond: finite numbers that float32 cannot hold; they are infinite in `values`.
    """

    values: NDArray[np.float32]
    given: NDArray[np.bool_]
    beyond: int = 0


class FeatureFile(ABC):
    """A table of features: one row per video, columns by name.

    Attributes:
        path: the file.
        names: its columns, in the file's order.
        format: "parquet", "csv", "npz" or "mat".
    """

    format: ClassVar[str]
    names: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def what(self) -> str:
        """The file, for messages."""
        return f"feature file {str(self.path)!r}"

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """The library that read it, with its version."""

    @abstractmethod
    def is_vector(self, name: str) -> bool:
        """Whether the column `name` holds a vector per row, and not one number or text."""

    @abstractmethod
    def columns(self, texts: Sequence[str], numbers: Sequence[str]) -> Columns:
        """Columns as text and as numbers.

        Raises:
            FeatureFileError: a cell that is no number (names row and column), or a damaged file.
        """

    @abstractmethod
    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """The features, in the file's order: one vector column, or one or more columns of numbers side by side.

        Raises:
            FeatureFileError: a cell that is no number, vectors of different lengths (names the row), a damaged file.
        """

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuse columns that are not there.

        Raises:
            FeatureFileError: with the nearest that is there.
        """
        for name in names:
            if name not in self.names:
                raise FeatureFileError(f"{self.what} has no column {name!r}", hint=self.nearest(name))

    def nearest(self, name: str) -> str:
        """A hint: the column that is meant by `name`, or the first few that there are."""
        same = [known for known in self.names if known.casefold() == name.casefold()]
        near = same or get_close_matches(name, self.names, n=1, cutoff=0.6)
        return f"did you mean {near[0]!r}?" if near else f"it has {self.listed()}"

    def listed(self) -> str:
        """The first few columns, and how many more."""
        more = len(self.names) - _LISTED
        return ", ".join(self.names[:_LISTED]) + (f" and {more:,} more" if more > 0 else "")

    def damaged(self, error: Exception) -> FeatureFileError:
        """The error for a file that its library cannot read."""
        return FeatureFileError(f"{self.what} cannot be read: {' '.join(str(error).split())}", reason=Reason.UNREADABLE)

    def wrong(self, row: int, column: str, message: str, hint: str | None = None) -> FeatureFileError:
        """The error for the cell in `row` (counted from 0) of `column`."""
        return FeatureFileError(f"{self.what} row {row + 1} column {column!r}: {message}", hint=hint)


def to_float32(values: NDArray[Any]) -> tuple[NDArray[np.float32], int]:
    """`values` as float32, and how many finite ones became infinite."""
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(values, dtype=np.float32)
    if values.dtype.kind != "f" or values.dtype.itemsize <= 4:
        return cast, 0
    return cast, int(np.count_nonzero(np.isinf(cast)) - np.count_nonzero(np.isinf(values)))


def rows_per_block(dims: int) -> int:
    """Rows of one block, so that its float32 values take some 16 MiB."""
    return int(np.clip(BLOCK_BYTES // (4 * max(dims, 1)), MIN_ROWS, MAX_ROWS))


def rechunk(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same rows in blocks of `rows_per_block` rows, whatever the blocks of the file were.

    Raises:
        VqaError: blocks of different widths; a fault of the reader.
    """
    kept: list[Block] = []
    for block in blocks:
        start, size = 0, rows_per_block(block.values.shape[1])
        if kept and kept[0].values.shape[1] != block.values.shape[1]:
            raise VqaError(f"a reader gave {kept[0].values.shape[1]} and then {block.values.shape[1]} dimensions")
        while start < len(block.values):
            room = size - sum(len(part.values) for part in kept)
            part = slice(start, start + room)
            # What was beyond float32 is counted once, with the first part.
            kept.append(Block(block.values[part], block.given[part], block.beyond if start == 0 else 0))
            start += room
            if sum(len(part.values) for part in kept) == size:
                yield _joined(kept)
                kept = []
    if kept:
        yield _joined(kept)


def _joined(blocks: Sequence[Block]) -> Block:
    if len(blocks) == 1:
        return blocks[0]
    return Block(
        np.concatenate([block.values for block in blocks]),
        np.concatenate([block.given for block in blocks]),
        sum(block.beyond for block in blocks),
    )

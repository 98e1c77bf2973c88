"""Feature files of named arrays: what npz and .mat have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.datasets.external.base import Block, Columns, FeatureFile, FeatureFileError, rows_per_block, to_float32
from vqa_train.datasets.external.text import first_none, texts_of


class ArrayFeatures(FeatureFile):
    """Arrays by name: (N, D) numbers are vectors, (N,), (N, 1) and (1, N) are columns."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array."""

    @abstractmethod
    def array(self, name: str) -> NDArray[Any]:
        """A whole array.

        Raises:
            FeatureFileError: it cannot be read.
        """

    def slices(self, name: str, size: int) -> Iterator[NDArray[Any]]:
        """A two-dimensional array, `size` rows at a time."""
        array = self.array(name)
        for start in range(0, len(array), size):
            yield array[start : start + size]

    def is_vector(self, name: str) -> bool:
        """Whether the array has two axes, neither of length 1."""
        shape = self.shape(name)
        return len(shape) == 2 and min(shape) > 1

    def columns(self, texts: Sequence[str], numbers: Sequence[str]) -> Columns:
        """See FeatureFile; without any column, rows are those of the longest array."""
        self.check_columns([*texts, *numbers])
        found_texts = {name: self._texts(name) for name in texts}
        found_numbers = {name: self._numbers(name).astype(np.float64) for name in numbers}
        lengths = {name: len(column) for name, column in found_texts.items()}
        lengths |= {name: len(column) for name, column in found_numbers.items()}
        first = next(iter(lengths), None)
        for name, length in lengths.items():
            if first is not None and length != lengths[first]:
                raise FeatureFileError(
                    f"{self.what}: {name!r} has {length} rows, {first!r} has {lengths[first]}",
                    hint="one row per video in every array",
                )
        rows = (
            lengths[first] if first is not None else max((max(self.shape(n), default=0) for n in self.names), default=0)
        )
        if not rows:
            raise FeatureFileError(f"{self.what} has no rows")
        return Columns(rows, found_texts, found_numbers)

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """See FeatureFile."""
        self.check_columns(columns)
        shape = self.shape(columns[0])
        if len(columns) == 1 and len(shape) == 2 and shape[0] != 1:
            for part in self.slices(columns[0], rows_per_block(shape[1])):
                self._check_numbers(columns[0], part)
                values, beyond = to_float32(part)
                yield Block(values, np.ones(len(values), dtype=bool), beyond)
            return
        if len(columns) == 1 and len(shape) > 2:
            raise FeatureFileError(
                f"{self.what}: {columns[0]!r} has shape {list(shape)}, expected one vector per video, (N, D)",
                hint="average it over its middle axes first",
            )
        arrays = [self._numbers(name) for name in columns]
        for name, array in zip(columns, arrays, strict=True):
            if len(array) != len(arrays[0]):
                raise FeatureFileError(
                    f"{self.what}: {name!r} has {len(array)} rows, {columns[0]!r} has {len(arrays[0])}"
                )
        values, beyond = to_float32(np.stack(arrays, axis=1))
        yield Block(values, np.ones(len(values), dtype=bool), beyond)

    def _column(self, name: str) -> NDArray[Any]:
        array = self.array(name)
        if array.ndim == 2 and 1 in array.shape:
            array = array.reshape(-1)
        if array.ndim != 1:
            raise FeatureFileError(
                f"{self.what}: {name!r} has shape {list(array.shape)}, expected one value per video, (N,)"
            )
        return array

    def _texts(self, name: str) -> list[str]:
        texts = texts_of(self._column(name))
        bad = first_none(texts)
        if bad is not None:
            raise self.wrong(bad, name, "not a text or an exact whole number", "store ids as text")
        return [text or "" for text in texts]

    def _numbers(self, name: str) -> NDArray[Any]:
        column = self._column(name)
        self._check_numbers(name, column)
        return column

    def _check_numbers(self, name: str, array: NDArray[Any]) -> None:
        if array.dtype.kind not in "fiub":
            raise FeatureFileError(f"{self.what}: {name!r} holds {_kind(array.dtype)}, expected numbers")


def _kind(dtype: np.dtype[Any]) -> str:
    return {"U": "text", "S": "text", "O": "objects", "c": "complex numbers"}.get(dtype.kind, str(dtype))

"""Feature files in Parquet: a list column, or many columns of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vqa_train.datasets.external.base import Block, Columns, FeatureFile, FeatureFileError, rows_per_block, to_float32
from vqa_train.datasets.external.text import first_none, texts_of

_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)


class ParquetFeatures(FeatureFile):
    """Columns by name; a list, large list or fixed-size list of numbers is a vector."""

    format = "parquet"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._schema = pq.read_schema(path)
        except _ERRORS as error:
            raise self.damaged(error) from error
        self.names = tuple(self._schema.names)
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise FeatureFileError(f"{self.what} has the column {twice[0]!r} twice")

    def versions(self) -> dict[str, str]:
        """pyarrow's."""
        return {"pyarrow": pa.__version__}

    def is_vector(self, name: str) -> bool:
        """Whether the column is a list of any kind."""
        return _is_list(self._schema.field(name).type)

    def columns(self, texts: Sequence[str], numbers: Sequence[str]) -> Columns:
        """See FeatureFile."""
        self.check_columns([*texts, *numbers])
        for name in numbers:
            self._check_number(name, self._schema.field(name).type)
        try:
            with pq.ParquetFile(self.path) as file:
                rows = file.metadata.num_rows
                table = file.read(columns=sorted({*texts, *numbers}))
        except _ERRORS as error:
            raise self.damaged(error) from error
        if table.num_columns and any(len(column) != rows for column in table.columns):
            raise self.damaged(ValueError(f"its metadata claims {rows} rows, its columns hold {len(table.column(0))}"))
        return Columns(
            rows,
            {name: self._texts(name, table.column(name)) for name in texts},
            {name: _numbers(table.column(name)).astype(np.float64) for name in numbers},
        )

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """See FeatureFile."""
        self.check_columns(columns)
        vector = len(columns) == 1 and self.is_vector(columns[0])
        for name in columns:
            kind = self._schema.field(name).type
            self._check_number(name, kind.value_type if vector else kind)
        start, dims = 0, self._dims(columns[0]) if vector else len(columns)
        try:
            # Read as it streams: a column chunk of a big row group would else be in memory whole.
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(rows_per_block(dims or 1), columns=list(columns)):
                    if vector:
                        dims = dims or _first_length(batch.column(0))
                        yield self._vectors(batch.column(0), columns[0], dims, start)
                    else:
                        yield _side_by_side([_numbers(batch.column(name)) for name in columns])
                    start += len(batch)
        except _ERRORS as error:
            raise self.damaged(error) from error

    def _dims(self, name: str) -> int:
        """The length of every vector, where the type says it; else 0."""
        kind = self._schema.field(name).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 0

    def _vectors(self, column: Any, name: str, dims: int, start: int) -> Block:
        given = column.is_valid().to_numpy(zero_copy_only=False)
        column = column.filter(column.is_valid())
        if not pa.types.is_fixed_size_list(column.type):
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            if (lengths != dims).any():
                at = int(np.flatnonzero(lengths != dims)[0])
                row = start + int(np.flatnonzero(given)[at])
                raise self.wrong(row, name, f"a vector of length {lengths[at]}, the rows before it have {dims}")
        values, beyond = to_float32(_numbers(column.flatten()).reshape(len(column), dims))
        if given.all():
            return Block(values, given, beyond)
        full = np.full((len(given), dims), np.nan, dtype=np.float32)
        full[given] = values
        return Block(full, given, beyond)

    def _check_number(self, name: str, kind: pa.DataType) -> None:
        number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        if not number and not pa.types.is_null(kind):
            hint = "features of one vector per row are supported, not of several" if _is_list(kind) else None
            raise FeatureFileError(f"{self.what} column {name!r} holds {kind}, expected numbers", hint=hint)

    def _texts(self, name: str, column: Any) -> list[str]:
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not (textual or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise FeatureFileError(f"{self.what} column {name!r} holds {kind}, expected text or whole numbers")
        if pa.types.is_floating(kind):
            found = texts_of(_numbers(column).astype(np.float64))
            lost = first_none(found)
            if lost is not None:
                raise self.wrong(lost, name, "a number this large has lost digits", "store ids as text")
            return [text or "" for text in found]
        try:
            return ["" if value is None else str(value).strip() for value in column.to_pylist()]
        except UnicodeDecodeError as error:
            raise self.damaged(error) from error


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _first_length(column: Any) -> int:
    lengths = pc.list_value_length(column.filter(column.is_valid()))
    return int(lengths[0].as_py()) if len(lengths) else 0


def _numbers(column: Any) -> NDArray[Any]:
    """An Arrow column of numbers as NumPy, null as NaN."""
    if pa.types.is_null(column.type) or pa.types.is_boolean(column.type):
        column = column.cast(pa.int8()).cast(pa.float32())
    array: NDArray[Any] = (
        column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    )
    return array


def _side_by_side(columns: Sequence[NDArray[Any]]) -> Block:
    values = np.empty((len(columns[0]), len(columns)), dtype=np.float32)
    beyond = 0
    for number, column in enumerate(columns):
        values[:, number], lost = to_float32(column)
        beyond += lost
    return Block(values, np.ones(len(values), dtype=bool), beyond)

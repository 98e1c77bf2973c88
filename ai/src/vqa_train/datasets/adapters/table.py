"""Label tables as text columns: CSV (BOM, quoted commas, Windows line ends, `;` or tab) and Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from vqa_train.core.errors import LabelError
from vqa_train.core.plugins import did_you_mean

_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True)
class RawTable:
    """Columns of one label table.

    Attributes:
        path: for messages, relative to the data root.
        names: every column that the table has.
        columns: the columns that were asked for and exist; equally long lists of text, "" where empty.
        lines: line of the file on which each row begins, for CSV.
        rows: number of rows.
    """

    path: str
    names: tuple[str, ...]
    columns: Mapping[str, Sequence[str]]
    rows: int
    lines: Sequence[int] | None = None

    def column(self, name: str) -> Sequence[str]:
        """The column `name`.

        Raises:
            LabelError: the table has none of that name (says which is near).
        """
        if name not in self.columns:
            raise LabelError(
                f"label table {self.path!r} has no column {name!r}", hint=did_you_mean(name, list(self.names))
            )
        return self.columns[name]

    def where(self, row: int, column: str) -> str:
        """ "label table 'x.csv' row 3 (line 4) column 'MOS'": row counts from 1 after the header."""
        line = f" (line {self.lines[row]})" if self.lines is not None else ""
        return f"label table {self.path!r} row {row + 1}{line} column {column!r}"


def read_table(path: str, data: bytes, wanted: Collection[str]) -> RawTable:
    """The `wanted` columns, as far as they exist, of a CSV or Parquet table given as bytes.

    Raises:
        LabelError: not UTF-8, not a table, a row of the wrong length, a column name twice.
    """
    return _read_parquet(path, data, wanted) if data[:4] == _PARQUET_MAGIC else _read_csv(path, data, wanted)


def _read_csv(path: str, data: bytes, wanted: Collection[str]) -> RawTable:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(
            f"label table {path!r} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8 CSV or Parquet"
        ) from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if not any(header):
            raise LabelError(f"label table {path!r} has no header", hint="its first line names the columns")
        _refuse_twice(path, header)
        start = reader.line_num + 1
        for row in reader:
            if any(row):
                if len(row) < len(header) or any(row[len(header) :]):
                    raise LabelError(
                        f"label table {path!r} line {start}: expected {len(header)} cells, got {len(row)}",
                        hint="a text with a comma in it needs quotes",
                    )
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise LabelError(f"label table {path!r} line {reader.line_num}: {error}") from error
    cells = zip(header, zip(*rows, strict=False) if rows else ((),) * len(header), strict=False)
    columns = {name: [cell.strip() for cell in column] for name, column in cells if name in wanted}
    return RawTable(path, tuple(header), columns, len(rows), lines)


def _delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _refuse_twice(path: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise LabelError(f"label table {path!r} has the column {twice[0]!r} twice")


def _read_parquet(path: str, data: bytes, wanted: Collection[str]) -> RawTable:
    # pyarrow and not polars: a damaged file is an exception here and may be a panic there.
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        names = list(file.schema_arrow.names)
        _refuse_twice(path, names)
        table = file.read(columns=[name for name in names if name in wanted])
        rows = file.metadata.num_rows
        if any(len(column) != rows for column in table.columns):
            raise OSError(f"its metadata claims {rows} rows, its columns hold {len(table.column(0))}")
        columns = {name: [_text(value) for value in table.column(name).to_pylist()] for name in table.column_names}
        return RawTable(path, tuple(names), columns, rows)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise LabelError(f"label table {path!r} is not a readable Parquet file: {error}") from error


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()

"""Feature files in CSV (comma, semicolon or tab; BOM; .gz and .bz2 too), parsed by Arrow in blocks."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from vqa_train.datasets.external.base import Block, Columns, FeatureFile, FeatureFileError, to_float32

_BLOCK = 8 << 20
_HEADER = 1 << 22
_EMPTY = ["", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "nan", "NaN", "NAN", "-nan", "-NaN"]
_CHUNK = 4096


class CsvFeatures(FeatureFile):
    """A header line, then one row per video; every feature is a column of numbers."""

    format = "csv"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with pa.input_stream(str(path)) as stream:
                head = stream.read(_HEADER)
            text = head.decode("utf-8-sig", errors="strict" if len(head) < _HEADER else "ignore")
        except UnicodeDecodeError as error:
            raise FeatureFileError(
                f"{self.what} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8"
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from error
        self._delimiter = max(",;\t", key=text.partition("\n")[0].count)
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter), [])
        except csv.Error as error:
            raise self.damaged(error) from error
        self.names = tuple(name.strip() for name in names)
        self._check_header(text)

    def _check_header(self, text: str) -> None:
        if not any(self.names):
            raise FeatureFileError(f"{self.what} is empty" if not text.strip() else f"{self.what} has no header line")
        # A table that pandas wrote may call its columns 0, 1, 2, ...
        counted = [name for name in self.names if name] == [str(i) for i in range(sum(map(bool, self.names)))]
        if all(_is_number(name) for name in self.names if name) and not counted:
            raise FeatureFileError(
                f"{self.what} has no header: its first line is numbers ({self.names[0]}, ...)",
                hint="add a first line that names the columns",
            )
        seen: set[str] = set()
        for name in self.names:
            if name in seen and name:
                raise FeatureFileError(f"{self.what} has the column {name!r} twice")
            seen.add(name)

    def versions(self) -> dict[str, str]:
        """pyarrow's."""
        return {"pyarrow": pa.__version__}

    def is_vector(self, name: str) -> bool:
        """Never: a cell holds one value."""
        return False

    def columns(self, texts: Sequence[str], numbers: Sequence[str]) -> Columns:
        """See FeatureFile."""
        self.check_columns([*texts, *numbers])
        kinds = {name: pa.float64() for name in numbers} | dict.fromkeys(texts, pa.string())
        kinds = kinds or {next(filter(None, self.names)): pa.string()}
        batches = list(self._batches(kinds))
        table = pa.Table.from_batches(batches) if batches else None
        if table is None or not table.num_rows:
            raise FeatureFileError(f"{self.what} has a header and no rows")
        return Columns(
            table.num_rows,
            {name: [text.strip() for text in table.column(name).to_pylist()] for name in texts},
            {name: table.column(name).to_numpy() for name in numbers},
        )

    def blocks(self, columns: Sequence[str]) -> Iterator[Block]:
        """See FeatureFile."""
        self.check_columns(columns)
        for batch in self._batches(dict.fromkeys(columns, pa.float64())):
            values = np.empty((len(batch), len(columns)), dtype=np.float32)
            beyond = 0
            for number, name in enumerate(columns):
                values[:, number], lost = to_float32(batch.column(name).to_numpy(zero_copy_only=False))
                beyond += lost
            yield Block(values, np.ones(len(values), dtype=bool), beyond)

    def _batches(self, kinds: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        csv_ = pyarrow.csv
        try:
            reader = csv_.open_csv(
                pa.input_stream(str(self.path)),
                read_options=csv_.ReadOptions(block_size=_BLOCK, column_names=list(self.names), skip_rows=1),
                parse_options=csv_.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                convert_options=csv_.ConvertOptions(
                    include_columns=list(kinds), column_types=kinds, null_values=_EMPTY, strings_can_be_null=False
                ),
            )
            for batch in reader:
                if len(batch):
                    yield batch
        except pa.ArrowInvalid as error:
            raise self._fault([n for n, kind in kinds.items() if kind == pa.float64()]) or self.damaged(
                error
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(error) from error

    def _fault(self, numbers: Sequence[str]) -> FeatureFileError | None:
        """The first row of another length or cell of `numbers` that is no number; Arrow does not say where it is."""
        places = [(self.names.index(name), name) for name in numbers]
        try:
            with io.TextIOWrapper(pa.input_stream(str(self.path)), encoding="utf-8-sig", newline="") as text:
                rows = (row for row in csv.reader(text, delimiter=self._delimiter) if row)
                next(rows, None)
                start = 0
                while chunk := list(islice(rows, _CHUNK)):
                    for row, cells in enumerate(chunk, start):
                        if len(cells) != len(self.names):
                            return FeatureFileError(
                                f"{self.what} row {row + 1}: expected {len(self.names)} cells, got {len(cells)}",
                                hint="a text with the delimiter in it needs quotes",
                            )
                        for place, name in places:
                            cell = cells[place].strip()
                            if cell not in _EMPTY and not _is_number(cell):
                                comma = "write decimals with a point" if _is_number(cell.replace(",", ".")) else None
                                return self.wrong(row, name, f"{cell!r:.60} is not a number", comma)
                    start += len(chunk)
        except UnicodeDecodeError as error:
            return FeatureFileError(f"{self.what} is not UTF-8 text: {error.reason}", hint="save it as UTF-8")
        except (csv.Error, OSError):
            return None
        return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text

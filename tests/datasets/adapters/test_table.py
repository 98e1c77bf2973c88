"""Label tables as they come: BOM, quotes, line ends, delimiters, ragged rows, Parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import LabelError
from vqa_train.datasets.adapters.table import RawTable, read_table

ALL = ("id", "mos", "prompt")


def read(text: str) -> RawTable:
    return read_table("labels.csv", text.encode("utf-8"), ALL)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_bom_quoted_commas_and_line_ends(bom: str, end: str) -> None:
    table = read(bom + end.join(["id,prompt,mos", '"ü 1","a cat, ""big""",3.5', "b,,4", ""]))
    assert table.names == ("id", "prompt", "mos")
    assert table.columns == {"id": ["ü 1", "b"], "prompt": ['a cat, "big"', ""], "mos": ["3.5", "4"]}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters(delimiter: str) -> None:
    assert read(f"id{delimiter}mos\na, b{delimiter}2\n").columns == {"id": ["a, b"], "mos": ["2"]}


_cell = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12).map(str.strip)


@given(rows=st.lists(st.tuples(_cell.filter(bool), _cell), max_size=6), end=st.sampled_from(["\n", "\r\n"]))
def test_whatever_a_csv_writer_writes_is_read_back(rows: list[tuple[str, str]], end: str) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("id", "prompt"), *rows])
    table = read(buffer.getvalue())
    assert list(zip(table.columns["id"], table.columns["prompt"], strict=True)) == rows
    assert table.rows == len(rows)


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_table_or_a_label_error(data: bytes) -> None:
    for start in (b"", b"PAR1", b"id,mos\n"):
        try:
            table = read_table("any", start + data, ALL)
        except LabelError as error:
            assert "label table 'any'" in str(error)
        else:
            assert all(len(column) == table.rows for column in table.columns.values())


def test_rows_know_their_line() -> None:
    table = read('id,prompt,mos\na,"two\nlines",1\n\n,,\nb,x,2\n')
    assert table.where(0, "mos") == "label table 'labels.csv' row 1 (line 2) column 'mos'"
    assert table.where(1, "mos") == "label table 'labels.csv' row 2 (line 6) column 'mos'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("\n", "no header"),
        ("id,mos,id\n", "column 'id' twice"),
        ("id,mos\na,1\nb\n", "line 3: expected 2 cells, got 1"),
        ("id,mos\na,1,x\n", "line 2: expected 2 cells, got 3"),
        ('id,mos\n"a,1\n', "line 2: unexpected end of data"),
    ],
)
def test_a_table_that_does_not_hold_together_is_refused(text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read(text)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(LabelError, match=r"not UTF-8 text \(byte 7\).*save it as UTF-8"):
        read_table("labels.csv", "id,mos\né".encode("latin-1"), ALL)


def test_empty_cells_beyond_the_header_are_cut_off() -> None:
    assert read("id,mos\na,1,,\n").columns == {"id": ["a"], "mos": ["1"]}


def test_a_missing_column_is_named_with_the_nearest() -> None:
    table = read_table("labels.csv", b"video_name,Overal_MOS\n", ("Overall_MOS",))
    with pytest.raises(LabelError, match=r"no column 'Overall_MOS' - did you mean 'Overal_MOS'\?"):
        table.column("Overall_MOS")


def test_parquet_gives_the_same_text_as_csv_and_reads_only_what_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    columns = {
        "id": pa.array([17, 18], pa.int64()),
        "mos": pa.array([0.1 + 0.2, None], pa.float64()),
        "prompt": ["a, b", None],
        "features": pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float32(), 2)),
    }
    pyarrow.parquet.write_table(pa.table(columns), path)
    table = read_table("labels.parquet", path.read_bytes(), ALL)
    assert table.names == ("id", "mos", "prompt", "features")
    assert table.columns == {"id": ["17", "18"], "mos": ["0.30000000000000004", ""], "prompt": ["a, b", ""]}
    assert table.where(1, "mos") == "label table 'labels.parquet' row 2 column 'mos'"


def test_a_cut_off_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    pyarrow.parquet.write_table(pa.table({"id": ["a"] * 1000}), path)
    with pytest.raises(LabelError, match="not a readable Parquet file"):
        read_table("labels.parquet", path.read_bytes()[:-10], ALL)

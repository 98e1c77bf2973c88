"""CSV as people write it: delimiters, BOM, quotes, empty cells; what is wrong is named with its row and column."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from vqa_train.datasets.external import csv_file
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file


@pytest.fixture
def read(tmp_path):
    """`read(text, columns)`: the features in a CSV of that text."""

    def call(text, columns=("f",)):
        path = tmp_path / "x.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        file = open_feature_file(path)
        return np.concatenate([block.values for block in file.blocks(list(columns))]).tolist()

    return call


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_line_ends(read, delimiter, end):
    lines = ["id,f,g", "a,1,2", "b,3.5,-4e-1"]
    assert read(end.join(lines).replace(",", delimiter), ("g", "f")) == [[2, 1], [np.float32(-0.4), 3.5]]


def test_a_byte_order_mark_spaces_quotes_and_blank_lines(read):
    assert read(b'\xef\xbb\xbff ,"g"\n 1 ,"2"\n\n3,4\n', ("f", "g")) == [[1, 2], [3, 4]]


def test_empty_cells_are_nan_and_infinity_is_read(read):
    values = read("f\n1\nNA\nnan\nNaN\nn/a\ninf\n-Infinity\n")
    np.testing.assert_array_equal(np.ravel(values), [1, *[np.nan] * 4, np.inf, -np.inf])


def test_texts_are_kept_as_they_are(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('id,p\nNA,"a, ""cat""\nruns"\n007,\n')
    texts = open_feature_file(path).columns(["id", "p"], []).texts
    assert texts == {"id": ["NA", "007"], "p": ['a, "cat"\nruns', ""]}


def test_a_text_with_line_breaks_may_lie_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK", 64)
    path = tmp_path / "x.csv"
    path.write_text("id,p\n" + "".join(f'v{n},"one\ntwo\nthree {n}"\n' for n in range(50)))
    assert open_feature_file(path).columns(["p"], []).texts["p"] == [f"one\ntwo\nthree {n}" for n in range(50)]


def test_a_compressed_file_is_read(tmp_path):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(b"id,f\na,1\n"))
    assert next(open_feature_file(path).blocks(["f"])).values.tolist() == [[1]]


def test_rows_are_counted_without_any_column(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("f\n1\n2\n3\n")
    assert open_feature_file(path).columns([], []).rows == 3


def test_many_blocks_are_one_table(read, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK", 64)
    numbers = [[float(n), float(-n)] for n in range(200)]
    assert read("f,g\n" + "".join(f"{a},{b}\n" for a, b in numbers), ("f", "g")) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,f\na,1\nb,abc\n", r"row 2 column 'f': 'abc' is not a number"),
        ('id;f\na;1\nb;"3,5"\n', r"row 2 column 'f': '3,5' is not a number - write decimals with a point"),
        ("id,f\na,1\n\nb,2\nc,1_0\n", r"row 3 column 'f': '1_0' is not a number"),
        ("id,f\na,1\nb\n", "row 2: expected 2 cells, got 1 - a text with the delimiter in it needs quotes"),
        ("id,f\na,1\nb,1,2\n", "row 2: expected 2 cells, got 3"),
        ('id,f\na,1\nb,"[1, 2]"\n', r"row 2 column 'f': '\[1, 2\]' is not a number"),
        (b"id,f\n\xff,1\n", "is not UTF-8 text"),
        ("id,f,f\na,1,2\n", "the column 'f' twice"),
        ("1.5,2.5\n3,4\n", "has no header: its first line is numbers"),
        ("\n\n", "is empty"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "x.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FeatureFileError, match=message):
        list(open_feature_file(path).blocks(["f"]))


def test_a_fault_far_down_is_found(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,f\n" + "".join(f"v{n},{n}\n" for n in range(10_000)) + "last,x\n")
    with pytest.raises(FeatureFileError, match="row 10001 column 'f': 'x'"):
        list(open_feature_file(path).blocks(["f"]))


def test_columns_that_pandas_numbered_are_a_header(read):
    assert read("0,1\n5,6\n", ("0", "1")) == [[5, 6]]


def test_a_header_without_rows_is_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,f\n")
    with pytest.raises(FeatureFileError, match="a header and no rows"):
        open_feature_file(path).columns(["id"], [])

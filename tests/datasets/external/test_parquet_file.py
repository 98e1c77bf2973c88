"""Parquet of any writer: every kind of list and number, missing vectors, ids stored as numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa_train.datasets.external import base
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.open import open_feature_file


@pytest.fixture
def opened(tmp_path):
    """`opened(column=array, ...)`: a file of these columns."""

    def call(row_group_size=None, **columns):
        path = tmp_path / "x.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
        return open_feature_file(path)

    return call


LISTS = [[1.0, 2.0], [3.0, 4.5], [5.0, None]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.list_(pa.float64()),
        pa.large_list(pa.float16()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float64(), 2),
    ],
)
@pytest.mark.parametrize("row_group_size", [None, 1, 2])
def test_every_kind_of_list_is_a_vector(opened, kind, row_group_size):
    file = opened(features=pa.array(LISTS, kind), row_group_size=row_group_size)
    assert file.is_vector("features")
    blocks = list(file.blocks(["features"]))
    np.testing.assert_array_equal(np.concatenate([b.values for b in blocks]), [[1, 2], [3, 4.5], [5, np.nan]])
    assert all(block.given.all() for block in blocks)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_a_null_vector_is_not_given(opened, kind):
    file = opened(features=pa.array([None, [1.0, 2.0], None, [3.0, 4.0]], kind))
    (block,) = file.blocks(["features"])
    assert block.given.tolist() == [False, True, False, True]
    np.testing.assert_array_equal(block.values, [[np.nan] * 2, [1, 2], [np.nan] * 2, [3, 4]])


def test_vectors_of_different_lengths_are_an_error_with_the_row(opened, monkeypatch):
    monkeypatch.setattr(base, "MAX_ROWS", 2)
    monkeypatch.setattr(base, "MIN_ROWS", 1)
    with pytest.raises(
        FeatureFileError, match="row 3 column 'features': a vector of length 1, the rows before it have 2"
    ):
        list(opened(features=[None, [1.0, 2.0], [1.0]]).blocks(["features"]))
    with pytest.raises(FeatureFileError, match="row 4 column 'features': a vector of length 3"):
        file = opened(features=[[1.0, 2.0]] * 3 + [[1.0, 2.0, 3.0]], row_group_size=2)
        list(file.blocks(["features"]))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.int64(), pa.float16(), pa.float64(), pa.bool_()])
def test_every_kind_of_number_is_a_feature(opened, kind):
    file = opened(a=pa.array([1, 0, 1], pa.int8()).cast(kind), b=[0.5, None, 2.5])
    (block,) = file.blocks(["a", "b"])
    np.testing.assert_array_equal(block.values, [[1, 0.5], [0, np.nan], [1, 2.5]])


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([3339962845, 7]), ["3339962845", "7"]),
        (pa.array([3339962845.0, 7.5]), ["3339962845", "7.5"]),
        (pa.array(["a ", None]), ["a", ""]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array([1, None]), ["1", ""]),
        (pa.array([None, None]), ["", ""]),
    ],
)
def test_ids_of_every_type_keep_their_digits(opened, values, texts):
    assert opened(id=values).columns(["id"], []).texts["id"] == texts


def test_ids_that_lost_digits_are_an_error(opened):
    with pytest.raises(FeatureFileError, match="row 2 column 'id': a number this large has lost digits - store ids as"):
        opened(id=[1.0, 2.0**60]).columns(["id"], [])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["1", "2"]), "holds string, expected numbers"),
        (pa.array([["a"], ["b"]]), "holds string, expected numbers"),
        (pa.array([[[1.0]], [[2.0]]]), "one vector per row are supported, not of several"),
        (pa.array([0, 1], pa.timestamp("s")), "expected numbers"),
    ],
)
def test_what_is_no_number_is_an_error(opened, column, message):
    with pytest.raises(FeatureFileError, match=message):
        list(opened(features=column).blocks(["features"]))


def test_a_list_is_no_id(opened):
    with pytest.raises(FeatureFileError, match="expected text or whole numbers"):
        opened(id=[[1.0]]).columns(["id"], [])

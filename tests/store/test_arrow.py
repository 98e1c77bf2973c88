"""Shards are plain Parquet: other readers get the numbers with their shapes, without code of ours."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vqa_train.core.errors import StoreError
from vqa_train.store.arrow import arrow_schema, decode, encode, to_numpy, to_rows
from vqa_train.store.batch import stack


@pytest.fixture
def rows(spec, make_row):
    return [make_row(spec, number, view) for number in range(5) for view in range(2)]


@pytest.fixture
def shard(spec, rows, tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(encode(spec, stack(spec, rows)))
    return path


def test_rows_come_back_as_they_were(spec, rows, shard):
    back = to_rows(spec, decode(shard))
    assert [(r.key, r.view, r.facts) for r in back] == [(r.key, r.view, r.facts) for r in rows]
    for got, given in zip(back, rows, strict=True):
        assert got.outputs.keys() == given.outputs.keys()
        for name, array in got.outputs.items():
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, given.outputs[name], strict=True)


def test_polars_reads_typed_arrays_of_the_right_shape(rows, shard):
    frame = pl.read_parquet(shard)
    assert frame.schema["pooled"] == pl.Array(pl.Float32, 4)
    assert frame.schema["tokens"] == pl.Array(pl.Float32, (3, 2))
    assert frame.schema["sharpness"] == pl.Float32
    np.testing.assert_array_equal(frame["tokens"].to_numpy(), np.stack([r.outputs["tokens"] for r in rows]))
    assert frame["view"].to_list() == [0, 1] * 5


def test_pyarrow_reads_fixed_size_lists(rows, shard):
    table = pq.read_table(shard)
    assert table.schema.field("pooled").type == pa.list_(pa.field("element", pa.float32(), nullable=False), 4)
    np.testing.assert_array_equal(
        table["pooled"].combine_chunks().flatten().to_numpy().reshape(-1, 4),
        np.stack([r.outputs["pooled"] for r in rows]),
    )


def test_fields_carry_shape_and_names(spec, shard):
    schema = pq.read_schema(shard)
    assert schema.field("pooled").metadata[b"shape"] == b"[4]"
    assert schema.field("pooled").metadata[b"names"] == b'["a","b","c","d"]'
    assert schema.field("tokens").metadata[b"shape"] == b"[3,2]"
    assert schema.metadata[b"vqa_train.schema"] == b"vqa-train/shard/1"
    assert schema.equals(arrow_schema(spec))


def test_text_shards_have_a_text_key_and_no_facts(text_spec):
    assert arrow_schema(text_spec).names == ["text_sha256", "view", "pooled"]


def test_floats_are_split_into_byte_streams(spec, shard):
    metadata = pq.read_metadata(shard).row_group(0)
    encodings = {metadata.column(i).path_in_schema: metadata.column(i).encodings for i in range(metadata.num_columns)}
    for path in ("pooled.list.element", "tokens.list.element.list.element", "sharpness"):
        assert "BYTE_STREAM_SPLIT" in encodings[path]


def test_no_flipped_byte_in_a_page_gives_wrong_numbers(rows, shard):
    """Page checksums stand behind the sha256, which is not taken again for a file whose stat has not changed."""
    data = shard.read_bytes()
    expected = np.stack([row.outputs["pooled"] for row in rows])
    column = pq.read_metadata(shard).row_group(0).column(2)
    header = [(offset, bit) for offset in range(16) for bit in range(8)]
    rest = [(offset, offset % 8) for offset in range(16, column.total_compressed_size)]
    found = 0
    for offset, bit in header + rest:
        changed = bytearray(data)
        changed[column.data_page_offset + offset] ^= 1 << bit
        shard.write_bytes(bytes(changed))
        try:
            values = to_numpy(decode(shard, ["pooled"]).column("pooled"), (4,))
        except StoreError:
            found += 1
        else:
            np.testing.assert_array_equal(values, expected)
    assert found > expected.nbytes


def test_columns_are_read_alone(shard):
    assert decode(shard, ["view", "tokens"]).column_names == ["view", "tokens"]


def test_a_column_that_is_not_there_is_an_error(shard):
    with pytest.raises(StoreError, match="has no column nothing"):
        decode(shard, ["view", "nothing"])


def test_what_is_no_parquet_is_an_error(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"not parquet at all")
    with pytest.raises(StoreError, match="cannot be read"):
        decode(path)


def test_to_numpy_respects_slices(spec, rows, shard):
    column = decode(shard).column("tokens")[3:7]
    np.testing.assert_array_equal(to_numpy(column, (3, 2)), np.stack([r.outputs["tokens"] for r in rows[3:7]]))

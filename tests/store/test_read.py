"""Reading gives one row per key and view, in one order, from shards that are what their commits say."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import ConfigError, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store.rows import FeatureRow
from vqa_train.store.store import FeatureStore


def put(features, rows):
    return features.append(rows, profile={}, run_id="r")


@pytest.fixture
def filled(features, make_row):
    """Keys 0 to 5, both views, over three shards."""
    for start in (0, 2, 4):
        put(features, [make_row(features.spec, n, v) for n in (start, start + 1) for v in (1, 0)])
    return features


def keys_of(make_row, spec, numbers):
    return [make_row(spec, n).key for n in numbers]


def test_a_table_has_every_column_sorted_by_key_and_view(filled, make_row):
    table = filled.read()
    assert table.column_names[:5] == ["video_sha256", "view", "pooled", "tokens", "sharpness"]
    names = [(row["video_sha256"], row["view"]) for row in table.select([0, 1]).to_pylist()]
    assert names == sorted((key, view) for key in keys_of(make_row, filled.spec, range(6)) for view in (0, 1))


def test_rows_hold_what_was_appended(filled, make_row):
    rows = {(row["video_sha256"], row["view"]): row for row in filled.read().to_pylist()}
    for number in range(6):
        for view in (0, 1):
            given_row = make_row(filled.spec, number, view)
            row = rows[given_row.key, view]
            np.testing.assert_array_equal(np.array(row["tokens"], np.float32), given_row.outputs["tokens"])
            assert {name: row[name] for name in given_row.facts} == given_row.facts


def test_columns_and_keys_are_chosen(filled, make_row):
    wanted = keys_of(make_row, filled.spec, [4, 99])
    table = filled.read(columns=["sharpness", "video_sha256"], keys=wanted)
    assert table.column_names == ["sharpness", "video_sha256"]
    assert set(table["video_sha256"].to_pylist()) == {wanted[0]}
    assert len(table) == 2


def test_reading_nothing_gives_an_empty_table_with_the_columns(features):
    table = features.read(columns=["pooled", "view"])
    assert (len(table), table.column_names) == (0, ["pooled", "view"])


def test_an_unknown_column_is_an_error_with_the_nearest(filled):
    with pytest.raises(StoreError, match="no column 'pooledd' - did you mean 'pooled'"):
        filled.read(columns=["pooledd"])


def test_a_matrix_follows_the_order_of_its_keys(filled, make_row):
    numbers = [5, 0, 3, 0]
    for output in filled.spec.outputs:
        matrix = filled.matrix(output.name, keys_of(make_row, filled.spec, numbers), view=1)
        expected = np.stack([make_row(filled.spec, n, 1).outputs[output.name] for n in numbers])
        np.testing.assert_array_equal(matrix, expected, strict=True)
    assert filled.matrix("tokens", []).shape == (0, 3, 2)


def test_a_matrix_of_missing_keys_is_an_error_that_counts_and_names_them(filled, make_row):
    keys = keys_of(make_row, filled.spec, [0, 90, 91, 92, 93, 90])
    first = ", ".join(key[:12] for key in keys[1:4])
    with pytest.raises(StoreError, match=f"for 4 of 5 keys: {first}, ..."):
        filled.matrix("pooled", keys)
    with pytest.raises(StoreError, match="view 2"):
        filled.matrix("pooled", keys[:1], view=2)


def test_an_unknown_output_is_an_error(filled):
    with pytest.raises(ConfigError, match="no output 'nothing'"):
        filled.matrix("nothing", [])


def test_a_changed_shard_is_an_error_that_names_it(filled):
    commit = filled.commits()[1]
    path = filled.folder / "shards" / f"{commit.shard}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    for read in (filled.read, lambda: filled.matrix("pooled", list(commit.keys))):
        with pytest.raises(StoreError, match=f"{commit.shard}.parquet' is damaged.*vqa-train store verify"):
            read()


def test_a_vanished_shard_is_an_error_that_names_it(filled):
    commit = filled.commits()[0]
    (filled.folder / "shards" / f"{commit.shard}.parquet").unlink()
    with pytest.raises(StoreError, match=f"{commit.shard}.parquet' cannot be read"):
        filled.read()


def test_only_the_shards_of_the_keys_are_opened(filled):
    broken, whole = filled.commits()[0], filled.commits()[1]
    (filled.folder / "shards" / f"{broken.shard}.parquet").unlink()
    assert len(filled.read(keys=whole.keys)) == 4
    assert filled.matrix("pooled", list(whole.keys)).shape == (4, 4)


def test_duplicates_are_read_once_and_alike_by_every_reader(features, make_row):
    spec = features.spec
    variants = [make_row(spec, 1, 0, variant) for variant in range(6)]
    for row in variants:
        put(features, [row])
    table = features.read()
    assert len(table) == 1
    (row,) = table.to_pylist()
    np.testing.assert_array_equal(features.matrix("pooled", [variants[0].key])[0], np.array(row["pooled"], np.float32))
    np.testing.assert_array_equal(features.matrix("tokens", [variants[0].key])[0], np.array(row["tokens"], np.float32))
    chosen = int(row["decoder"].split()[1])
    np.testing.assert_array_equal(np.array(row["tokens"], np.float32), variants[chosen].outputs["tokens"])


SMALL = FeatureSpec(
    backbone="x",
    definition=1,
    modality="text",
    outputs=(OutputSpec(name="pooled", shape=(2,)),),
    sampling=Sampling(mode="uniform", n=1, views=2),
)
row_values = st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(0, 3))


def _fill(folder: Path, values: list[tuple[int, int, int]], cuts: list[int]):
    features = FeatureStore(folder).create_set(SMALL, license="MIT")
    edges = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        batch = [
            FeatureRow(key=f"{key:064x}", view=view, outputs={"pooled": np.full(2, value, np.float32)})
            for key, view, value in values[start:end]
        ]
        put(features, batch)
    return features


@settings(max_examples=15, deadline=None)
@given(st.lists(row_values, min_size=1, max_size=10), st.lists(st.integers(0, 10), max_size=3), st.randoms())
def test_what_is_read_depends_on_the_rows_and_not_on_their_order_or_shards(values, cuts, rng):
    with tempfile.TemporaryDirectory() as folder:
        once = _fill(Path(folder) / "a", values, cuts)
        shuffled = values + values[:3]
        rng.shuffle(shuffled)
        again = _fill(Path(folder) / "b", shuffled, [rng.randrange(10) for _ in range(2)])
        assert once.read().equals(again.read())
        assert len(once.read()) == len({(key, view) for key, view, _ in values})
        assert {(int(r["text_sha256"], 16), r["view"], int(r["pooled"][0])) for r in once.read().to_pylist()} <= set(
            values
        )

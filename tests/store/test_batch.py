"""Rows given as columns become the same shard as rows given one by one; imported sets may hold NaN, others may not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.store.arrow import decode, encode, to_batch
from vqa_train.store.batch import RowBatch, digests, stack, statistics
from vqa_train.store.rows import FeatureRow, row_digest
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

KEYS = [f"{n:064x}" for n in range(5)]


@pytest.fixture
def imported() -> FeatureSpec:
    """A set that came from a file."""
    return FeatureSpec(
        backbone="videval",
        definition=1,
        modality="video",
        outputs=(OutputSpec(name="pooled", shape=(3,)),),
        preprocessing={"imported": {"file_sha256": "0" * 64, "columns": ["features"]}},
    )


@pytest.fixture
def values() -> np.ndarray:
    """Five rows; row 1 holds a NaN, row 3 an infinity."""
    array = np.arange(15, dtype=np.float32).reshape(5, 3)
    array[1, 2], array[3, 0] = np.nan, -np.inf
    return array


@pytest.fixture
def filled(root, imported, values):
    features = FeatureStore(root).create_set(imported, license="MIT")
    features.append_arrays(KEYS, {"pooled": values}, profile={"source": "csv"}, run_id="r")
    return features


def test_a_spec_says_whether_it_was_imported(spec, imported):
    assert (spec.imported, imported.imported) == (False, True)
    assert FeatureSpec.from_json(json.loads(json.dumps(imported.to_json()))).imported


def test_columns_become_the_same_shard_as_rows(root, text_spec, make_row):
    rows = [make_row(text_spec, n) for n in range(4)]
    by_row = FeatureStore(root / "a").create_set(text_spec, license="MIT").append(rows, profile={}, run_id="r")
    arrays = {"pooled": np.stack([row.outputs["pooled"] for row in rows])}
    features = FeatureStore(root / "b").create_set(text_spec, license="MIT")
    by_column = features.append_arrays([row.key for row in rows], arrays, profile={}, run_id="r")
    same = ("keys", "views", "digests", "sha256", "bytes", "rows", "statistics")
    assert {name: getattr(by_row, name) for name in same} == {name: getattr(by_column, name) for name in same}


def test_digests_of_a_batch_are_those_of_its_rows(spec, make_row):
    rows = [make_row(spec, n, n % 2) for n in range(5)]
    assert digests(spec, stack(spec, rows)) == [row_digest(spec, row) for row in rows]


def test_digests_of_imported_rows_are_those_of_their_rows(imported, values):
    rows = [FeatureRow(key=key, outputs={"pooled": value}) for key, value in zip(KEYS, values, strict=True)]
    assert digests(imported, RowBatch(KEYS, [0] * 5, {"pooled": values})) == [row_digest(imported, r) for r in rows]


def test_a_batch_comes_back_as_it_was(spec, make_row, tmp_path):
    batch = stack(spec, [make_row(spec, n) for n in range(3)])
    path = tmp_path / "x.parquet"
    path.write_bytes(encode(spec, batch))
    back = to_batch(spec, decode(path))
    assert (list(back.keys), list(back.views), list(back.facts)) == (batch.keys, batch.views, batch.facts)
    for name, array in batch.outputs.items():
        np.testing.assert_array_equal(back.outputs[name], array, strict=True)


def test_imported_features_keep_nan_and_infinity_and_carry_no_facts(filled, values):
    np.testing.assert_array_equal(filled.matrix("pooled", KEYS), values)
    table = filled.read()
    assert table.column_names == ["video_sha256", "view", "pooled"]
    np.testing.assert_array_equal(np.array(table["pooled"].to_pylist(), np.float32), values)
    frame = pl.read_parquet(filled.folder / "shards" / "*.parquet")
    np.testing.assert_array_equal(frame["pooled"].to_numpy(), values)


def test_rows_may_be_appended_one_by_one_too(filled):
    filled.append(
        [FeatureRow(key="a" * 64, outputs={"pooled": np.full(3, np.nan, np.float32)})], profile={}, run_id="r"
    )
    assert np.isnan(filled.matrix("pooled", ["a" * 64])).all()


def test_sums_leave_out_rows_that_are_not_finite(filled, values):
    sums = filled.commits()[0].statistics["pooled"]
    kept = values[[0, 2, 4]].astype(np.float64)
    assert sums.n == 3
    assert list(sums.sum) == kept.sum(axis=0).tolist()
    assert list(sums.sum_of_squares) == (kept**2).sum(axis=0).tolist()


def test_rows_without_one_finite_row_have_empty_sums(imported):
    batch = RowBatch(KEYS[:2], [0, 0], {"pooled": np.full((2, 3), np.nan, np.float32)})
    assert statistics(imported, batch) == {
        "pooled": {"n": 0, "sum": [0.0, 0.0, 0.0], "sum_of_squares": [0.0, 0.0, 0.0]}
    }


def test_verify_reads_imported_sets_and_finds_what_is_changed_in_them(filled, root):
    assert verify(root).problems == []
    path = next(filled.folder.glob("shards/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    assert len(verify(root).problems) == 1


def test_an_extracted_set_still_refuses_what_is_not_finite(root, text_spec):
    features = FeatureStore(root).create_set(text_spec, license="MIT")
    values = np.zeros((2, 8), np.float32)
    values[1, 1] = np.inf
    with pytest.raises(StoreError, match="1 of 16 values of output 'pooled' are NaN or infinite") as caught:
        features.append_arrays(KEYS[:2], {"pooled": values}, profile={}, run_id="r")
    assert caught.value.reason is Reason.NON_FINITE
    assert not (features.folder / "shards").exists()


def test_rows_with_facts_cannot_be_given_as_columns(features):
    with pytest.raises(StoreError, match="carry facts about their clip"):
        features.append_arrays(KEYS[:1], {"pooled": np.zeros((1, 4), np.float32)}, profile={}, run_id="r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": []}, "nothing to append"),
        ({"keys": ["x"] * 5}, "64 lower-case hex digits"),
        ({"views": [0, 0]}, "expected one view per row, 0 to 0"),
        ({"views": [0, 0, 0, 0, 1]}, "expected one view per row, 0 to 0"),
        ({"outputs": {}}, "expected outputs"),
        ({"outputs": {"pooled": np.zeros((5, 3))}}, r"must be float32 \(5, 3\), got float64"),
        ({"outputs": {"pooled": np.zeros((4, 3), np.float32)}}, r"got float32 \(4, 3\)"),
    ],
)
def test_a_batch_that_does_not_follow_the_spec_is_refused(root, imported, values, changes, message):
    features = FeatureStore(root).create_set(imported, license="MIT")
    given = {"keys": KEYS, "outputs": {"pooled": values}, "views": None, **changes}
    with pytest.raises(StoreError, match=message):
        features.append_arrays(given.pop("keys"), given.pop("outputs"), **given, profile={}, run_id="r")
    assert not (features.folder / "shards").exists()


def test_an_imported_row_with_facts_is_refused(root, imported, spec, make_row):
    features = FeatureStore(root).create_set(imported, license="MIT")
    row = replace(make_row(spec, 1), outputs={"pooled": np.zeros(3, np.float32)})
    with pytest.raises(StoreError, match="expected facts"):
        features.append([row], profile={}, run_id="r")

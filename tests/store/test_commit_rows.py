"""The rows of a commit, read by their fixed widths, are those that the schema finds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import StoreError
from vqa_train.store.commit_rows import ROW, _by_width, read_rows
from vqa_train.store.seal import sealed


def record_of(rows: list[tuple[bytes, int, bytes]]) -> dict:
    """The fields of a commit of rows (32 bytes of key, view, 8 bytes of digest)."""
    return {
        "schema": "vqa-train/shard-commit/1",
        "shard": "s",
        "fingerprint": "0" * 64,
        "sha256": "1" * 64,
        "bytes": 7,
        "rows": len(rows),
        "profile": {"device": 'a "quoted",\nline', "b": "é"},
        "run_id": "r",
        "created": "c",
        "keys": [key.hex() for key, _, _ in rows],
        "views": [view for _, view, _ in rows],
        "digests": [digest.hex() for _, _, digest in rows],
        "statistics": {"pooled": {"n": 1, "sum": [0.5], "sum_of_squares": [0.25]}},
    }


rows_of_a_commit = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8)),
    min_size=1,
    max_size=6,
)


@given(rows_of_a_commit)
def test_both_ways_of_reading_give_what_was_written(rows):
    record = record_of(rows)
    data = sealed(record)
    # The same fields in another order: JSON as good, but not laid out as `append` does it.
    reordered = sealed(dict(sorted(record.items())))
    assert _by_width(data) is not None
    assert _by_width(reordered) is None
    for text in (data, reordered):
        entry, found = read_rows(text, "commit")
        assert found.dtype == ROW
        assert [
            (bytes(row["key"]).ljust(32, b"\0"), row["view"], bytes(row["digest"]).ljust(8, b"\0")) for row in found
        ] == rows
        assert found["row"].tolist() == list(range(len(rows)))
        assert (entry.shard, entry.rows, entry.bytes, entry.run_id) == ("s", len(rows), 7, "r")
        assert dict(entry.profile) == record["profile"]


KEY, DIGEST = b"\x0a" * 32, b"\x0b" * 8


@pytest.mark.parametrize(
    "change",
    [
        {"keys": ["0A" * 32]},
        {"keys": ["0a " * 21 + "0"]},
        {"keys": ["0a" * 31]},
        {"keys": ["0a" * 32, "0b" * 32]},
        {"digests": ["0b" * 8, "0b" * 8]},
        {"digests": ["zz" * 8]},
        {"views": [-1]},
        {"views": [0.5]},
        {"views": [2**32]},
        {"views": []},
        {"views": 0},
        {"rows": 2},
        {"rows": 0},
        {"sha256": "x"},
        {"profile": {"device": 1}},
        {"extra": 1},
        {"schema": "vqa-train/shard-commit/2"},
    ],
    ids=str,
)
def test_what_the_schema_refuses_is_refused(change):
    record = {**record_of([(KEY, 0, DIGEST)]), **change}
    with pytest.raises(StoreError, match="^commit"):
        read_rows(sealed(record), "commit")


def test_a_view_for_each_row_is_needed():
    record = {**record_of([(KEY, 0, DIGEST), (KEY, 1, DIGEST)]), "views": [0]}
    with pytest.raises(StoreError, match="rows is 2, but there are 2 keys, 1 views"):
        read_rows(sealed(record), "commit")


def test_a_changed_byte_is_found():
    data = bytearray(sealed(record_of([(KEY, 0, DIGEST)])))
    data[data.index(b"0a0a")] ^= 1
    with pytest.raises(StoreError, match="damaged"):
        read_rows(bytes(data), "commit")


def test_the_widths_are_those_of_a_real_commit(features, make_row):
    commit = features.append([make_row(features.spec, n, v) for n in range(3) for v in (0, 1)], profile={}, run_id="r")
    data = (features.folder / "shards" / f"{commit.shard}.json").read_bytes()
    entry, rows = _by_width(data)
    said = json.loads(data)
    assert rows["key"].tobytes().hex() == "".join(said["keys"])
    assert rows["digest"].tobytes().hex() == "".join(said["digests"])
    assert np.array_equal(rows["view"], said["views"])
    assert (entry.sha256, entry.bytes) == (said["sha256"], said["bytes"])

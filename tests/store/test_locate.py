"""Many keys are found with arrays: the same rows as one by one, whatever the order and number of shards."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import StoreError
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.store.commits import complete_keys, places
from vqa_train.store.index import EMPTY, RowIndex
from vqa_train.store.locate import locate
from vqa_train.store.records import ShardCommit

SPEC = FeatureSpec(
    backbone="x",
    definition=1,
    modality="text",
    outputs=(OutputSpec(name="pooled", shape=(2,)),),
    sampling=Sampling(mode="uniform", n=1, views=2),
)


def commit(name: str, rows: list[tuple[int, int, int]]) -> ShardCommit:
    """A commit of (key, view, digest) rows."""
    return ShardCommit(
        schema="vqa-train/shard-commit/1",
        shard=name,
        fingerprint=SPEC.fingerprint,
        sha256="0" * 64,
        bytes=1,
        rows=len(rows),
        keys=tuple(f"{key:064x}" for key, _, _ in rows),
        views=tuple(view for _, view, _ in rows),
        digests=tuple(f"{digest:016x}" for _, _, digest in rows),
        profile={},
        run_id="r",
        created="",
        statistics={},
        seal="0" * 64,
    )


rows_of_a_shard = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.lists(rows_of_a_shard, min_size=1, max_size=4), st.data())
def test_the_choice_is_that_of_places(shards, data):
    commits = [commit(f"s{number}", rows) for number, rows in enumerate(shards)]
    complete = sorted(complete_keys(commits, 2))
    if not complete:
        return
    keys = data.draw(st.lists(st.sampled_from(complete), min_size=1, max_size=10))
    expected = places(commits, set(keys))
    index = RowIndex.of(commits)
    found = locate(SPEC, index, keys, 2)
    for view in range(2):
        for position, key in enumerate(keys):
            place = expected[key, view]
            assert index.shards[found.shards[view, position]].shard == place.shard
            assert found.rows[view, position] == place.row
            assert found.digests[view, position].decode() == place.digest


def test_rows_are_given_shard_by_shard_with_ascending_positions():
    commits = [commit("a", [(1, 0, 1), (2, 0, 1)]), commit("b", [(3, 0, 1), (4, 0, 1)])]
    keys = [f"{n:064x}" for n in (4, 1, 3, 2, 1)]
    parts = [(s, p.tolist(), r.tolist()) for s, p, r in locate(SPEC, RowIndex.of(commits), keys, 1).by_shard(0)]
    assert parts == [(0, [1, 3, 4], [0, 1, 0]), (1, [0, 2], [1, 0])]


def test_the_hash_depends_on_keys_order_and_rows_and_not_on_shards():
    one = [commit("a", [(1, 0, 1), (2, 0, 2)])]
    two = [commit("p", [(2, 0, 2)]), commit("q", [(1, 0, 1), (9, 0, 1)])]
    other = [commit("a", [(1, 0, 1), (2, 0, 3)])]
    keys = [f"{n:064x}" for n in (1, 2)]
    assert locate(SPEC, RowIndex.of(one), keys, 1).sha256 == locate(SPEC, RowIndex.of(two), keys, 1).sha256
    distinct = {locate(SPEC, RowIndex.of(one), order, 1).sha256 for order in (keys, keys[::-1], keys[:1])}
    assert len(distinct | {locate(SPEC, RowIndex.of(other), keys, 1).sha256}) == 4
    alike = [commit("a", [(1, 0, 7), (2, 0, 7)])]
    assert locate(SPEC, RowIndex.of(alike), keys, 1).sha256 != locate(SPEC, RowIndex.of(alike), keys[::-1], 1).sha256


def test_keys_without_a_row_are_counted_and_named():
    commits = [commit("a", [(1, 0, 1), (1, 1, 1), (2, 0, 1)])]
    with pytest.raises(StoreError, match=r"view 1\) for 1 of 2 keys: 0000"):
        locate(SPEC, RowIndex.of(commits), [f"{n:064x}" for n in (1, 2, 2)], 2)
    with pytest.raises(StoreError, match=r"for 2 of 3 keys: 222222222222, 111111111111 "):
        locate(SPEC, RowIndex.of(commits), ["2" * 64, f"{1:064x}", "1" * 64], 1)
    with pytest.raises(StoreError, match=r"for 1 of 1 keys: short"):
        locate(SPEC, RowIndex.of(commits), ["short"], 1)
    with pytest.raises(StoreError, match=r"for 1 of 1 keys"):
        locate(SPEC, EMPTY, ["1" * 64], 1)

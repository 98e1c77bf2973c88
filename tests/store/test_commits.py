"""Commits are read once and listed anew; which row answers for a key is decided by the rows alone."""

from __future__ import annotations

import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.errors import StoreError
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.commits import CommitLog, complete_keys, places, read_commit
from vqa_train.store.records import ShardCommit
from vqa_train.store.store import FeatureStore


def commit_of(rows: list[tuple[int, int, int]], shard: str = "s") -> ShardCommit:
    """A commit of rows (key, view, digest), without a shard."""
    return ShardCommit.model_construct(
        shard=shard,
        keys=tuple(f"{key:064x}" for key, _, _ in rows),
        views=tuple(view for _, view, _ in rows),
        digests=tuple(f"{digest:016x}" for _, _, digest in rows),
    )


def test_commits_of_other_writers_are_seen(features, make_row, root):
    other = FeatureStore.open(root).find("nss")
    assert features.commits() == []
    commit = other.append([make_row(features.spec, 1)], profile={}, run_id="r")
    assert features.commits() == [commit]


def test_each_commit_file_is_read_once(features, make_row):
    log = CommitLog(features.folder, features.fingerprint)
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    (first,) = log.all()
    features.append([make_row(features.spec, 2)], profile={}, run_id="r")
    assert [commit for commit in log.all() if commit is first] == [first]
    assert len(log.all()) == 2


def test_a_folder_has_a_stamp_once_it_rests(features, make_row, tmp_path):
    shards = features.folder / "shards"
    assert filesystem.stamp(shards) is None
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    assert filesystem.stamp(shards) is None
    os.utime(shards, (1000, 1000))
    assert filesystem.stamp(shards) == 1000 * 10**9


def test_a_commit_into_a_folder_that_rested_is_seen(features, make_row, root):
    features.append([make_row(features.spec, 1, v) for v in (0, 1)], profile={}, run_id="r")
    os.utime(features.folder / "shards", (1000, 1000))
    assert len(features.known_keys()) == 1
    FeatureStore.open(root).find("nss").append([make_row(features.spec, 2, v) for v in (0, 1)], profile={}, run_id="r")
    assert len(features.known_keys()) == 2
    assert len(features.known_keys()) == 2


def test_a_damaged_commit_is_an_error_that_names_it(features, make_row, root):
    commit = features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    path = features.folder / "shards" / f"{commit.shard}.json"
    path.write_bytes(path.read_bytes().replace(b'"run_id": "r"', b'"run_id": "R"'))
    with pytest.raises(StoreError, match=f"{commit.shard}.json' is damaged.*store verify"):
        FeatureStore.open(root).find("nss").known_keys()


def test_a_commit_under_another_name_or_set_is_refused(features, make_row, text_spec, root):
    commit = features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    path = features.folder / "shards" / f"{commit.shard}.json"
    copy = shutil.copy(path, path.with_name("copy.json"))
    with pytest.raises(StoreError, match="expected copy of"):
        read_commit(path.with_name("copy.json"), features.fingerprint)
    with pytest.raises(StoreError, match=f"expected {commit.shard} of {text_spec.fingerprint[:12]}"):
        read_commit(path, text_spec.fingerprint)
    assert read_commit(path, None).shard == commit.shard
    copy.unlink()


def test_a_key_is_complete_when_all_its_views_are_there(features, make_row):
    spec: FeatureSpec = features.spec
    features.append([make_row(spec, 1, 0), make_row(spec, 2, 0)], profile={}, run_id="r")
    features.append([make_row(spec, 2, 1), make_row(spec, 3, 1)], profile={}, run_id="r")
    one, two = make_row(spec, 1).key, make_row(spec, 2).key
    assert features.known_keys() == {two}
    assert features.known_keys(views=2) == {two}
    assert features.known_keys(views=1) == {one, two}


rows_of = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), max_size=12)


@given(st.lists(rows_of, min_size=1, max_size=4), st.integers(1, 3))
def test_complete_keys_are_those_of_a_naive_count(batches, views):
    pairs = {(key, view) for batch in batches for key, view, _ in batch}
    expected = {f"{key:064x}" for key in range(6) if all((key, view) in pairs for view in range(views))}
    assert complete_keys([commit_of(batch) for batch in batches], views) == expected


@given(st.lists(rows_of, min_size=1, max_size=4), st.randoms())
def test_the_smallest_digest_is_read_whatever_the_order(batches, rng):
    commits = [commit_of(batch, shard=f"shard{i}") for i, batch in enumerate(batches)]
    found = places(commits)
    expected = {}
    for batch in batches:
        for key, view, digest in batch:
            name = (f"{key:064x}", view)
            expected[name] = min(expected.get(name, digest), digest)
    assert {name: int(place.digest, 16) for name, place in found.items()} == expected
    rng.shuffle(commits)
    assert places(commits) == found


def test_places_of_some_keys_are_those_of_all_that_have_them():
    commit = commit_of([(1, 0, 0), (2, 0, 0), (2, 1, 0)])
    assert set(places([commit], {f"{2:064x}", f"{9:064x}"})) == {(f"{2:064x}", 0), (f"{2:064x}", 1)}

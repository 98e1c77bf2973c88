"""The row index answers as a naive search does, in memory and from its file."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store import commits as commits_module
from vqa_train.store.commit_rows import ROW, entry_of, records_of
from vqa_train.store.commits import CommitLog, complete_keys, places
from vqa_train.store.index import EMPTY, RowIndex, hex_keys, key_bytes
from vqa_train.store.index_file import load_index, save_index
from vqa_train.store.records import ShardCommit
from vqa_train.store.store import FeatureStore

# Ends and beginnings in zero bytes, and neighbours: what a comparison of text that stops at NUL would confuse.
KEYS = ["00" * 32, "00" * 31 + "01", "01" + "00" * 31, "01" + "00" * 30 + "01", "ff" * 32, "ab" * 32]
DIGESTS = ["00" * 8, "00" * 7 + "01", "01" + "00" * 7, "ff" * 8]


def commit(name: str, rows: list[tuple[int, int, int]]) -> ShardCommit:
    """A commit of rows (number of the key, view, number of the digest)."""
    return ShardCommit.model_construct(
        shard=name,
        fingerprint="f",
        sha256=sha256_bytes(name.encode()),
        bytes=1,
        rows=len(rows),
        profile={"device": name[-1]},
        run_id=f"run {name[0]}",
        keys=tuple(KEYS[key] for key, _, _ in rows),
        views=tuple(view for _, view, _ in rows),
        digests=tuple(DIGESTS[digest] for _, _, digest in rows),
    )


rows_of = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=12)
shards_of = st.dictionaries(st.text("abcd", min_size=1, max_size=3), rows_of, max_size=5)


def by_name(shards: dict[str, list[tuple[int, int, int]]]) -> list[ShardCommit]:
    return [commit(name, rows) for name, rows in sorted(shards.items())]


def same(a: RowIndex, b: RowIndex) -> bool:
    return a.shards == b.shards and a.rows.tobytes() == b.rows.tobytes() and a.rows.dtype == b.rows.dtype == ROW


@given(shards_of, st.integers(1, 3))
def test_complete_keys_are_those_of_a_naive_count(shards, views):
    commits = by_name(shards)
    assert RowIndex.of(commits).known_keys(views) == complete_keys(commits, views)


@given(shards_of)
def test_the_rows_that_are_taken_are_those_of_a_naive_search(shards):
    commits = by_name(shards)
    index, expected = RowIndex.of(commits), places(commits)

    def named(at: np.ndarray) -> list[tuple]:
        rows = index.rows[at]
        shard_names = [index.shards[number].shard for number in rows["shard"]]
        keys = hex_keys(np.ascontiguousarray(rows["key"]))
        return list(zip(keys, rows["view"].tolist(), shard_names, rows["row"].tolist(), strict=True))

    everything = [(key, view, place.shard, place.row) for (key, view), place in sorted(expected.items())]
    assert named(index.taken()) == everything
    assert index.num_rows() == len(everything)
    wanted = [KEYS[5], KEYS[0], KEYS[2], KEYS[0]]
    assert named(index.of_keys(key_bytes(wanted))) == [row for row in everything if row[0] in wanted]
    for view in range(3):
        found = index.find(key_bytes(KEYS), view)
        assert [named(found[i : i + 1])[0] if found[i] >= 0 else None for i in range(len(KEYS))] == [
            next((row for row in everything if row[:2] == (key, view)), None) for key in KEYS
        ]


@given(shards_of, shards_of, st.sets(st.text("abcd", min_size=1, max_size=3)))
def test_a_changed_index_is_one_made_anew(before, added, removed):
    added = {name: rows for name, rows in added.items() if name not in before}
    parts = [(entry_of(each), records_of(each)) for each in by_name(added)]
    changed = RowIndex.of(by_name(before)).changed(parts, frozenset(removed & set(before)))
    left = {name: rows for name, rows in {**before, **added}.items() if name not in removed & set(before)}
    assert same(changed, RowIndex.of(by_name(left)))


@given(st.lists(st.sampled_from([*KEYS, "AB" * 32, "ab", "", "zz" * 32, "ab" * 31 + " a", "é" * 64]), max_size=3))
def test_keys_become_bytes_only_when_they_are_keys(keys):
    found = key_bytes(keys)
    if all(key in KEYS for key in keys):
        assert found is not None
        assert hex_keys(found) == keys
    else:
        assert found is None


SOME = {"ax": [(0, 0, 1), (1, 0, 1)], "bx": [(1, 0, 0), (2, 1, 2)], "cy": [(4, 0, 3)]}


@pytest.fixture
def saved(tmp_path) -> RowIndex:
    """An index that lies in the cache of `tmp_path`."""
    index = RowIndex.of(by_name(SOME))
    assert save_index(tmp_path, "0" * 64, index, HashCache())
    return index


def test_a_saved_index_is_read_back(saved, tmp_path):
    found = load_index(tmp_path, "0" * 64, {"ax", "bx", "cy"}, HashCache())
    assert found is not None
    assert [vars(entry) | {"fingerprint": ""} for entry in found.shards] == [
        vars(entry) | {"fingerprint": ""} for entry in saved.shards
    ]
    assert found.rows.tobytes() == saved.rows.tobytes()
    assert not found.rows.flags.writeable
    more = [(entry_of(each), records_of(each)) for each in by_name({"ba": [(5, 0, 0)]})]
    assert len(found.changed(more, frozenset({"ax"}))) == 4
    assert load_index(tmp_path, "1" * 64, {"ax"}, HashCache()) is None


def test_an_older_one_goes_when_a_newer_one_is_saved(saved, tmp_path):
    larger = RowIndex.of(by_name({**SOME, "dd": [(5, 0, 0)]}))
    assert save_index(tmp_path, "0" * 64, larger, HashCache())
    assert len(list((tmp_path / "cache").iterdir())) == 2
    found = load_index(tmp_path, "0" * 64, {"ax"}, HashCache())
    assert found is not None
    assert len(found) == len(larger)


@pytest.mark.parametrize("suffix", [".index", ".index.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_no_index(saved, tmp_path, suffix, damage):
    (path,) = (each for each in (tmp_path / "cache").iterdir() if each.name.endswith(suffix))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "flip" else data[:-1])
    assert load_index(tmp_path, "0" * 64, {"ax"}, HashCache()) is None


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert not save_index(tmp_path, "0" * 64, RowIndex.of(by_name(SOME)), HashCache())


def test_the_empty_index_answers(tmp_path):
    assert EMPTY.known_keys(1) == set()
    assert EMPTY.find(key_bytes(KEYS), 0).tolist() == [-1] * 6
    assert len(EMPTY.of_keys(key_bytes(KEYS))) == EMPTY.num_rows() == len(EMPTY.taken()) == 0


@pytest.fixture
def small_is_large(monkeypatch):
    """Any index is worth saving."""
    monkeypatch.setattr(commits_module, "_WORTH_SAVING", 1)


def test_the_next_process_reads_only_commits_that_the_index_lacks(features, make_row, root, small_is_large):
    spec = features.spec
    covered = features.append([make_row(spec, n, v) for n in range(20) for v in (0, 1)], profile={"p": "1"}, run_id="r")
    known = features.known_keys()
    assert len(known) == 20
    path = features.folder / "shards" / f"{covered.shard}.json"
    path.write_bytes(path.read_bytes().replace(b'"run_id":', b'"RUN_ID":'))
    features.append([make_row(spec, 20, v) for v in (0, 1)], profile={"p": "1"}, run_id="s")
    other = FeatureStore.open(root).find("nss")
    # A damaged commit that must not be read shows that it was not; `verify` is what finds it.
    assert other.known_keys() == known | {make_row(spec, 20).key}
    assert other.profiles() == [({"p": "1"}, 42)]
    with pytest.raises(Exception, match="damaged"):
        other.commits()


def test_a_removed_shard_is_not_answered_for(features, make_row, root, small_is_large):
    spec = features.spec
    gone = features.append([make_row(spec, n, v) for n in (1, 3) for v in (0, 1)], profile={}, run_id="r")
    features.append([make_row(spec, n, v) for n in (1, 2) for v in (0, 1)], profile={}, run_id="r")
    assert len(features.known_keys()) == 3
    (features.folder / "shards" / f"{gone.shard}.json").unlink()
    for each in (features, FeatureStore.open(root).find("nss")):
        assert each.known_keys() == {make_row(spec, 1).key, make_row(spec, 2).key}
        assert each.read().num_rows == 4


def test_a_grown_set_is_saved_anew_only_when_much_is_lacking(features, make_row, small_is_large):
    spec = features.spec
    features.append([make_row(spec, n) for n in range(20)], profile={}, run_id="r")
    features.index()
    saved = {path.name for path in (features.folder / "cache").iterdir()}
    features.append([make_row(spec, 20)], profile={}, run_id="r")
    CommitLog(features.folder, features.fingerprint, HashCache()).index()
    assert {path.name for path in (features.folder / "cache").iterdir()} == saved
    features.append([make_row(spec, n) for n in range(21, 25)], profile={}, run_id="r")
    CommitLog(features.folder, features.fingerprint, HashCache()).index()
    assert not saved & {path.name for path in (features.folder / "cache").iterdir()}


def test_a_small_set_has_no_index_file(features, make_row):
    features.append([make_row(features.spec, n) for n in range(20)], profile={}, run_id="r")
    features.known_keys()
    assert not (features.folder / "cache").exists()

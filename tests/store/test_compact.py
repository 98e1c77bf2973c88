"""Compaction: fewer shards, the same rows; profiles, runs, sums and readers are as before; a crash loses nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import StoreError
from vqa_train.store import compact as compact_module
from vqa_train.store.gc import gc
from vqa_train.store.snapshot import current
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

COMPACTOR = Path(__file__).with_name("compactor.py")
PROFILES = ({"device": "cpu"}, {"device": "cuda"})


@pytest.fixture
def filled(features, make_row):
    """30 shards of 3 keys with 2 views each, of two profiles and two runs; every fourth shard's first key is the
    next one's too."""
    for shard in range(30):
        numbers = {3 * shard, 3 * shard + 1, 3 * shard + 2} | ({3 * shard + 3} if shard % 4 == 0 else set())
        rows = [make_row(features.spec, n, v) for n in sorted(numbers) for v in (0, 1)]
        features.append(rows, profile=PROFILES[shard // 10 % 2], run_id=f"run{shard // 15}")
    features.snapshot()
    return features


def told(features) -> Counter:
    """Profile and run of each distinct key and view, for rows that one profile and run alone has written."""
    found: dict = {}
    for commit in features.commits():
        for row in zip(commit.keys, commit.views, commit.digests, strict=True):
            found.setdefault(row, set()).add((commit.profile["device"], commit.run_id))
    return Counter((row, *origins) for row, origins in ((r, sorted(o)) for r, o in found.items()))


def test_there_are_fewer_shards_and_the_same_rows(filled, root):
    table, origins = filled.read(), told(filled)
    mapped = filled.mapped("pooled", sorted(filled.known_keys()))
    report = filled.compact(target_rows=40)
    after = FeatureStore.open(root).find("nss")
    assert report.shards_before == 30
    assert report.shards_after == len(after.commits()) < 10
    assert after.read().equals(table)
    assert told(after) == origins
    # The matrix is named by the digests of its rows: they did not change.
    assert after.mapped("pooled", sorted(after.known_keys())).path == mapped.path
    assert verify(root).problems == []


def test_sums_are_those_of_the_rows(filled):
    filled.compact(target_rows=40)
    rows = np.array(filled.read(columns=["pooled"])["pooled"].to_pylist(), np.float64)
    commits = filled.commits()
    total = sum(commit.rows for commit in commits)
    sums = np.sum([commit.statistics["pooled"].sum for commit in commits], axis=0)
    assert sum(commit.statistics["pooled"].n for commit in commits) == total
    if total == len(rows):
        np.testing.assert_allclose(sums, rows.sum(axis=0))
    for commit in commits:
        keys = dict.fromkeys(commit.keys)
        of_shard = np.array(filled.read(columns=["pooled"], keys=keys)["pooled"].to_pylist(), np.float64)
        np.testing.assert_allclose(commit.statistics["pooled"].sum, of_shard.sum(axis=0))
        np.testing.assert_allclose(commit.statistics["pooled"].sum_of_squares, np.square(of_shard).sum(axis=0))


def test_nothing_is_left_to_do_the_second_time(filled):
    filled.compact(target_rows=40)
    shards = [commit.shard for commit in filled.commits()]
    assert filled.compact(target_rows=40).merged == 0
    assert [commit.shard for commit in filled.commits()] == shards


def test_of_duplicates_the_row_that_readers_take_stays(features, make_row):
    spec = features.spec
    for variant in (0, 1, 1):
        rows = [make_row(spec, 1, v, variant=variant) for v in (0, 1)]
        features.append(rows, profile={}, run_id="r")
    table = features.read()
    report = features.compact()
    assert (report.duplicates, report.shards_after) == (4, 1)
    assert features.read().equals(table)
    (commit,) = features.commits()
    assert commit.rows == 2


def test_other_profiles_and_runs_stay_apart(features, make_row):
    for number, (device, run) in enumerate([("cpu", "a"), ("cpu", "b"), ("cuda", "a"), ("cpu", "a")]):
        features.append([make_row(features.spec, number)], profile={"device": device}, run_id=run)
    assert features.compact().merged == 2
    assert sorted((c.profile["device"], c.run_id, c.rows) for c in features.commits()) == [
        ("cpu", "a", 2),
        ("cpu", "b", 1),
        ("cuda", "a", 1),
    ]


def test_large_shards_are_left_alone(features, make_row):
    for start, count in ((0, 6), (10, 4)):
        features.append([make_row(features.spec, start + n) for n in range(count)], profile={}, run_id="r")
    assert features.compact(target_rows=10).merged == 0
    features.append([make_row(features.spec, 20)], profile={}, run_id="r")
    features.compact(target_rows=10)
    assert sorted(commit.rows for commit in features.commits()) == [5, 6]


def test_wide_rows_are_merged_by_their_bytes(filled, monkeypatch):
    largest = max(commit.bytes for commit in filled.commits())
    monkeypatch.setattr(compact_module, "MAX_BYTES", 3 * largest)
    report = filled.compact(target_rows=10**6)
    assert report.merged > 20
    assert 10 <= report.shards_after <= 15


def test_a_dry_run_changes_nothing(filled, root):
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    before = files()
    planned = filled.compact(target_rows=40, dry_run=True)
    assert files() == before
    done = filled.compact(target_rows=40)
    assert (planned.merged, planned.shards_after, planned.duplicates) == (
        done.merged,
        done.shards_after,
        done.duplicates,
    )


def test_a_snapshot_that_a_killed_compaction_owes_is_made_up_for(filled, root):
    manifest = filled.folder / "manifest.json"
    before = manifest.read_bytes()
    filled.compact(target_rows=40)
    manifest.write_bytes(before)
    assert verify(root).problems == []
    assert filled.compact(target_rows=40).merged == 0
    assert {shard.shard for shard in current(filled.folder)[1].shards} == {c.shard for c in filled.commits()}


def test_the_old_shards_stay_for_the_grace_period_and_then_go(filled, root):
    old = features_files(filled)
    table = filled.read()
    filled.compact(target_rows=40)
    assert old <= features_files(filled)
    assert not [left for left in gc(root, dry_run=False) if left.path.suffix == ".parquet"]
    later = time.time() - 7200
    for path in (filled.folder / "retired").iterdir():
        os.utime(path, (later, later))
    gc(root, dry_run=False)
    assert not old & features_files(filled)
    assert FeatureStore.open(root).find("nss").read().equals(table)
    assert verify(root).problems == []


def features_files(features) -> set[str]:
    return {path.name for path in (features.folder / "shards").glob("*.parquet")}


def test_a_reader_that_listed_the_old_shards_reads_on(filled, root, monkeypatch):
    from vqa_train.store import read as read_module

    table, plain = filled.read(), read_module.check_shard

    def compact_first(*arguments):
        monkeypatch.setattr(read_module, "check_shard", plain)
        FeatureStore.open(root).find("nss").compact(target_rows=40)
        return plain(*arguments)

    monkeypatch.setattr(read_module, "check_shard", compact_first)
    assert filled.read().equals(table)
    assert len(filled.commits()) < 10


def test_a_shard_that_another_took_is_skipped(filled, root, monkeypatch):
    plain = compact_module._still_there

    def retire_first(folder, entries):
        monkeypatch.setattr(compact_module, "_still_there", plain)
        FeatureStore.open(root).find("nss").compact(target_rows=40)
        return plain(folder, entries)

    table = filled.read()
    monkeypatch.setattr(compact_module, "_still_there", retire_first)
    report = filled.compact(target_rows=40)
    assert report.merged == 0
    assert report.skipped > 0
    assert filled.read().equals(table)


def test_a_shard_that_is_not_what_its_commit_says_is_not_merged(filled):
    shard = filled.commits()[0].shard
    path = filled.folder / "shards" / f"{shard}.parquet"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        filled.compact(target_rows=40)
    assert (filled.folder / "shards" / f"{shard}.json").exists()


def test_a_target_below_one_row_is_refused(filled):
    with pytest.raises(StoreError, match="at least 1, got 0"):
        filled.compact(target_rows=0)


def run(*arguments: str) -> list[list[int]]:
    done = subprocess.run(
        [sys.executable, COMPACTOR, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [[int(number) for number in line.split()] for line in done.stdout.splitlines()]


def test_a_killed_compaction_loses_nothing_and_readers_do_not_notice(filled, root):
    table, origins = filled.read(), told(filled)
    trials = run("killed", str(root), "8", "7")
    # They died before, amid and after the merges.
    assert len({left for left, _ in trials}) > 2
    for number, (_, after) in enumerate(trials):
        copy = root.with_name(f"copy{number}")
        assert verify(root.with_name(f"killed{number}")).problems == []
        features = FeatureStore.open(copy).find("nss")
        assert features.read().equals(table)
        assert told(features) == origins
        assert after <= trials[0][1] + 2
        assert verify(copy).problems == []


def test_compactions_at_once_do_no_harm(filled, root):
    table, origins = filled.read(), told(filled)
    ((_, after),) = run("together", str(root), "4")
    features = FeatureStore.open(root).find("nss")
    assert features.read().equals(table)
    assert told(features) == origins
    assert after < 10
    assert verify(root).problems == []

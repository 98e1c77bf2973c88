"""Snapshots list everything committed, and each is chained to the one before by its hash."""

from __future__ import annotations

import hashlib
import json

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store import filesystem
from vqa_train.store.rows import Failure
from vqa_train.store.snapshot import chain, current


@pytest.fixture
def add(features, make_row):
    """`add(n)`: commit the row of key n."""
    return lambda n: features.append([make_row(features.spec, n)], profile={}, run_id="r")


def manifest(features):
    return (features.folder / "manifest.json").read_bytes()


def test_a_snapshot_lists_every_file_with_its_hash(features, add):
    commits = sorted((add(1), add(2)), key=lambda commit: commit.shard)
    features.add_failures([Failure(key=None, id="x", path="x", reason=Reason.UNREADABLE, message="m")], "r")
    sha256, record = features.snapshot()
    assert sha256 == hashlib.sha256(manifest(features)).hexdigest()
    assert (record.parent, record.rows, record.bytes) == (None, 2, sum(commit.bytes for commit in commits))
    for shard, commit in zip(record.shards, commits, strict=True):
        path = features.folder / "shards" / f"{commit.shard}.json"
        assert (shard.shard, shard.sha256, shard.bytes, shard.rows) == (commit.shard, commit.sha256, commit.bytes, 1)
        assert shard.commit_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    (failures,) = (features.folder / "failures").iterdir()
    assert [(f.file, f.sha256) for f in record.failures] == [
        (failures.name, hashlib.sha256(failures.read_bytes()).hexdigest())
    ]
    assert record.spec_sha256 == hashlib.sha256((features.folder / "spec.json").read_bytes()).hexdigest()


def test_each_snapshot_names_the_one_before(features, add):
    hashes = []
    for n in range(3):
        add(n)
        hashes.append(features.snapshot()[0])
    assert json.loads(manifest(features))["parent"] == hashes[1]
    assert [sha256 for sha256, _ in chain(features.folder)] == hashes[::-1]
    assert [len(record.shards) for _, record in chain(features.folder)] == [3, 2, 1]


def test_nothing_new_makes_no_new_snapshot(features, add):
    add(1)
    first, before = features.snapshot(), manifest(features)
    assert features.snapshot() == first
    assert manifest(features) == before
    assert len(list((features.folder / "snapshots").iterdir())) == 1


def test_a_set_without_rows_can_be_snapshotted(features):
    assert features.snapshot()[1].shards == ()


def test_shards_that_were_deleted_are_named_in_the_next_snapshot(features, add):
    gone, kept = add(1), add(2)
    features.snapshot()
    for suffix in (".json", ".parquet"):
        (features.folder / "shards" / f"{gone.shard}{suffix}").unlink()
    record = features.snapshot()[1]
    assert (record.removed, [shard.shard for shard in record.shards]) == ((gone.shard,), [kept.shard])


def test_a_crash_before_the_copy_was_kept_breaks_no_chain(features, add):
    add(1)
    first = features.snapshot()[0]
    (features.folder / "snapshots" / f"{first}.json").unlink()
    add(2)
    features.snapshot()
    assert [sha256 for sha256, _ in chain(features.folder)][1] == first


def test_a_maker_that_was_overtaken_looks_again(features, add, monkeypatch):
    """A rival that saw fewer shards replaces our manifest right after we wrote it."""
    add(1)
    rival_hash = features.snapshot()[0]
    rival = manifest(features)
    add(2)
    write, rivals = filesystem.write, [rival]

    def overtaken(path, data):
        write(path, data)
        if path.name == "manifest.json" and rivals:
            write(path, rivals.pop())

    monkeypatch.setattr(filesystem, "write", overtaken)
    sha256, record = features.snapshot()
    assert not rivals
    assert (len(record.shards), record.parent) == (2, rival_hash)
    assert [link for link, _ in chain(features.folder)] == [sha256, rival_hash]
    assert (features.folder / "snapshots" / f"{sha256}.json").read_bytes() == manifest(features)


def test_a_damaged_manifest_is_an_error_that_says_how_to_restore_it(features, add):
    add(1)
    sha256, record = features.snapshot()
    path = features.folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"rows": 1', b'"rows": 7'))
    with pytest.raises(StoreError, match="damaged.*store repair restores it"):
        features.snapshot()
    path.write_bytes((features.folder / "snapshots" / f"{sha256}.json").read_bytes())
    assert features.snapshot() == (sha256, record)


def test_a_vanished_manifest_is_an_error_rather_than_a_new_beginning(features, add):
    add(1)
    features.snapshot()
    (features.folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match="manifest .* is missing"):
        current(features.folder)


def test_a_missing_link_is_an_error(features, add):
    add(1)
    first = features.snapshot()[0]
    add(2)
    features.snapshot()
    (features.folder / "snapshots" / f"{first}.json").unlink()
    with pytest.raises(StoreError, match=f"snapshot .*{first}.json' is missing"):
        list(chain(features.folder))

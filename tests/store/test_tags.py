"""Tags name snapshots; gc leaves whole what a tag names, verify checks it, and it can be read as it was."""

from __future__ import annotations

import os
import time

import pytest

from vqa_train.core.errors import StoreError
from vqa_train.store import gc as gc_module
from vqa_train.store.gc import gc
from vqa_train.store.snapshot import current
from vqa_train.store.tags import commits_at, reachable, read_tag, tag, tags, untag
from vqa_train.store.verify import verify


def retire(features, shard: str) -> None:
    """What a compaction does to a shard whose rows a larger one holds."""
    commit = features.folder / "shards" / f"{shard}.json"
    place = features.folder / "retired" / commit.name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(commit.read_bytes())
    commit.unlink()
    os.utime(place, (time.time() - 7200,) * 2)


@pytest.fixture
def tagged(features, make_row):
    """A feature set whose first shard is tagged `first`, before the second came."""
    first = features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    tag(features.folder, "first", features.snapshot()[0])
    features.append([make_row(features.spec, n) for n in (1, 2)], profile={}, run_id="r")
    features.snapshot()
    return features, first


def test_a_tag_names_a_snapshot_as_it_was(tagged):
    features, first = tagged
    (found,) = tags(features.folder)
    assert (found.record.name, found.snapshot.rows) == ("first", 1)
    assert [commit.shard for commit in commits_at(features.folder, found.snapshot)] == [first.shard]
    assert reachable(features.folder) == {first.shard}


def test_tagging_the_newest_snapshot_keeps_a_copy_of_it(tagged):
    features, _ = tagged
    manifest = current(features.folder)
    assert manifest is not None
    copy = features.folder / "snapshots" / f"{manifest[0]}.json"
    copy.unlink(missing_ok=True)
    tag(features.folder, "newest", manifest[0])
    assert copy.is_file()
    assert verify(features.folder.parent).ok


def test_a_retired_shard_goes_with_gc_unless_a_tag_keeps_it(root, tagged):
    features, first = tagged
    retire(features, first.shard)
    features.snapshot()
    assert gc(root) == []
    assert verify(root).ok
    (found,) = tags(features.folder)
    assert [commit.keys for commit in commits_at(features.folder, found.snapshot)] == [first.keys]
    untag(features.folder, "first")
    assert {leftover.why for leftover in gc(root)} == {"retired shard", "commit of a retired shard"}
    gc(root, dry_run=False)
    assert not list(features.folder.rglob(f"{first.shard}*"))
    assert verify(root).ok
    assert len(features.read()) == 2


def test_a_shard_that_was_retired_a_moment_ago_may_have_readers(root, tagged):
    features, first = tagged
    untag(features.folder, "first")
    retire(features, first.shard)
    os.utime(features.folder / "retired" / f"{first.shard}.json")
    os.utime(features.folder / "shards" / f"{first.shard}.parquet", (0, 0))
    features.snapshot()
    assert gc(root) == []
    assert gc(root, grace_s=0) != []


def test_what_a_crash_left_of_retiring_goes_without_the_shard(root, tagged):
    features, first = tagged
    commit = (features.folder / "shards" / f"{first.shard}.json").read_bytes()
    retire(features, first.shard)
    (features.folder / "shards" / f"{first.shard}.json").write_bytes(commit)
    assert [leftover.why for leftover in gc(root, dry_run=False)] == ["commit of a retired shard"]
    assert verify(root).ok
    assert len(features.commits()) == 2


def test_a_shard_that_is_tagged_between_listing_and_deletion_stays(root, tagged, monkeypatch):
    features, first = tagged
    snapshot = read_tag(features.folder, "first").snapshot
    untag(features.folder, "first")
    retire(features, first.shard)
    features.snapshot()
    listed = gc_module._leftovers

    def then_tag(folder):
        yield from listed(folder)
        tag(features.folder, "again", snapshot)

    monkeypatch.setattr(gc_module, "_leftovers", then_tag)
    gc(root, dry_run=False)
    assert verify(root).ok
    assert (features.folder / "shards" / f"{first.shard}.parquet").is_file()


def test_without_a_readable_tag_nothing_is_deleted(root, tagged):
    features, first = tagged
    retire(features, first.shard)
    path = features.folder / "tags" / "first.json"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="tag .* is damaged"):
        gc(root, dry_run=False, grace_s=0)
    assert (features.folder / "shards" / f"{first.shard}.parquet").is_file()


@pytest.mark.parametrize("lost", ["parquet", "commit", "snapshot", "damaged"])
def test_verify_finds_what_a_tag_has_lost(root, tagged, lost):
    features, first = tagged
    retire(features, first.shard)
    features.snapshot()
    assert verify(root).ok
    shard = features.folder / "shards" / f"{first.shard}.parquet"
    if lost == "parquet":
        shard.unlink()
    elif lost == "damaged":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif lost == "commit":
        (features.folder / "retired" / f"{first.shard}.json").unlink()
    else:
        (features.folder / "snapshots" / f"{read_tag(features.folder, 'first').snapshot}.json").unlink()
    assert not verify(root).ok


def test_a_tag_is_moved_only_when_told(tagged):
    features, _ = tagged
    newest = current(features.folder)
    assert newest is not None
    with pytest.raises(StoreError, match="names snapshot .* already.*--move"):
        tag(features.folder, "first", newest[0])
    assert tag(features.folder, "first", newest[0], move=True).snapshot == newest[0]
    assert tag(features.folder, "first", newest[0]).snapshot == newest[0]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "a" * 101, "ü", "a b", "-x", "a\n"])
def test_a_name_that_is_none_is_refused(tagged, name):
    with pytest.raises(StoreError, match="must be 1 to 100 letters"):
        tag(tagged[0].folder, name, "0" * 64)


def test_unknown_tags_and_snapshots_are_errors(tagged):
    features, _ = tagged
    with pytest.raises(StoreError, match="no tag 'frist'.*did you mean 'first'"):
        untag(features.folder, "frist")
    with pytest.raises(StoreError, match="has no snapshot 000000000000"):
        tag(features.folder, "x", "0" * 64)


def test_a_copied_tag_is_of_the_other_name(tagged):
    features, _ = tagged
    folder = features.folder / "tags"
    (folder / "second.json").write_bytes((folder / "first.json").read_bytes())
    with pytest.raises(StoreError, match="is of 'first'"):
        tags(features.folder)

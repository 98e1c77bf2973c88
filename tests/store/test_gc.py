"""gc takes what crashes and caches left, after a grace period, and nothing that was committed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.store import gc as module
from vqa_train.store.gc import gc
from vqa_train.store.rows import Failure
from vqa_train.store.verify import verify


@pytest.fixture
def littered(features, make_row) -> dict[str, Path]:
    """Leftovers by what they are, two hours old, in a store with committed data."""
    features.append([make_row(features.spec, 1)], profile={}, run_id="r")
    features.add_failures([Failure(key=None, id="x", path="x", reason=Reason.TIMEOUT, message="m")], "r")
    features.snapshot()
    features.write_run({"run_id": "r"})
    root, folder = features.folder.parent, features.folder
    made = {
        "store temporary": root / ".store.json.0a1b2c3d.tmp",
        "set temporary": folder / ".manifest.json.0a1b2c3d.tmp",
        "shard temporary": folder / "shards" / ".x.parquet.0a1b2c3d.tmp",
        "failures temporary": folder / "failures" / ".x.jsonl.0a1b2c3d.tmp",
        "run temporary": folder / "runs" / ".r.json.0a1b2c3d.tmp",
        "snapshot temporary": folder / "snapshots" / ".s.json.0a1b2c3d.tmp",
        "dataset temporary": root / "datasets" / ".konvid1k.yaml.0a1b2c3d.tmp",
        "uncommitted": folder / "shards" / "11111111-1111-4111-8111-111111111111.parquet",
        "cache": folder / "cache" / "moments" / "x.npy",
    }
    for path in made.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
        age(path, 7200)
    return made


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def test_a_dry_run_lists_every_leftover_and_deletes_nothing(root, littered):
    before = everything(root)
    found = gc(root)
    assert {leftover.path for leftover in found} == set(littered.values())
    assert {leftover.bytes for leftover in found} == {5}
    assert everything(root) == before


def test_each_leftover_has_its_reason(root, littered):
    why = {leftover.path: leftover.why for leftover in gc(root)}
    assert why[littered["uncommitted"]] == "shard without a commit"
    assert why[littered["cache"]] == "derived cache"
    assert {reason for path, reason in why.items() if path.suffix == ".tmp"} == {"temporary file"}


def test_deleting_leaves_exactly_the_rest(root, littered):
    before = everything(root)
    gc(root, dry_run=False)
    assert everything(root) == before - set(littered.values())
    assert verify(root).ok
    assert gc(root, dry_run=False) == []


def test_young_leftovers_may_belong_to_a_writer_at_work(root, littered):
    for name in ("uncommitted", "shard temporary"):
        age(littered[name], 60)
    young = {littered["uncommitted"], littered["shard temporary"]}
    assert {leftover.path for leftover in gc(root)} == set(littered.values()) - young
    assert {leftover.path for leftover in gc(root, grace_s=30)} == set(littered.values())


def test_old_committed_files_stay(root, littered):
    for path in everything(root):
        age(path, 10**8)
    assert {leftover.path for leftover in gc(root)} == set(littered.values())


def test_files_that_are_not_ours_stay(root, littered):
    notes = [root / "notes.tmp", root / ".hidden", root / "other" / ".x.json.0a1b2c3d.tmp"]
    notes.append(next(root.glob("nss@*")) / "shards" / "readme.txt")
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        age(path, 10**8)
    assert not {leftover.path for leftover in gc(root)} & set(notes)


def test_links_are_not_followed(root, littered, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.npy").touch()
    (littered["cache"].parent / "link").symlink_to(outside)
    gc(root, dry_run=False, grace_s=0)
    assert (outside / "precious.npy").exists()
    assert not (littered["cache"].parent / "link").is_symlink()


def test_a_shard_that_was_committed_meanwhile_stays(root, littered, monkeypatch):
    """The writer wakes up between the listing and the deletion."""
    shard = littered["uncommitted"]
    listed = module._leftovers

    def then_commit(folder):
        yield from listed(folder)
        shard.with_suffix(".json").touch()

    monkeypatch.setattr(module, "_leftovers", then_commit)
    gc(root, dry_run=False)
    assert shard.exists()


def test_what_is_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="not a feature store"):
        gc(tmp_path)

"""repair makes any damaged store whole again: what is damaged is moved aside and logged, the rest verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqa_train.core.errors import Reason, StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store.gc import gc
from vqa_train.store.quarantine import quarantined
from vqa_train.store.repair import repair
from vqa_train.store.rows import Failure
from vqa_train.store.seal import sealed
from vqa_train.store.snapshot import chain, current
from vqa_train.store.store import FeatureStore
from vqa_train.store.tags import tag, tags
from vqa_train.store.verify import verify


@pytest.fixture
def store(root, spec, make_row) -> Path:
    """Three shards of two keys, failures, a chain of three snapshots, a run, a tag of the second snapshot."""
    features = FeatureStore(root).create_set(spec, license="MIT")
    for n in range(3):
        features.append(
            [make_row(spec, key, view) for key in (2 * n, 2 * n + 1) for view in (0, 1)], profile={}, run_id="r"
        )
        sha256, _ = features.snapshot()
        if n == 1:
            tag(features.folder, "second", sha256)
    features.add_failures([Failure(key="1" * 64, id="x", path="x", reason=Reason.TIMEOUT, message="slow")], "r")
    features.snapshot()
    features.write_run({"run_id": "r"})
    return root


def open_set(store):
    return FeatureStore.open(store).find("nss")


def files_of(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def extract_again(store, spec, make_row) -> None:
    """What the next extraction does: rows for the keys that lack them."""
    features = FeatureStore(store).create_set(spec, license="MIT")
    known = features.known_keys()
    rows = [make_row(spec, key, view) for key in range(6) for view in (0, 1)]
    rows = [row for row in rows if row.key not in known]
    if rows:
        features.append(rows, profile={}, run_id="again")
    features.snapshot()


def test_a_whole_store_is_left_as_it_is(store):
    before = {path: path.read_bytes() for path in files_of(store)}
    report = repair(store)
    assert (report.moved, report.mended, report.left) == ([], [], [])
    assert {path: path.read_bytes() for path in files_of(store)} == before


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_whatever_file_is_damaged_repair_and_an_extraction_bring_all_rows_back(store, spec, make_row, how):
    expected = open_set(store).read()
    original = {path: path.read_bytes() for path in files_of(store)}
    for path, data in original.items():
        for other, whole in original.items():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(whole)
        for extra in set(files_of(store)) - set(original):
            extra.unlink()
        damaged = {"flipped": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1], "empty": b"", "gone": None}[how]
        if damaged is None:
            path.unlink()
        else:
            path.write_bytes(damaged)
        was_ok = verify(store).ok
        report = repair(store)
        if path.name == "spec.json":
            assert any("writes it anew" in line for line in report.left)
            extract_again(store, spec, make_row)
            report = repair(store)
        assert report.left == [], path
        assert verify(store).problems == []
        extract_again(store, spec, make_row)
        assert open_set(store).read().equals(expected), path
        assert verify(store).problems == []
        if was_ok:
            assert report.moved == []
        elif how != "gone":
            kept = [p.read_bytes() for p in store.rglob("quarantine/*") if not p.name.endswith(".log")]
            assert data not in kept
            assert damaged in kept or path.name in ("store.json", "manifest.json")


def test_what_was_moved_is_logged_with_the_keys_that_lost_their_rows(store):
    features = open_set(store)
    # One that the tag has: which place it takes among the others is up to its random name.
    (tagged,) = (each for each in tags(features.folder) if each.record.name == "second")
    lost = next(commit for commit in features.commits() if commit.shard == tagged.snapshot.shards[0].shard)
    shard = features.folder / "shards" / f"{lost.shard}.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    (moved,) = (moved for moved in repair(store).moved if moved.keys)
    assert (set(moved.keys), len(moved.keys)) == (set(lost.keys), 2)
    log = [record for record in quarantined(features.folder) if record.keys]
    assert set(log[0].files.values()) == {f"shards/{lost.shard}.json", f"shards/{lost.shard}.parquet"}
    assert "is damaged" in log[0].why
    for name in log[0].files:
        assert (features.folder / "quarantine" / name).is_file()
    assert open_set(store).known_keys().isdisjoint(lost.keys)
    newest = current(features.folder)
    assert newest is not None and newest[1].removed == (lost.shard,)
    assert gc(store, grace_s=0, dry_run=False) == []
    assert len(list(quarantined(features.folder))) == len(log) + 1, "gc keeps the quarantine; the tag is in it too"


def test_a_tag_whose_shards_are_lost_goes_and_the_others_stay(store):
    features = open_set(store)
    newest = current(features.folder)
    assert newest is not None
    tag(features.folder, "all", newest[0])
    second = next(each for each in tags(features.folder) if each.record.name == "second")
    only_in_all = {s.shard for s in newest[1].shards} - {s.shard for s in second.snapshot.shards}
    (features.folder / "shards" / f"{only_in_all.pop()}.parquet").unlink()
    repair(store)
    assert [each.record.name for each in tags(features.folder)] == ["second"]


def test_a_dry_run_changes_nothing_and_says_the_same(store):
    next(store.rglob("*.parquet")).write_bytes(b"")
    (store / "store.json").unlink()
    before = {path: path.read_bytes() for path in files_of(store)}
    said = repair(store, dry_run=True)
    assert {path: path.read_bytes() for path in files_of(store)} == before
    done = repair(store)
    assert [(m.places, m.why) for m in said.moved if "tags" not in m.places[0]] == [
        (m.places, m.why) for m in done.moved if "tags" not in m.places[0]
    ]
    assert said.mended == done.mended
    assert verify(store).ok


def test_a_lost_manifest_is_restored_with_its_history(store):
    manifest = open_set(store).folder / "manifest.json"
    whole = manifest.read_bytes()
    newest = sha256_bytes(whole)
    manifest.write_bytes(b"{}")
    (manifest.parent / "snapshots" / f"{newest}.json").unlink(missing_ok=True)
    repair(store)
    assert verify(store).ok
    assert len(list(chain(manifest.parent))) == 4, "the three that were kept, and one of what came since"


def test_a_broken_chain_begins_anew(store):
    folder = open_set(store).folder
    first = list(chain(folder))[-1][0]
    (folder / "snapshots" / f"{first}.json").unlink()
    report = repair(store)
    assert any("a new chain begins" in line for line in report.mended)
    assert [record.parent for _, record in chain(folder)] == [None]
    assert verify(store).ok


def test_a_commit_that_was_exchanged_is_moved_aside(store):
    path = next(store.rglob("shards/*.json"))
    path.write_bytes(sealed({**json.loads(path.read_bytes()), "run_id": "other"}))
    report = repair(store)
    assert any(f"shards/{path.name}" in moved.places and "not the one" in moved.why for moved in report.moved)
    assert verify(store).ok


def test_a_newer_version_is_no_damage(store):
    path = next(store.rglob("shards/*.json"))
    path.write_bytes(sealed({**json.loads(path.read_bytes()), "schema": "vqa-train/shard-commit/2"}))
    before = {each: each.read_bytes() for each in files_of(store)}
    with pytest.raises(StoreError, match="newer version: pip install --upgrade"):
        repair(store)
    assert {each: each.read_bytes() for each in files_of(store)} == before


def test_what_is_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="has no store.json"):
        repair(tmp_path)

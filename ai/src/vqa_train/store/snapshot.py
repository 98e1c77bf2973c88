"""The verb snapshot: manifest.json lists every shard with its sha256 and is chained to the snapshot before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store import filesystem
from vqa_train.store.append import now
from vqa_train.store.commit_rows import ShardEntry
from vqa_train.store.commits import CommitLog
from vqa_train.store.failures import checked_bytes
from vqa_train.store.layout import FAILURES, MANIFEST_FILE, SHARDS, SNAPSHOT_SCHEMA, SNAPSHOTS, SPEC_FILE
from vqa_train.store.records import SnapshotRecord
from vqa_train.store.seal import check_seal, parse_sealed, sealed

_RESTORE = "vqa-train store repair restores it"


def current(folder: Path) -> tuple[str, SnapshotRecord] | None:
    """sha256 and content of manifest.json, None when nothing was snapshotted yet.

    Raises:
        StoreError: damaged, or gone while earlier snapshots are there.
    """
    found = _read_manifest(folder)
    return (sha256_bytes(found[0]), found[1]) if found is not None else None


def _read_manifest(folder: Path) -> tuple[bytes, SnapshotRecord] | None:
    path = folder / MANIFEST_FILE
    # In this order: a snapshot is only ever kept after the first manifest is there.
    kept = filesystem.names(folder / SNAPSHOTS, ".json")
    if not filesystem.exists(path):
        if kept:
            raise StoreError(f"manifest {str(path)!r} is missing though {SNAPSHOTS}/ is not empty", hint=_RESTORE)
        return None
    data = filesystem.read(path, "manifest")
    try:
        return data, parse_sealed(SnapshotRecord, data, f"manifest {str(path)!r}")
    except StoreError as error:
        raise StoreError(error.message, hint=_RESTORE) from error


def snapshot(folder: Path, fingerprint: str, log: CommitLog) -> tuple[str, SnapshotRecord]:
    """Write manifest.json from what is committed now; sha256 and content. Nothing is written when nothing has changed.

    Of snapshots made at once the last one stands. Each maker looks again after writing, so when the last one returns
    the manifest holds every shard that was committed before it looked. Whatever is returned here, or named as a
    parent, has its copy in snapshots/.

    Raises:
        StoreError: a damaged commit, failures file or manifest, or a failing disk.
    """
    while True:
        found = _read_manifest(folder)
        parent, before = None, []
        if found is not None:
            parent, before = sha256_bytes(found[0]), [shard.shard for shard in found[1].shards]
            # Before anyone is told of it or follows it: its maker may have died, another may replace it now.
            kept = folder / SNAPSHOTS / f"{parent}.json"
            if not filesystem.exists(kept):
                filesystem.write(kept, found[0])
        body = _body_now(folder, fingerprint, log)
        if found is not None and parent is not None and _describes(found[1], body):
            return parent, found[1]
        there = {shard["shard"] for shard in body["shards"]}
        removed = [shard for shard in before if shard not in there]
        record = {"schema": SNAPSHOT_SCHEMA, "parent": parent, "created": now(), **body, "removed": removed}
        filesystem.write(folder / MANIFEST_FILE, sealed(record))


def restart(folder: Path, fingerprint: str, log: CommitLog) -> tuple[str, SnapshotRecord]:
    """Write manifest.json from what is committed now as the first of a new chain; sha256 and content.

    For a chain that is broken: what it had before is not carried on, its whole files stay in snapshots/.

    Raises:
        StoreError: a damaged commit or failures file, or a failing disk.
    """
    record = {"schema": SNAPSHOT_SCHEMA, "parent": None, "created": now(), **_body_now(folder, fingerprint, log)}
    filesystem.write(folder / MANIFEST_FILE, sealed({**record, "removed": []}))
    return snapshot(folder, fingerprint, log)


def _describes(record: SnapshotRecord, body: dict[str, Any]) -> bool:
    return record.model_dump(by_alias=True, mode="json", include=set(body)) == body


def _body_now(folder: Path, fingerprint: str, log: CommitLog) -> dict[str, Any]:
    """What is committed now, looked at again when a compaction retired a commit between its listing and its reading."""
    while True:
        commits = log.index().shards
        try:
            return _body(folder, fingerprint, commits)
        except StoreError:
            if log.index().shards == commits:
                raise


def _body(folder: Path, fingerprint: str, commits: Sequence[ShardEntry]) -> dict[str, Any]:
    shards = []
    paths = [folder / SHARDS / f"{commit.shard}.json" for commit in commits]
    for commit, path, data in zip(commits, paths, filesystem.read_each(paths, "commit"), strict=True):
        # The log may have read it long ago; what is hashed here must be what is whole now.
        check_seal(data, f"commit {str(path)!r}")
        shards.append(
            {
                "shard": commit.shard,
                "sha256": commit.sha256,
                "bytes": commit.bytes,
                "rows": commit.rows,
                "commit_sha256": sha256_bytes(data),
            }
        )
    failures = [
        {"file": name, "sha256": sha256_bytes(checked_bytes(folder / FAILURES / name))}
        for name in filesystem.names(folder / FAILURES, ".jsonl")
    ]
    return {
        "fingerprint": fingerprint,
        "spec_sha256": sha256_bytes(filesystem.read(folder / SPEC_FILE, "feature set")),
        "rows": sum(commit.rows for commit in commits),
        "bytes": sum(commit.bytes for commit in commits),
        "shards": shards,
        "failures": failures,
    }


def chain(folder: Path) -> Iterator[tuple[str, SnapshotRecord]]:
    """sha256 and content of every snapshot from the current one back to the first, each checked against its hash.

    Raises:
        StoreError: a link is missing or damaged.
    """
    link = current(folder)
    while link is not None:
        yield link
        parent = link[1].parent
        link = (parent, read_snapshot(folder / SNAPSHOTS / f"{parent}.json")) if parent is not None else None


def read_snapshot(path: Path) -> SnapshotRecord:
    """The snapshot in `path`, which is named by its sha256.

    Raises:
        StoreError: missing or damaged.
    """
    data = filesystem.read(path, "snapshot")
    if sha256_bytes(data) != path.stem:
        raise StoreError(f"snapshot {str(path)!r} is damaged: its content does not hash to its name")
    return parse_sealed(SnapshotRecord, data, f"snapshot {str(path)!r}")

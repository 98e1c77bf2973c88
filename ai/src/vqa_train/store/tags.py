"""The verbs tag and untag: names for snapshots, which keep every shard that the snapshot lists from gc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.plugins import did_you_mean
from vqa_train.store import filesystem
from vqa_train.store.append import now
from vqa_train.store.layout import MANIFEST_FILE, RETIRED, SHARDS, SNAPSHOTS, TAG_NAME, TAG_SCHEMA, TAGS
from vqa_train.store.records import ShardCommit, SnapshotRecord, TagRecord
from vqa_train.store.seal import parse_sealed, sealed
from vqa_train.store.snapshot import read_snapshot


@dataclass(frozen=True)
class Tag:
    """A tag and the snapshot that it names."""

    record: TagRecord
    snapshot: SnapshotRecord


def check_tag_name(name: str) -> str:
    """`name`, refused when it could not name a file.

    Raises:
        StoreError: empty, too long, or with other characters than letters, digits and . _ -
    """
    if not TAG_NAME.fullmatch(name):
        raise StoreError(f"tag {name!r} must be 1 to 100 letters, digits and . _ -, a letter or digit first")
    return name


def tag(folder: Path, name: str, snapshot: str, *, move: bool = False) -> TagRecord:
    """Name the snapshot with the sha256 `snapshot` of the feature set in `folder`.

    Args:
        move: replace a tag of that name that names another snapshot.

    Raises:
        StoreError: no such snapshot, a name that cannot be one, a tag that is there (without `move`), a failing disk.
    """
    check_tag_name(name)
    _keep(folder, snapshot)
    there = read_tag(folder, name) if f"{name}.json" in filesystem.names(folder / TAGS, ".json") else None
    if there is not None and there.snapshot == snapshot:
        return there
    if there is not None and not move:
        raise StoreError(
            f"tag {name!r} of {folder.name} names snapshot {there.snapshot[:12]} already, not {snapshot[:12]}",
            hint="take another name, or --move it",
        )
    data = sealed({"schema": TAG_SCHEMA, "name": name, "snapshot": snapshot, "created": now()})
    filesystem.write(folder / TAGS / f"{name}.json", data)
    return read_tag(folder, name)


def _keep(folder: Path, snapshot: str) -> None:
    """Have the snapshot under its own name; the newest one may be in manifest.json only."""
    if f"{snapshot}.json" in filesystem.names(folder / SNAPSHOTS, ".json"):
        read_snapshot(folder / SNAPSHOTS / f"{snapshot}.json")
        return
    data = filesystem.read(folder / MANIFEST_FILE, "manifest")
    if sha256_bytes(data) != snapshot:
        raise StoreError(f"{folder.name} has no snapshot {snapshot[:12]}")
    filesystem.write(folder / SNAPSHOTS / f"{snapshot}.json", data)


def untag(folder: Path, name: str) -> None:
    """Remove a tag; what only it kept may go with the next `gc`.

    Raises:
        StoreError: no such tag (with the nearest one), or it cannot be deleted.
    """
    there = [name.removesuffix(".json") for name in filesystem.names(folder / TAGS, ".json")]
    if name not in there:
        raise StoreError(f"{folder.name} has no tag {name!r}", hint=did_you_mean(name, there))
    filesystem.remove(folder / TAGS / f"{name}.json")


def read_tag(folder: Path, name: str) -> TagRecord:
    """The tag called `name`.

    Raises:
        StoreError: missing, damaged, or a copy of a tag of another name.
    """
    path = folder / TAGS / f"{name}.json"
    record = parse_sealed(TagRecord, filesystem.read(path, "tag"), f"tag {str(path)!r}")
    if record.name != name:
        raise StoreError(f"tag {str(path)!r} is of {record.name!r}", hint="was it copied from elsewhere?")
    return record


def tags(folder: Path) -> list[Tag]:
    """Every tag of the feature set in `folder`, by name, with its snapshot.

    Raises:
        StoreError: a damaged tag, or one whose snapshot is missing or damaged.
    """
    records = [read_tag(folder, name.removesuffix(".json")) for name in filesystem.names(folder / TAGS, ".json")]
    return [Tag(record, read_snapshot(folder / SNAPSHOTS / f"{record.snapshot}.json")) for record in records]


def reachable(folder: Path) -> set[str]:
    """Names of the shards that some tag keeps.

    Raises:
        StoreError: as `tags`: with a tag that cannot be read nobody knows what it keeps.
    """
    return {shard.shard for tag in tags(folder) for shard in tag.snapshot.shards}


def commits_at(folder: Path, snapshot: SnapshotRecord) -> Iterator[ShardCommit]:
    """The commits that a snapshot lists, from shards/ or, where a larger shard took over their rows, from retired/.

    Raises:
        StoreError: a commit that is gone, damaged, or not the one that the snapshot lists.
    """
    committed, retired = (set(filesystem.names(folder / place, ".json")) for place in (SHARDS, RETIRED))
    for shard in snapshot.shards:
        name = f"{shard.shard}.json"
        place = SHARDS if name in committed or name not in retired else RETIRED
        path = folder / place / name
        data = filesystem.read(path, "commit")
        if sha256_bytes(data) != shard.commit_sha256:
            raise StoreError(f"commit {str(path)!r} is not the one that the snapshot lists")
        yield parse_sealed(ShardCommit, data, f"commit {str(path)!r}")

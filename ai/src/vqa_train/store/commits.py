"""The commits of a feature set: which shards exist, read once each, and which row of which shard answers for a key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vqa_train.core.errors import StoreError
from vqa_train.store import filesystem
from vqa_train.store.layout import SHARDS
from vqa_train.store.records import ShardCommit
from vqa_train.store.seal import parse_sealed


def read_commit(path: Path, fingerprint: str | None) -> ShardCommit:
    """The commit in `path`, of the feature set `fingerprint` (of any, where that is None).

    Raises:
        StoreError: missing, damaged, or of another shard or feature set than its place says.
    """
    source = f"commit {str(path)!r}"
    commit = parse_sealed(ShardCommit, filesystem.read(path, "commit"), source)
    expected = (path.stem, fingerprint or commit.fingerprint)
    if (commit.shard, commit.fingerprint) != expected:
        raise StoreError(
            f"{source} is of shard {commit.shard} of feature set {commit.fingerprint[:12]}, "
            f"expected {expected[0]} of {expected[1][:12]}",
            hint="was it copied from elsewhere?",
        )
    return commit


class CommitLog:
    """Reads each commit file once; every call lists the folder again, so what others commit meanwhile is seen."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / SHARDS
        self._fingerprint = fingerprint
        self._known: dict[str, ShardCommit] = {}

    def all(self) -> list[ShardCommit]:
        """Every commit, by shard name.

        Raises:
            StoreError: a commit file is damaged.
        """
        listed = filesystem.names(self.folder, ".json")
        for name in listed:
            if name not in self._known:
                self._known[name] = read_commit(self.folder / name, self._fingerprint)
        return [self._known[name] for name in listed]


@dataclass(frozen=True)
class Place:
    """Where the row of a key and view is: row number `row` of shard `shard`."""

    digest: str
    shard: str
    row: int


def complete_keys(commits: Iterable[ShardCommit], views: int) -> set[str]:
    """Keys that have rows for all views 0 to `views` - 1."""
    seen: list[set[str]] = [set() for _ in range(views)]
    for commit in commits:
        if not any(commit.views):
            seen[0].update(commit.keys)
            continue
        for key, view in zip(commit.keys, commit.views, strict=True):
            if view < views:
                seen[view].add(key)
    return set.intersection(*seen)


def places(commits: Iterable[ShardCommit], keys: set[str] | None = None) -> dict[tuple[str, int], Place]:
    """(key, view) -> the row to read; of duplicates the one with the smallest digest.

    The choice depends on the rows alone: not on the order, number or names of the shards that hold them.
    """
    found: dict[tuple[str, int], Place] = {}
    for commit in commits:
        for row, (key, view, digest) in enumerate(zip(commit.keys, commit.views, commit.digests, strict=True)):
            if keys is not None and key not in keys:
                continue
            known = found.get((key, view))
            if known is None or (digest, commit.shard, row) < (known.digest, known.shard, known.row):
                found[key, view] = Place(digest, commit.shard, row)
    return found

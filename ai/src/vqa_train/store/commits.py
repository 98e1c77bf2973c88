"""The commits of a feature set: which shards exist, read once each, and which row of which shard answers for a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vqa_train.core.errors import StoreError
from vqa_train.core.hashcache import HashCache
from vqa_train.store import filesystem
from vqa_train.store.commit_rows import RowArray, ShardEntry, read_rows
from vqa_train.store.index import EMPTY, RowIndex
from vqa_train.store.index_file import load_index, save_index
from vqa_train.store.layout import SHARDS
from vqa_train.store.records import ShardCommit
from vqa_train.store.seal import parse_sealed

T = TypeVar("T")

# Commit files that are held in memory at once.
_AT_ONCE = 256
# Rows from which on a saved index is faster than reading the commits, and the part of them that it may lack.
_WORTH_SAVING = 20_000
_LACKING = 0.1


def read_commit(path: Path, fingerprint: str | None) -> ShardCommit:
    """The commit in `path`, of the feature set `fingerprint` (of any, where that is None).

    Raises:
        StoreError: missing, damaged, or of another shard or feature set than its place says.
    """
    return _parsed(path, filesystem.read(path, "commit"), fingerprint)


def _parsed(path: Path, data: bytes, fingerprint: str | None) -> ShardCommit:
    commit = parse_sealed(ShardCommit, data, f"commit {str(path)!r}")
    _check_place(path, commit, fingerprint)
    return commit


def _check_place(path: Path, commit: ShardCommit | ShardEntry, fingerprint: str | None) -> None:
    expected = (path.stem, fingerprint or commit.fingerprint)
    if (commit.shard, commit.fingerprint) != expected:
        raise StoreError(
            f"commit {str(path)!r} is of shard {commit.shard} of feature set {commit.fingerprint[:12]}, "
            f"expected {expected[0]} of {expected[1][:12]}",
            hint="was it copied from elsewhere?",
        )


class CommitLog:
    """Reads each commit file once; every call looks at the folder again, so what others commit meanwhile is seen.

    Args:
        folder: of the feature set.
        fingerprint: of the feature set.
        hashes: for the saved index; None for none.
    """

    def __init__(self, folder: Path, fingerprint: str, hashes: HashCache | None = None) -> None:
        self.folder = folder / SHARDS
        self._set_folder = folder
        self._fingerprint = fingerprint
        self._hashes = hashes
        self._known: dict[str, ShardCommit] = {}
        self._index = EMPTY
        self._listed: list[str] = []
        self._stamp: int | None = None
        self._saved: frozenset[str] = frozenset()

    def all(self) -> list[ShardCommit]:
        """Every commit, by shard name.

        Raises:
            StoreError: a commit file is damaged.
        """
        return self._settled(self._all)

    def _all(self, listed: list[str]) -> list[ShardCommit]:
        fresh = [name for name in listed if name not in self._known]
        paths = [self.folder / name for name in fresh]
        for path, data in zip(paths, filesystem.read_many(paths, "commit"), strict=True):
            self._known[path.name] = _parsed(path, data, self._fingerprint)
        return [self._known[name] for name in listed]

    def _settled(self, read: Callable[[list[str]], T]) -> T:
        """`read` of the commits that are listed, listed again when one was retired before it was read."""
        while True:
            listed = filesystem.names(self.folder, ".json")
            try:
                return read(listed)
            except StoreError:
                if set(listed) <= set(filesystem.names(self.folder, ".json")):
                    raise

    def index(self) -> RowIndex:
        """The rows of every commit, sorted. Of a large set it is kept in the cache folder and only brought up to date.

        Raises:
            StoreError: a commit file that the saved index does not cover is damaged.
        """
        stamp = filesystem.stamp(self.folder)
        if stamp is None or stamp != self._stamp:
            self._settled(self._brought_up)
            # Taken before the listing: what came since then shows as another stamp.
            self._stamp = stamp
        return self._index

    def _brought_up(self, listed: list[str]) -> RowIndex:
        if listed == self._listed:
            return self._index
        names = {name.removesuffix(".json") for name in listed}
        if not self._listed:
            self._load(names)
        known = {entry.shard for entry in self._index.shards}
        fresh = sorted(names - known)
        added = [each for at in range(0, len(fresh), _AT_ONCE) for each in self._read(fresh[at : at + _AT_ONCE])]
        self._index = self._index.changed(added, frozenset(known - names))
        self._listed = listed
        self._save()
        return self._index

    def _read(self, shards: Sequence[str]) -> list[tuple[ShardEntry, RowArray]]:
        paths = [self.folder / f"{shard}.json" for shard in shards]
        found = []
        for path, data in zip(paths, filesystem.read_many(paths, "commit"), strict=True):
            entry, rows = read_rows(data, f"commit {str(path)!r}")
            _check_place(path, entry, self._fingerprint)
            found.append((entry, rows))
        return found

    def _load(self, names: set[str]) -> None:
        """Begin with the index that an earlier process saved."""
        found = load_index(self._set_folder, self._fingerprint, names, self._hashes) if self._hashes else None
        if found is not None:
            self._index = found
            self._saved = frozenset(entry.shard for entry in found.shards)

    def _save(self) -> None:
        """Keep the index where making it anew takes long and the saved one lacks much of it."""
        if self._hashes is None or len(self._index) < _WORTH_SAVING:
            return
        covered = sum(entry.rows for entry in self._index.shards if entry.shard in self._saved)
        if len(self._index) - covered > len(self._index) * _LACKING:
            save_index(self._set_folder, self._fingerprint, self._index, self._hashes)
            # Whether or not it could be written: this process does not need it, and need not try again soon.
            self._saved = frozenset(entry.shard for entry in self._index.shards)
            self._hashes.save()


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

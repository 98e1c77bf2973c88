"""The verb gc: find, and when told delete, what crashes, compactions and caches left behind; nothing that is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqa_train.store import filesystem
from vqa_train.store.layout import (
    CACHE,
    DATASETS,
    FAILURES,
    QUARANTINE,
    RETIRED,
    RUNS,
    SHARDS,
    SNAPSHOTS,
    STATUS,
    TAGS,
    TEMPORARY,
    set_folders,
)
from vqa_train.store.store import check_store
from vqa_train.store.tags import reachable

DEFAULT_GRACE_S = 3600.0
"""Younger leftovers may belong to a writer at work, between its shard and its commit, or to a reader of old shards."""
_CACHE, _TEMPORARY, _UNCOMMITTED = "derived cache", "temporary file", "shard without a commit"
_RETIRED, _RETIRED_COMMIT = "retired shard", "commit of a retired shard"
_FOLDERS = (SHARDS, FAILURES, SNAPSHOTS, RUNS, RETIRED, TAGS, QUARANTINE)


@dataclass(frozen=True)
class Leftover:
    """A file that `gc` may delete: where, how big, and why it is not part of the store."""

    path: Path
    bytes: int
    why: str
    upload: str | None = None
    """Of an upload that died: the server's name of it."""


def gc(root: Path, *, dry_run: bool = True, grace_s: float = DEFAULT_GRACE_S) -> list[Leftover]:
    """Leftovers of the store at `root`; deleted unless `dry_run`.

    They are: temporary files, shards without a commit, shards that a compaction retired and, behind a URL, uploads that
    were not completed, all older than `grace_s` seconds, and derived caches. A shard that a tag's snapshot lists stays,
    whatever became of its commit.

    Raises:
        StoreError: not a store, a tag that cannot be read, or a file that cannot be deleted.
    """
    check_store(root)
    found = [leftover for leftover in _leftovers(root) if leftover.why == _CACHE or _old(leftover, grace_s)]
    uploads = filesystem.unfinished_uploads(root)
    found += [Leftover(u.path, 0, "unfinished upload", u.id) for u in uploads if u.age_s >= grace_s]
    if not dry_run:
        for leftover in found:
            if leftover.upload is not None:
                filesystem.abort_upload(leftover.path, leftover.upload)
            elif _still(leftover):
                filesystem.remove(leftover.path)
    return found


def _old(leftover: Leftover, grace_s: float) -> bool:
    path = leftover.path
    if leftover.why == _RETIRED:
        # What counts is since when readers do without it, not when it was written.
        path = path.parent.parent / RETIRED / f"{path.stem}.json"
    try:
        return filesystem.age_s(path) >= grace_s
    except FileNotFoundError:
        return False


def _still(leftover: Leftover) -> bool:
    """Whether a shard is a leftover yet: it may have been committed or tagged since it was listed."""
    if leftover.why not in (_UNCOMMITTED, _RETIRED, _RETIRED_COMMIT):
        return True
    folder, shard = leftover.path.parent.parent, leftover.path.stem
    committed = filesystem.exists(folder / SHARDS / f"{shard}.json") and leftover.why != _RETIRED_COMMIT
    return not committed and shard not in reachable(folder)


def _leftovers(root: Path) -> Iterator[Leftover]:
    yield from _temporary(root)
    yield from _temporary(root / DATASETS)
    yield from _temporary(root / STATUS)
    # A run under way writes its own every few seconds, so it is never old.
    for name in filesystem.names(root / STATUS, ".json"):
        yield from _leftover(root / STATUS / name, "status of a run that is over")
    for folder in set_folders(root):
        for place in (folder, *(folder / name for name in _FOLDERS)):
            yield from _temporary(place)
        yield from _shards(folder)
        if not filesystem.is_link(folder / CACHE):
            yield from _cached(folder / CACHE)


def _shards(folder: Path) -> Iterator[Leftover]:
    # Shards are listed before commits: a commit that comes in between only makes its shard no leftover.
    shards = filesystem.names(folder / SHARDS, ".parquet")
    committed = {name.removesuffix(".json") for name in filesystem.names(folder / SHARDS, ".json")}
    # After the commits: a shard that is retired in between is then seen as retired, not as one without a commit.
    retired = filesystem.names(folder / RETIRED, ".json")
    kept = committed | reachable(folder)
    for name in shards:
        shard = name.removesuffix(".parquet")
        if shard not in kept:
            why = _RETIRED if f"{shard}.json" in retired else _UNCOMMITTED
            yield from _leftover(folder / SHARDS / name, why)
    for name in retired:
        # After its shard. Where the same shard is committed (too), this is what a crash left of retiring it.
        if name.removesuffix(".json") not in kept - committed:
            yield from _leftover(folder / RETIRED / name, _RETIRED_COMMIT)


def _cached(folder: Path) -> Iterator[Leftover]:
    """Every file below `folder`, whatever it is."""
    for name in filesystem.names(folder, hidden=True):
        path = folder / name
        if filesystem.is_dir(path) and not filesystem.is_link(path):
            yield from _cached(path)
        else:
            yield from _leftover(path, _TEMPORARY if TEMPORARY.fullmatch(name) is not None else _CACHE)


def _temporary(folder: Path) -> Iterator[Leftover]:
    for name in filesystem.names(folder, ".tmp", hidden=True):
        if TEMPORARY.fullmatch(name) and not filesystem.is_dir(folder / name):
            yield from _leftover(folder / name, _TEMPORARY)


def _leftover(path: Path, why: str) -> Iterator[Leftover]:
    try:
        yield Leftover(path, filesystem.size(path), why)
    except FileNotFoundError:
        # Its writer has just finished or given up.
        return

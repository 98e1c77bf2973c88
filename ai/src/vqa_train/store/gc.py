"""The verb gc: find, and when told delete, what a crash or a cache left behind; nothing that was ever committed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqa_train.store import filesystem
from vqa_train.store.layout import CACHE, DATASETS, FAILURES, RUNS, SHARDS, SNAPSHOTS, TEMPORARY, set_folders
from vqa_train.store.store import check_store

DEFAULT_GRACE_S = 3600.0
"""Younger leftovers may belong to a writer at work, between its shard and its commit."""


@dataclass(frozen=True)
class Leftover:
    """A file that `gc` may delete: where, how big, and why it is not part of the store."""

    path: Path
    bytes: int
    why: str


def gc(root: Path, *, dry_run: bool = True, grace_s: float = DEFAULT_GRACE_S) -> list[Leftover]:
    """Leftovers of the store at `root`; deleted unless `dry_run`.

    They are: temporary files and shards without a commit, both older than `grace_s` seconds, and derived caches.

    Raises:
        StoreError: not a store, or a file cannot be deleted.
    """
    check_store(root)
    found = [leftover for leftover in _leftovers(root) if leftover.why == "derived cache" or _old(leftover, grace_s)]
    if not dry_run:
        for leftover in found:
            # A slow writer may have committed the shard since it was listed.
            if leftover.path.suffix != ".parquet" or not leftover.path.with_suffix(".json").exists():
                filesystem.remove(leftover.path)
    return found


def _old(leftover: Leftover, grace_s: float) -> bool:
    try:
        return filesystem.age_s(leftover.path) >= grace_s
    except FileNotFoundError:
        return False


def _leftovers(root: Path) -> Iterator[Leftover]:
    yield from _temporary(root)
    yield from _temporary(root / DATASETS)
    for folder in set_folders(root):
        for place in (folder, *(folder / name for name in (SHARDS, FAILURES, SNAPSHOTS, RUNS))):
            yield from _temporary(place)
        # Shards are listed before commits: a commit that comes in between only makes its shard no leftover.
        shards = filesystem.names(folder / SHARDS, ".parquet")
        committed = {Path(name).stem for name in filesystem.names(folder / SHARDS, ".json")}
        for name in shards:
            if Path(name).stem not in committed:
                yield from _leftover(folder / SHARDS / name, "shard without a commit")
        cache = folder / CACHE
        if cache.is_dir() and not cache.is_symlink():
            for path in sorted(cache.rglob("*")):
                if path.is_symlink() or not path.is_dir():
                    unfinished = TEMPORARY.fullmatch(path.name) is not None
                    yield from _leftover(path, "temporary file" if unfinished else "derived cache")


def _temporary(folder: Path) -> Iterator[Leftover]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if TEMPORARY.fullmatch(path.name) and path.is_file():
                yield from _leftover(path, "temporary file")


def _leftover(path: Path, why: str) -> Iterator[Leftover]:
    try:
        yield Leftover(path, path.lstat().st_size, why)
    except FileNotFoundError:
        # Its writer has just finished or given up.
        return

"""The verb compact: many small shards become few large ones, and nobody who reads meanwhile notices.

A merge writes the large shard and its commit like any other, and only then retires the small ones: their commits move
to retired/, their Parquet files stay until `gc`, for readers that listed them before. A crash in between leaves
rows twice, with equal digests, which readers drop and the next compaction mends.

No merge relies on a shard that it does not read: whatever others retire at the same time, each row that was committed
is in some committed shard at every moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vqa_train.core.errors import StoreError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.append import write_shard
from vqa_train.store.arrow import decode, to_batch
from vqa_train.store.batch import digests
from vqa_train.store.commit_rows import RowArray, ShardEntry
from vqa_train.store.feature_set import FeatureSet
from vqa_train.store.index import RowIndex, first_of, hex_bytes
from vqa_train.store.layout import RETIRED, SHARDS
from vqa_train.store.locate import group
from vqa_train.store.read import check_shard
from vqa_train.store.records import ShardCommit

DEFAULT_TARGET_ROWS = 16_384
MAX_BYTES = 256 * 2**20
"""Bytes of Parquet that a merge takes in at most: it holds them, decoded, in memory."""


@dataclass(frozen=True)
class Merge:
    """Shards of one profile and run that become one; positions in `RowIndex.shards`."""

    shards: tuple[int, ...]


@dataclass
class CompactReport:
    """What `compact` did to a feature set, or would do.

    Attributes:
        shards_before, shards_after: committed shards.
        merged: shards that were retired.
        duplicates: rows that two merged shards held and the new one holds once.
        bytes_before, bytes_after: of all committed shards.
        skipped: merges given up because another compaction had taken one of their shards.
    """

    shards_before: int
    shards_after: int
    merged: int = 0
    duplicates: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    skipped: int = 0


def plan(index: RowIndex, target_rows: int) -> list[Merge]:
    """Which shards to merge: those of one profile and run that together have up to `target_rows` rows.

    A shard takes part when it has at most half of that, or shares rows with another of its profile and run.
    """
    sharing = _sharing(index)
    groups: dict[tuple[tuple[tuple[str, str], ...], str], list[int]] = defaultdict(list)
    for number, entry in enumerate(index.shards):
        if 2 * entry.rows <= target_rows or number in sharing:
            groups[entry.profile, entry.run_id].append(number)
    merges = []
    for _, numbers in sorted(groups.items()):
        # Those that share rows first, and neighbours: together they shrink to what each of them holds.
        numbers.sort(key=lambda number: (sharing.get(number, len(index.shards)), number))
        merges += _packed(index.shards, numbers, sharing, target_rows)
    return merges


def _packed(
    shards: Sequence[ShardEntry], numbers: Iterable[int], sharing: dict[int, int], target_rows: int
) -> list[Merge]:
    """`numbers` cut into merges of two shards or more."""
    merges: list[list[int]] = [[]]
    rows = size = 0
    for number in numbers:
        entry, last = shards[number], merges[-1]
        together = bool(last) and number in sharing and sharing.get(last[-1]) == sharing[number]
        full = (rows + entry.rows > target_rows and not together) or size + entry.bytes > MAX_BYTES
        if last and full:
            merges.append([])
            rows = size = 0
        merges[-1].append(number)
        rows, size = rows + entry.rows, size + entry.bytes
    return [Merge(tuple(merge)) for merge in merges if len(merge) > 1]


def _sharing(index: RowIndex) -> dict[int, int]:
    """Shards that hold a key and view which another of their profile and run holds too -> lowest of their circle."""
    first = first_of(index.rows)
    if first.all():
        return {}
    follower = np.flatnonzero(~first)
    pairs = np.stack([index.rows["shard"][follower - 1], index.rows["shard"][follower]]).astype(np.int64)
    circle = list(range(len(index.shards)))

    def root(number: int) -> int:
        while circle[number] != number:
            circle[number] = circle[circle[number]]
            number = circle[number]
        return number

    found = set()
    for one, other in np.unique(pairs, axis=1).T.tolist():
        a, b = index.shards[one], index.shards[other]
        if one != other and (a.profile, a.run_id) == (b.profile, b.run_id):
            low, high = sorted((root(one), root(other)))
            circle[high] = low
            found |= {one, other}
    return {number: root(number) for number in found}


def compact(
    features: FeatureSet,
    hashes: HashCache,
    *,
    target_rows: int = DEFAULT_TARGET_ROWS,
    dry_run: bool = False,
    advance: Callable[[], object] = lambda: None,
) -> CompactReport:
    """Merge the small shards of a feature set; the rows that are read, their digests, profiles and runs stay.

    Args:
        target_rows: rows of a large shard; wide rows are merged to fewer (`MAX_BYTES`).
        dry_run: only plan.
        advance: called after each merge.

    Raises:
        StoreError: a damaged shard or commit, or a failing disk. Merges that were done stay done.
    """
    if target_rows < 1:
        raise StoreError(f"target_rows must be at least 1, got {target_rows}")
    index = features.index()
    before = len(index.shards)
    size = sum(entry.bytes for entry in index.shards)
    report = CompactReport(before, before, bytes_before=size, bytes_after=size)
    merges = plan(index, target_rows)
    for merge, rows in zip(merges, _rows_of(index, merges), strict=True):
        entries = [index.shards[number] for number in merge.shards]
        if dry_run:
            report.duplicates += sum(entry.rows for entry in entries) - int(first_of(rows).sum())
        elif not _still_there(features.folder, entries):
            report.skipped += 1
            continue
        else:
            commit = _merge(features.folder, features.spec, index, rows, entries, hashes)
            report.duplicates += sum(entry.rows for entry in entries) - commit.rows
            report.bytes_after += commit.bytes - sum(entry.bytes for entry in entries)
        report.merged += len(entries)
        report.shards_after -= len(entries) - 1
        advance()
    hashes.save()
    if not dry_run:
        # Also where there was nothing to merge: a compaction that was killed has not come so far.
        features.snapshot()
    return report


def _rows_of(index: RowIndex, merges: Sequence[Merge]) -> Iterator[RowArray]:
    """The rows of the shards of each merge, sorted by key, view, digest, shard and row."""
    number_of = np.full(len(index.shards), -1, dtype=np.int64)
    for number, merge in enumerate(merges):
        number_of[list(merge.shards)] = number
    for number, at in group(number_of[index.rows["shard"]]):
        if number >= 0:
            yield index.rows[at]


def _still_there(folder: Path, entries: Iterable[ShardEntry]) -> bool:
    """Whether no other compaction has taken one of the shards."""
    listed = set(filesystem.names(folder / SHARDS, ".json"))
    return all(f"{entry.shard}.json" in listed for entry in entries)


def _merge(
    folder: Path, spec: FeatureSpec, index: RowIndex, rows: RowArray, entries: Sequence[ShardEntry], hashes: HashCache
) -> ShardCommit:
    """Write the rows that readers take of some shards as one, then retire the shards."""
    taken = rows[first_of(rows)]
    tables, positions = [], []
    for shard, at in group(taken["shard"]):
        table = decode(check_shard(folder, index.shards[shard], hashes))
        tables.append(table.take(pa.array(taken["row"][at].astype(np.int64))))
        positions.append(at)
    order = np.argsort(np.concatenate(positions))
    batch = to_batch(spec, pa.concat_tables(tables).take(pa.array(order)))
    expected = [digest.decode("ascii") for digest in hex_bytes(taken["digest"]).tolist()]
    if digests(spec, batch) != expected:
        raise StoreError(
            f"shards of {spec.set_name} do not hold the rows that their commits list: "
            f"{', '.join(entry.shard for entry in entries[:3])}{', ...' if len(entries) > 3 else ''}",
            hint="run vqa-train store verify",
        )
    commit = write_shard(folder, spec, batch, dict(entries[0].profile), entries[0].run_id)
    for entry in entries:
        retire(folder, entry.shard)
    return commit


def retire(folder: Path, shard: str) -> None:
    """Take out a shard whose rows another one holds: its commit moves to retired/, its file stays for `gc`.

    Raises:
        StoreError: a failing disk.
    """
    path = folder / SHARDS / f"{shard}.json"
    try:
        data = filesystem.read(path, "commit")
    except StoreError:
        # Another compaction was faster.
        if not filesystem.exists(path):
            return
        raise
    filesystem.write(folder / RETIRED / f"{shard}.json", data)
    filesystem.remove(path)

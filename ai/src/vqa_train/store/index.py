"""The row index: every row of a feature set as one sorted array, so that questions about keys are searches in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from vqa_train.store.commit_rows import ROW, RowArray, ShardEntry, entry_of, records_of
from vqa_train.store.records import ShardCommit

_RECORD = np.dtype(f"S{ROW.itemsize}")
_BLOCK = 1 << 16


class RowIndex:
    """Rows of all shards, duplicates included, sorted by key, view, digest, shard and row.

    Of the rows of a key and view, the first is the one that readers take: it depends on the rows alone, not on the
    order or number of the shards that hold them.

    Attributes:
        shards: entries, sorted by name; `rows["shard"]` counts in this order.
        rows: `commit_rows.ROW` (n,); may be a read-only memory map.
    """

    def __init__(self, shards: Sequence[ShardEntry], rows: RowArray) -> None:
        if rows.dtype != ROW:
            raise ValueError(f"rows must be {ROW}, got {rows.dtype}")
        self.shards = tuple(shards)
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"RowIndex(shards={len(self.shards)}, rows={len(self.rows)})"

    @classmethod
    def of(cls, commits: Iterable[ShardCommit]) -> RowIndex:
        """The index of parsed commits."""
        parts = [(entry_of(commit), records_of(commit)) for commit in commits]
        return EMPTY.changed(parts, frozenset())

    def changed(self, added: Sequence[tuple[ShardEntry, RowArray]], removed: frozenset[str]) -> RowIndex:
        """The index with the shards `added` and without those named in `removed`."""
        if not added and not removed:
            return self
        kept = [number for number, entry in enumerate(self.shards) if entry.shard not in removed]
        entries = [self.shards[number] for number in kept] + [entry for entry, _ in added]
        order = sorted(range(len(entries)), key=lambda number: entries[number].shard)
        numbers = np.empty(len(entries), dtype=np.int64)
        numbers[order] = np.arange(len(entries))
        # Names stay in their order, so rows that are sorted stay so under new numbers.
        old = self._renumbered(kept, numbers)
        rows = _joined([part for _, part in added])
        rows["shard"] = np.repeat(numbers[len(kept) :], [len(part) for _, part in added])
        rows = sort_rows(rows)
        if len(old):
            at = np.searchsorted(old.view(_RECORD), rows.view(_RECORD))
            rows = np.insert(old.view(_RECORD), at, rows.view(_RECORD)).view(ROW)
        return RowIndex([entries[number] for number in order], rows)

    def _renumbered(self, kept: Sequence[int], numbers: NDArray[np.int64]) -> RowArray:
        """The rows of the shards `kept`, the i-th of which gets the number `numbers[i]`."""
        if not kept:
            return self.rows[:0]
        table = np.full(len(self.shards), -1, dtype=np.int64)
        table[kept] = numbers[: len(kept)]
        found = table[self.rows["shard"]]
        rows = np.array(self.rows) if len(kept) == len(self.shards) else self.rows[found >= 0]
        rows["shard"] = found[found >= 0]
        return rows

    def num_rows(self) -> int:
        """Distinct pairs of key and view."""
        return int(np.count_nonzero(first_of(self.rows)))

    def taken(self) -> NDArray[np.int64]:
        """Positions in `rows` of the rows that readers take, sorted by key and view."""
        return np.flatnonzero(first_of(self.rows))

    def complete(self, views: int) -> NDArray[np.bytes_]:
        """Keys that have rows for all views 0 to `views` - 1, S32, ascending."""
        rows = self.rows[first_of(self.rows) & (self.rows["view"] < views)]
        keys = rows["key"]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
        counts = np.diff(np.append(starts, len(keys)))
        return np.ascontiguousarray(keys[starts[counts == views]])

    def known_keys(self, views: int) -> set[str]:
        """`complete` as hex text."""
        keys, known = self.complete(views), set[str]()
        for start in range(0, len(keys), _BLOCK):
            known.update(hex_keys(keys[start : start + _BLOCK]))
        return known

    def find(self, keys: NDArray[np.bytes_], view: int) -> NDArray[np.int64]:
        """Position in `rows` of the row that readers take of each of `keys` (S32, any order), or -1 without one."""
        probes = np.zeros(len(keys), dtype=ROW)
        probes["key"], probes["view"] = keys, view
        at = np.searchsorted(self.rows.view(_RECORD), probes.view(_RECORD)).astype(np.int64)
        there = at < len(self.rows)
        found = self.rows[at[there]]
        there[there] = (found["key"] == probes["key"][there]) & (found["view"] == view)
        return np.where(there, at, -1)

    def of_keys(self, keys: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Positions in `rows` of the rows that readers take of `keys` (S32), of every view, sorted by key and view."""
        distinct = np.unique(keys)
        low, high = np.zeros(len(distinct), dtype=ROW), np.zeros(len(distinct), dtype=ROW)
        low["key"] = high["key"] = distinct
        for name in ("view", "shard", "row"):
            high[name] = 2**32 - 1
        high["digest"] = b"\xff" * 8
        records = self.rows.view(_RECORD)
        starts = np.searchsorted(records, low.view(_RECORD), side="left")
        counts = np.searchsorted(records, high.view(_RECORD), side="right") - starts
        ends = np.cumsum(counts)
        at = np.repeat(starts - (ends - counts), counts) + np.arange(counts.sum())
        return at[first_of(self.rows[at])].astype(np.int64)


EMPTY = RowIndex((), np.zeros(0, dtype=ROW))
"""The index of a set without shards."""


def hex_keys(keys: NDArray[np.bytes_]) -> list[str]:
    """S32 keys as 64 hex digits each."""
    text = keys.tobytes().hex()
    return [text[start : start + 64] for start in range(0, len(text), 64)]


def hex_bytes(values: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Bytes of a fixed width as twice as many hex digits, in the same shape."""
    text = np.ascontiguousarray(values).tobytes().hex().encode("ascii")
    return np.frombuffer(text, f"S{2 * values.dtype.itemsize}").reshape(values.shape)


def key_bytes(keys: Sequence[str]) -> NDArray[np.bytes_] | None:
    """Keys as S32 (n,), or None where one is not 64 lower-case hex digits."""
    text = "".join(keys)
    if len(text) != 64 * len(keys) or any(len(key) != 64 for key in keys):
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        return None
    return np.frombuffer(found, "S32") if found.hex() == text else None


def first_of(rows: RowArray) -> NDArray[np.bool_]:
    """Whether each of the sorted `rows` is the first of its key and view."""
    first = np.ones(len(rows), dtype=bool)
    keys, views = rows["key"], rows["view"]
    first[1:] = (keys[1:] != keys[:-1]) | (views[1:] != views[:-1])
    return first


def _joined(parts: Sequence[RowArray]) -> RowArray:
    """All of `parts` in one array; `np.concatenate` would turn it to this machine's byte order."""
    rows: RowArray = np.empty(sum(map(len, parts)), dtype=ROW)
    start = 0
    for part in parts:
        rows[start : start + len(part)] = part
        start += len(part)
    return rows


def sort_rows(rows: RowArray) -> RowArray:
    """`rows` in the order of their bytes."""
    # The first 8 bytes of hashes hardly ever agree: sort by them as numbers, then what is left over as bytes.
    prefix = rows["key"].astype("S8").view(">u8").astype(np.uint64) if len(rows) else np.empty(0, np.uint64)
    order = np.argsort(prefix, kind="stable")
    rows, prefix = rows[order], prefix[order]
    same = np.zeros(len(rows) + 1, dtype=bool)
    same[1:-1] = prefix[1:] == prefix[:-1]
    mixed = np.flatnonzero(same[1:] | same[:-1])
    rows.view(_RECORD)[mixed] = np.sort(rows.view(_RECORD)[mixed])
    return rows

"""Which row of which shard answers for each of many keys, found with arrays and not with an object per key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.types import FeatureSpec
from vqa_train.store.layout import KEY
from vqa_train.store.records import ShardCommit


def no_features(spec: FeatureSpec, view: int, missing: Sequence[str], total: int) -> StoreError:
    """The error for keys without a row of a view: `missing` of `total` distinct keys."""
    first = ", ".join(key[:12] for key in missing[:3])
    return StoreError(
        f"{spec.set_name} has no features (view {view}) for {len(missing)} of {total} keys: {first}"
        f"{', ...' if len(missing) > 3 else ''}",
        hint="run vqa-train extract-features, or vqa-train store failures to see what failed",
    )


@dataclass(frozen=True)
class Located:
    """Where the rows of N keys are, for each of V views.

    Attributes:
        keys: bytes (N,), 64 hex digits each.
        shards: int32 (V, N), position of the shard in the commits given.
        rows: int32 (V, N), row in that shard.
        digests: bytes (V, N), 16 hex digits each.
    """

    keys: NDArray[np.bytes_]
    shards: NDArray[np.int32]
    rows: NDArray[np.int32]
    digests: NDArray[np.bytes_]

    @property
    def sha256(self) -> str:
        """Hash of the keys in their order and of what their rows hold; the order and number of shards do not count."""
        digest = hashlib.sha256(self.keys.tobytes())
        digest.update(self.digests.tobytes())
        return digest.hexdigest()

    def by_shard(self, view: int) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int32]]]:
        """(shard, positions among the keys, rows in the shard), positions ascending; each shard once."""
        order = np.argsort(self.shards[view], kind="stable")
        edges = np.flatnonzero(np.diff(self.shards[view][order])) + 1
        for positions in np.split(order, edges):
            if len(positions):
                yield int(self.shards[view][positions[0]]), positions, self.rows[view][positions]


def locate(spec: FeatureSpec, commits: Sequence[ShardCommit], keys: Sequence[str], views: int) -> Located:
    """The rows of `keys`, in their order, for views 0 to `views` - 1; of duplicates the one with the smallest digest.

    Raises:
        StoreError: keys without a row (how many, and the first of them).
    """
    malformed = [key for key in keys if not KEY.fullmatch(key)]
    if malformed:
        raise no_features(spec, 0, malformed, len(set(keys)))
    wanted = np.array(keys, dtype="S64")
    distinct, position = np.unique(wanted, return_inverse=True)
    hits = [_hits(distinct, views, number, commit) for number, commit in enumerate(commits)]
    empty = (np.empty(0, np.int64), np.empty(0, "S16"), np.empty(0, np.int32), np.empty(0, np.int32))
    slots, digests, shards, rows = (np.concatenate(part) for part in zip(empty, *hits, strict=True))
    # The same choice as commits.places: smallest digest, then shard name (the order of the commits), then row.
    order = np.lexsort((rows, shards, digests, slots))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(slots[order]) != 0
    chosen = order[first]
    found = np.full(views * len(distinct), -1, dtype=np.int64)
    found[slots[chosen]] = chosen
    for view, part in enumerate(found.reshape(views, -1)):
        if (part < 0).any():
            raise no_features(spec, view, [key.decode() for key in distinct[part < 0]], len(distinct))
    where = found.reshape(views, -1)[:, position]
    return Located(wanted, shards[where], rows[where], digests[where])


def _hits(
    distinct: NDArray[np.bytes_], views: int, number: int, commit: ShardCommit
) -> tuple[NDArray[np.int64], NDArray[np.bytes_], NDArray[np.int32], NDArray[np.int32]]:
    """Slot (view * keys + key), digest, shard and row of the rows of one shard that are wanted."""
    keys, view = np.array(commit.keys, dtype="S64"), np.array(commit.views, dtype=np.int64)
    at = np.searchsorted(distinct, keys)
    wanted = (at < len(distinct)) & (view < views)
    wanted[wanted] = distinct[at[wanted]] == keys[wanted]
    rows = np.flatnonzero(wanted)
    slots = view[rows] * len(distinct) + at[rows]
    digests = np.array(commit.digests, dtype="S16")[rows]
    return slots, digests, np.full(len(rows), number, np.int32), rows.astype(np.int32)

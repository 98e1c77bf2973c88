"""Which row of which shard answers for each of many keys, found with arrays and not with an object per key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.types import FeatureSpec
from vqa_train.store.index import RowIndex, hex_bytes, hex_keys, key_bytes
from vqa_train.store.layout import KEY


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
        shards: int32 (V, N), position of the shard in the index.
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
        for shard, positions in group(self.shards[view]):
            yield shard, positions, self.rows[view][positions]


def group(shards: NDArray[np.integer[Any]]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(shard, positions in `shards` that hold it), positions ascending; each shard once, ascending."""
    order = np.argsort(shards, kind="stable")
    edges = np.flatnonzero(np.diff(shards[order])) + 1
    for positions in np.split(order, edges):
        if len(positions):
            yield int(shards[positions[0]]), positions


def find(
    spec: FeatureSpec, index: RowIndex, keys: Sequence[str], view: int
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """`keys` as S32, and for each the position in the index of the row that readers take of it and `view`.

    Raises:
        StoreError: keys without a row (how many, and the first of them).
    """
    wanted = key_bytes(keys)
    if wanted is None:
        malformed = [key for key in dict.fromkeys(keys) if not KEY.fullmatch(key)]
        raise no_features(spec, view, malformed, len(set(keys)))
    found = index.find(wanted, view)
    if (found < 0).any():
        missing = list(dict.fromkeys(hex_keys(wanted[found < 0])))
        raise no_features(spec, view, missing, len(set(keys)))
    return wanted, found


def locate(spec: FeatureSpec, index: RowIndex, keys: Sequence[str], views: int) -> Located:
    """The rows of `keys`, in their order, for views 0 to `views` - 1; of duplicates the one with the smallest digest.

    Raises:
        StoreError: keys without a row (how many, and the first of them).
    """
    found = [find(spec, index, keys, view) for view in range(views)]
    rows = index.rows[np.stack([positions for _, positions in found])]
    return Located(
        keys=hex_bytes(found[0][0]),
        shards=rows["shard"].astype(np.int32),
        rows=rows["row"].astype(np.int32),
        digests=hex_bytes(rows["digest"]),
    )

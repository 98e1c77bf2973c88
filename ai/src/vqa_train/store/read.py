"""The verb read: the deduplicated rows of a feature set as an Arrow table or one output as a NumPy matrix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.locations import is_remote
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.arrow import arrow_schema, decode, to_numpy
from vqa_train.store.commit_rows import ShardEntry
from vqa_train.store.index import RowIndex, key_bytes
from vqa_train.store.layout import KEY, SHARDS
from vqa_train.store.locate import find, group
from vqa_train.store.records import ShardCommit


def check_shard(folder: Path, commit: ShardEntry | ShardCommit, hashes: HashCache) -> Path:
    """The path of a shard whose bytes hash to what its commit says (unchanged files are hashed once, by stat).

    Behind a URL it is that of a local copy, which was hashed when it was made.

    Raises:
        StoreError: missing, unreadable or changed.
    """
    path = folder / SHARDS / f"{commit.shard}.parquet"
    try:
        local = filesystem.fetch(path, commit.sha256)
        found = hashes.sha256(local)
        if found != commit.sha256 and local != path:
            # The copy has rotted; the object may be whole.
            local = filesystem.fetch(path, commit.sha256, again=True)
            found = hashes.sha256(local)
    except OSError as error:
        raise StoreError(
            f"shard {str(path)!r} cannot be read: {error.strerror or error}", hint="run vqa-train store verify"
        ) from error
    if found != commit.sha256:
        raise StoreError(
            f"shard {str(path)!r} is damaged: sha256 {found[:12]}, its commit says {commit.sha256[:12]}",
            hint="run vqa-train store verify",
        )
    return local


def warm(folder: Path, entries: Iterable[ShardEntry | ShardCommit]) -> None:
    """Fetch the local copies of shards behind a URL side by side, as far as the cache has room; local shards are there.

    Raises:
        StoreError: a shard is missing, unreadable or changed.
    """
    shards = folder / SHARDS
    if is_remote(folder):
        filesystem.fetch_many([(shards / f"{entry.shard}.parquet", entry.sha256, entry.bytes) for entry in entries])


def read_table(
    folder: Path,
    spec: FeatureSpec,
    index: RowIndex,
    hashes: HashCache,
    *,
    columns: Sequence[str] | None = None,
    keys: Iterable[str] | None = None,
) -> pa.Table:
    """One row per key and view, sorted by key and view; the same table whatever the order or number of shards.

    Args:
        columns: names to read, in this order; None reads all.
        keys: keys to read; those without rows are not in the table. None reads all.

    Raises:
        StoreError: no such column, or a damaged shard.
    """
    schema = arrow_schema(spec)
    for column in columns or ():
        if column not in schema.names:
            raise StoreError(f"{spec.set_name} has no column {column!r}", hint=did_you_mean(column, schema.names))
    wanted = list(columns) if columns is not None else list(schema.names)
    chosen = index.rows[index.taken() if keys is None else index.of_keys(_keys(keys))]
    tables, positions = [], []
    warm(folder, (index.shards[shard] for shard in np.unique(chosen["shard"])))
    for shard, at in group(chosen["shard"]):
        table = decode(check_shard(folder, index.shards[shard], hashes), wanted)
        tables.append(table.take(pa.array(chosen["row"][at].astype(np.int64))))
        positions.append(at)
    hashes.save()
    selected = pa.schema([schema.field(name) for name in wanted], metadata=schema.metadata)
    if not tables:
        return selected.empty_table()
    order = np.empty(len(chosen), dtype=np.int64)
    order[np.concatenate(positions)] = np.arange(len(chosen))
    joined = pa.concat_tables([table.select(wanted).cast(selected) for table in tables])
    return joined.take(pa.array(order)).combine_chunks()


def _keys(keys: Iterable[str]) -> NDArray[np.bytes_]:
    """`keys` as S32; what is no key has no rows."""
    named = list(keys)
    found = key_bytes(named)
    return found if found is not None else np.array([bytes.fromhex(key) for key in named if KEY.fullmatch(key)], "S32")


def read_matrix(
    folder: Path,
    spec: FeatureSpec,
    index: RowIndex,
    hashes: HashCache,
    *,
    output: str,
    keys: Sequence[str],
    view: int = 0,
) -> NDArray[np.float32]:
    """One output of `keys`, in their order, float32 (len(keys), *shape); a key may stand in it more than once.

    Raises:
        StoreError: keys without a row of this view, or a damaged shard.
        ConfigError: no such output.
    """
    shape = spec.output(output).shape
    rows = index.rows[find(spec, index, keys, view)[1]]
    matrix = np.empty((len(keys), *shape), dtype=np.float32)
    warm(folder, (index.shards[shard] for shard in np.unique(rows["shard"])))
    for shard, at in group(rows["shard"]):
        table = decode(check_shard(folder, index.shards[shard], hashes), [output])
        matrix[at] = to_numpy(table.column(output), shape)[rows["row"][at]]
    hashes.save()
    return matrix

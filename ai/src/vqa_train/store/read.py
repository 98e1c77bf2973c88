"""The verb read: the deduplicated rows of a feature set as an Arrow table or one output as a NumPy matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.plugins import did_you_mean
from vqa_train.core.types import FeatureSpec
from vqa_train.store.arrow import arrow_schema, decode, to_numpy
from vqa_train.store.commits import Place, places
from vqa_train.store.layout import SHARDS
from vqa_train.store.locate import no_features
from vqa_train.store.records import ShardCommit


def check_shard(folder: Path, commit: ShardCommit, hashes: HashCache) -> Path:
    """The path of a shard whose bytes hash to what its commit says (unchanged files are hashed once, by stat).

    Raises:
        StoreError: missing, unreadable or changed.
    """
    path = folder / SHARDS / f"{commit.shard}.parquet"
    try:
        found = hashes.sha256(path)
    except OSError as error:
        raise StoreError(
            f"shard {str(path)!r} cannot be read: {error.strerror or error}", hint="run vqa-train store verify"
        ) from error
    if found != commit.sha256:
        raise StoreError(
            f"shard {str(path)!r} is damaged: sha256 {found[:12]}, its commit says {commit.sha256[:12]}",
            hint="run vqa-train store verify",
        )
    return path


def read_table(
    folder: Path,
    spec: FeatureSpec,
    commits: Sequence[ShardCommit],
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
    chosen = places(commits, set(keys) if keys is not None else None)
    by_name = {commit.shard: commit for commit in commits}
    tables, positions = [], []
    for shard, picks in _by_shard(place for _, place in sorted(chosen.items())).items():
        table = decode(check_shard(folder, by_name[shard], hashes), wanted)
        tables.append(table.take(pa.array([row for _, row in picks])))
        positions += [position for position, _ in picks]
    hashes.save()
    selected = pa.schema([schema.field(name) for name in wanted], metadata=schema.metadata)
    if not tables:
        return selected.empty_table()
    order = np.empty(len(positions), dtype=np.int64)
    order[positions] = np.arange(len(positions))
    joined = pa.concat_tables([table.select(wanted).cast(selected) for table in tables])
    return joined.take(pa.array(order)).combine_chunks()


def read_matrix(
    folder: Path,
    spec: FeatureSpec,
    commits: Sequence[ShardCommit],
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
    chosen = places(commits, set(keys))
    missing = [key for key in dict.fromkeys(keys) if (key, view) not in chosen]
    if missing:
        raise no_features(spec, view, missing, len(set(keys)))
    matrix = np.empty((len(keys), *shape), dtype=np.float32)
    by_name = {commit.shard: commit for commit in commits}
    for shard, picks in _by_shard([chosen[key, view] for key in keys]).items():
        table = decode(check_shard(folder, by_name[shard], hashes), [output])
        matrix[[position for position, _ in picks]] = to_numpy(table.column(output), shape)[[row for _, row in picks]]
    hashes.save()
    return matrix


def _by_shard(wanted: Iterable[Place]) -> dict[str, list[tuple[int, int]]]:
    """shard -> [(position in `wanted`, row in the shard)], so that each shard is opened once."""
    grouped: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for position, place in enumerate(wanted):
        grouped[place.shard].append((position, place.row))
    return dict(sorted(grouped.items()))

"""features.json of a run folder: which rows of which shards a fit read, to compare a store with later."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field

from vqa_train.core.config import StrictModel, load_json, parse
from vqa_train.core.files import atomic_write_json
from vqa_train.core.hashing import sha256_bytes
from vqa_train.store.index import RowIndex, key_bytes
from vqa_train.store.records import Sha256
from vqa_train.store.store import FeatureSet

SCHEMA = "vqa-train/run-features/1"
_ROW = np.dtype([("key", "S32"), ("view", ">u4"), ("digest", "S8")])

Count = Annotated[int, Field(ge=0)]


class ShardRead(StrictModel):
    """A shard that rows came from: uuid, sha256 of its Parquet file, the run that wrote it, and how many rows."""

    shard: str
    sha256: Sha256
    run_id: str
    rows: Count


class RowsRead(StrictModel):
    """What was read of one feature set for one input.

    Attributes:
        set: name of the feature set.
        fingerprint: its identity.
        keys: distinct videos or prompts.
        rows: one per key and view.
        rows_sha256: of the keys, views (4 bytes, big-endian) and digests of the rows, sorted; it does not depend on the
            shards that hold them, so compaction does not change it.
        shards: by name.
    """

    set: str
    fingerprint: Sha256
    keys: Count
    rows: Count
    rows_sha256: Sha256
    shards: list[ShardRead]


class RunFeatures(StrictModel):
    """The file: input name -> what was read for it."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["vqa-train/run-features/1"] = Field(default="vqa-train/run-features/1", alias="schema")
    inputs: dict[str, RowsRead]


def rows_read(feature_set: FeatureSet, keys: Collection[str]) -> RowsRead:
    """The rows, of every view, that readers of the set take for `keys`; a key that has none counts in `keys` alone."""
    return rows_in(feature_set.index(), feature_set, keys)


def rows_in(index: RowIndex, feature_set: FeatureSet, keys: Collection[str]) -> RowsRead:
    """`rows_read` of an index that is at hand."""
    distinct = sorted(set(keys))
    found = key_bytes(distinct)
    at = index.of_keys(found) if found is not None and len(found) else np.empty(0, np.int64)
    taken = index.rows[at]
    plain = np.empty(len(taken), dtype=_ROW)
    for name in _ROW.names or ():
        plain[name] = taken[name]
    numbers, counts = np.unique(taken["shard"].astype(np.int64), return_counts=True)
    shards = [
        ShardRead(shard=entry.shard, sha256=entry.sha256, run_id=entry.run_id, rows=count)
        for entry, count in zip((index.shards[number] for number in numbers), counts.tolist(), strict=True)
    ]
    return RowsRead(
        set=feature_set.name,
        fingerprint=feature_set.fingerprint,
        keys=len(distinct),
        rows=len(taken),
        rows_sha256=sha256_bytes(plain.tobytes()),
        shards=shards,
    )


def write_run_features(path: Path, inputs: Mapping[str, RowsRead]) -> None:
    """Write the file atomically.

    Raises:
        OSError: it cannot be written.
    """
    atomic_write_json(path, RunFeatures(inputs=dict(inputs)).model_dump(mode="json", by_alias=True))


def read_run_features(path: Path) -> RunFeatures:
    """The file of a run.

    Raises:
        ConfigError: missing or not of its schema.
    """
    return parse(RunFeatures, load_json(path, "run features"), str(path))

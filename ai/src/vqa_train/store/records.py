"""Schemas of the store's JSON files, as docs/formats/store.md describes them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import Reason
from vqa_train.core.versions import version
from vqa_train.store.layout import (
    COMMIT_SCHEMA,
    FAILURE_SCHEMA,
    MATRIX_SCHEMA,
    QUARANTINE_SCHEMA,
    SET_SCHEMA,
    SNAPSHOT_SCHEMA,
    STORE_SCHEMA,
    TAG_SCHEMA,
)

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Count = Annotated[int, Field(ge=0)]


class StoreRecord(StrictModel):
    """store.json: marks the root of a store."""

    schema_: Annotated[str, version(STORE_SCHEMA)] = Field(alias="schema")
    seal: Sha256


class SetRecord(StrictModel):
    """spec.json: what the features of one set mean, and their licence."""

    schema_: Annotated[str, version(SET_SCHEMA)] = Field(alias="schema")
    fingerprint: Sha256
    license: str
    spec: dict[str, Any]
    seal: Sha256


class OutputSums(StrictModel):
    """n, sum and sum of squares (float64, per dimension) of one pooled output over the rows of a shard."""

    n: Count
    sum: tuple[float, ...]
    sum_of_squares: tuple[float, ...]


class ShardCommit(StrictModel):
    """shards/<uuid>.json: the commit of shards/<uuid>.parquet. The shard exists if and only if this file does.

    Attributes:
        shard: the uuid.
        fingerprint: of the feature set.
        sha256, bytes: of the Parquet file.
        rows: rows in it.
        keys, views, digests: per row, in the file's order: key, view and the first 16 hex digits of the row's sha256.
        profile: how the numbers were computed (decoder, device kind, precision, versions).
        run_id: the run that wrote it.
        created: UTC time, ISO 8601 with microseconds.
        statistics: per pooled output.
    """

    schema_: Annotated[str, version(COMMIT_SCHEMA)] = Field(alias="schema")
    shard: str
    fingerprint: Sha256
    sha256: Sha256
    bytes: Count
    rows: Annotated[int, Field(ge=1)]
    keys: tuple[Sha256, ...]
    views: tuple[Count, ...]
    digests: tuple[Digest, ...]
    profile: dict[str, str]
    run_id: str
    created: str
    statistics: dict[str, OutputSums]
    seal: Sha256

    @model_validator(mode="after")
    def _one_entry_per_row(self) -> ShardCommit:
        if not len(self.keys) == len(self.views) == len(self.digests) == self.rows:
            raise ValueError(
                f"rows is {self.rows}, but there are {len(self.keys)} keys, {len(self.views)} views and "
                f"{len(self.digests)} digests"
            )
        return self


class SnapshotShard(StrictModel):
    """One shard in a snapshot; `commit_sha256` is of the whole commit file."""

    shard: str
    sha256: Sha256
    bytes: Count
    rows: Count
    commit_sha256: Sha256


class SnapshotFailures(StrictModel):
    """One failures file in a snapshot."""

    file: str
    sha256: Sha256


class SnapshotRecord(StrictModel):
    """manifest.json and snapshots/<sha256>.json: everything committed at one moment, chained to the snapshot before.

    Attributes:
        fingerprint: of the feature set.
        spec_sha256: of spec.json's bytes.
        parent: sha256 of the bytes of the snapshot before, or None for the first.
        created: UTC time, ISO 8601 with microseconds.
        rows, bytes: sums over `shards`; rows count duplicates of a key.
        shards, failures: sorted by name.
        removed: shards that the parent had and this snapshot has not.
    """

    schema_: Annotated[str, version(SNAPSHOT_SCHEMA)] = Field(alias="schema")
    fingerprint: Sha256
    spec_sha256: Sha256
    parent: Sha256 | None
    created: str
    rows: Count
    bytes: Count
    shards: tuple[SnapshotShard, ...]
    failures: tuple[SnapshotFailures, ...]
    removed: tuple[str, ...]
    seal: Sha256


class FailureRecord(StrictModel):
    """One line of failures/<uuid>.jsonl: an input that gave no feature.

    Attributes:
        key: sha256 of the video or text, None when the file could not be read.
        id: of the video in its dataset.
        path: as the dataset names it.
        reason: code, or None: earlier failures of this path no longer stand.
        message: one line.
        run_id: the run that met it.
        created: UTC time, ISO 8601 with microseconds.
    """

    schema_: Annotated[str, version(FAILURE_SCHEMA)] = Field(alias="schema")
    key: Sha256 | None
    id: str
    path: str
    reason: Reason | None
    message: str
    run_id: str
    created: str


class MatrixRecord(StrictModel):
    """cache/<source>.json: what the raw matrix file beside it holds.

    Attributes:
        source: hash of what it was made from; the files' name.
        set, output: of which feature.
        dtype: float16 or float32, little-endian.
        shape: rows first.
        bytes, sha256: of the raw file.
    """

    schema_: Annotated[str, version(MATRIX_SCHEMA)] = Field(alias="schema")
    source: Sha256
    set: str
    output: str
    dtype: Literal["float16", "float32"]
    shape: tuple[Count, ...]
    bytes: Count
    sha256: Sha256
    seal: Sha256


class TagRecord(StrictModel):
    """tags/<name>.json: a name for a snapshot; gc keeps every shard that the snapshot lists.

    Attributes:
        name: the file's name.
        snapshot: sha256 of the snapshot's bytes.
        created: UTC time, ISO 8601 with microseconds.
    """

    schema_: Annotated[str, version(TAG_SCHEMA)] = Field(alias="schema")
    name: str
    snapshot: Sha256
    created: str
    seal: Sha256


class QuarantineRecord(StrictModel):
    """quarantine/<uuid>.json: why repair took files out of the store.

    Attributes:
        files: names in quarantine/, with the place that each had in the feature set; a file that could not be read has
            no copy and stands in `unreadable`.
        why: the problem, one line.
        keys: keys that lost a row with it; sorted.
        created: UTC time, ISO 8601 with microseconds.
    """

    schema_: Annotated[str, version(QUARANTINE_SCHEMA)] = Field(alias="schema")
    files: dict[str, str]
    unreadable: tuple[str, ...]
    why: str
    keys: tuple[Sha256, ...]
    created: str
    seal: Sha256

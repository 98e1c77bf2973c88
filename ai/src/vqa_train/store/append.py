"""The verb append: rows become one shard and one commit, in that order, each whole or absent after a crash."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import is_remote
from vqa_train.core.types import FeatureSpec
from vqa_train.store import filesystem
from vqa_train.store.arrow import encode
from vqa_train.store.batch import RowBatch, check_batch, digests, stack, statistics
from vqa_train.store.layout import COMMIT_SCHEMA, RUN_ID, SHARDS
from vqa_train.store.records import ShardCommit
from vqa_train.store.rows import FeatureRow, checked_row
from vqa_train.store.seal import parse_sealed, sealed


def now() -> str:
    """UTC time, ISO 8601 with microseconds; sorts as text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def check_run_id(run_id: str) -> str:
    """`run_id`, refused when it could not name a file.

    Raises:
        StoreError: empty, too long, or with other characters than letters, digits and . _ -
    """
    if not RUN_ID.fullmatch(run_id):
        raise StoreError(f"run id {run_id!r} must be 1 to 200 letters, digits and . _ -")
    return run_id


def append(
    folder: Path, spec: FeatureSpec, rows: Sequence[FeatureRow], *, profile: Mapping[str, str], run_id: str
) -> ShardCommit:
    """Write `rows` as a new shard of the feature set in `folder`. When this returns, they survive a power cut.

    Raises:
        StoreError: no rows, a row that does not follow the spec (none is then written), or a failing disk.
    """
    _check_some(spec, rows)
    batch = stack(spec, [checked_row(spec, row) for row in rows])
    return write_shard(folder, spec, batch, profile, run_id)


def append_batch(
    folder: Path, spec: FeatureSpec, batch: RowBatch, *, profile: Mapping[str, str], run_id: str
) -> ShardCommit:
    """`append` of rows that are columns already, for sets without facts (texts, imported features).

    Raises:
        StoreError: as `append`.
    """
    _check_some(spec, batch.keys)
    check_batch(spec, batch)
    return write_shard(folder, spec, batch, profile, run_id)


def _check_some(spec: FeatureSpec, rows: Sequence[Any]) -> None:
    if not rows:
        raise StoreError(f"nothing to append to {spec.set_name}: no rows")


def write_shard(
    folder: Path, spec: FeatureSpec, batch: RowBatch, profile: Mapping[str, str], run_id: str
) -> ShardCommit:
    """Write rows that were checked before as a shard and its commit; see `append`.

    Raises:
        StoreError: a failing disk.
    """
    check_run_id(run_id)
    data = encode(spec, batch)
    shard = str(uuid.uuid4())
    record = {
        "schema": COMMIT_SCHEMA,
        "shard": shard,
        "fingerprint": spec.fingerprint,
        "sha256": sha256_bytes(data),
        "bytes": len(data),
        "rows": len(batch),
        "profile": dict(profile),
        "run_id": run_id,
        "created": now(),
        "keys": list(batch.keys),
        "views": [int(view) for view in batch.views],
        "digests": digests(spec, batch),
        "statistics": statistics(spec, batch),
    }
    commit_data = sealed(record)
    commit = parse_sealed(ShardCommit, commit_data, "the commit to be written")
    parquet_path, commit_path = folder / SHARDS / f"{shard}.parquet", folder / SHARDS / f"{shard}.json"
    try:
        filesystem.write(parquet_path, data)
        filesystem.write(commit_path, commit_data)
    except BaseException:
        # Give a full disk its space back, but never take the shard from under a commit that did get its name. Behind a
        # URL an upload whose answer was lost may still arrive: there only `gc` removes it, when it is old.
        with suppress(StoreError):
            if not is_remote(folder) and not filesystem.exists(commit_path):
                filesystem.remove(parquet_path)
        raise
    return commit

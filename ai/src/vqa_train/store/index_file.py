"""Keeps the row index of a large feature set as a file in its cache folder, for the next process to begin with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import StoreError
from vqa_train.core.files import atomic_write, atomic_write_bytes
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_json
from vqa_train.store import filesystem
from vqa_train.store.commit_rows import ROW, ShardEntry
from vqa_train.store.index import RowIndex
from vqa_train.store.layout import CACHE
from vqa_train.store.records import Count, Sha256
from vqa_train.store.seal import parse_sealed, sealed

INDEX_SCHEMA = "vqa-train/row-index/1"
_HEADER = ".index.json"


class _Shard(StrictModel):
    """A shard that the index covers; `profile` and `run` count in the header's lists."""

    shard: str
    sha256: Sha256
    bytes: Count
    rows: Annotated[int, Field(ge=1)]
    profile: Count
    run: Count


class IndexRecord(StrictModel):
    """cache/<source>.index.json: what the rows in <source>.index are of.

    Attributes:
        source: hash of what it covers; the files' name.
        fingerprint: of the feature set.
        rows: records in the file, `commit_rows.ROW` each.
        sha256: of the file.
        shards: by name.
        profiles, runs: what the shards' `profile` and `run` count in.
    """

    schema_: Literal["vqa-train/row-index/1"] = Field(alias="schema")
    source: Sha256
    fingerprint: Sha256
    rows: Count
    sha256: Sha256
    profiles: tuple[dict[str, str], ...]
    runs: tuple[str, ...]
    shards: tuple[_Shard, ...]
    seal: Sha256


def save_index(folder: Path, fingerprint: str, index: RowIndex, hashes: HashCache) -> bool:
    """Write `index` to the cache of the feature set in `folder` and delete the older ones.

    Returns whether it could be written: a cache that cannot be costs time and nothing else.
    """
    place = filesystem.cache_folder(folder, CACHE)
    profiles = sorted({entry.profile for entry in index.shards})
    runs = sorted({entry.run_id for entry in index.shards})
    profile_numbers = {profile: number for number, profile in enumerate(profiles)}
    run_numbers = {run: number for number, run in enumerate(runs)}
    source = _source(fingerprint, index)
    path = place / f"{source}.index"
    try:
        atomic_write(path, index.rows.tofile)
        record = {
            "schema": INDEX_SCHEMA,
            "source": source,
            "fingerprint": fingerprint,
            "rows": len(index),
            "sha256": hashes.sha256(path),
            "profiles": [dict(profile) for profile in profiles],
            "runs": runs,
            "shards": [
                {
                    "shard": entry.shard,
                    "sha256": entry.sha256,
                    "bytes": entry.bytes,
                    "rows": entry.rows,
                    "profile": profile_numbers[entry.profile],
                    "run": run_numbers[entry.run_id],
                }
                for entry in index.shards
            ],
        }
        atomic_write_bytes(place / f"{source}{_HEADER}", sealed(record))
        _remove_others(place, fingerprint, source)
    except (OSError, StoreError):
        return False
    return True


def load_index(folder: Path, fingerprint: str, listed: set[str], hashes: HashCache) -> RowIndex | None:
    """The saved index that covers most of the shards `listed`, its rows as a memory map; None without a whole one.

    It may cover shards that are not listed. Its bytes are checked against their sha256.
    """
    place = filesystem.cache_folder(folder, CACHE)
    found = [record for record in _headers(place) if record.fingerprint == fingerprint]
    found.sort(key=lambda record: sum(shard.rows for shard in record.shards if shard.shard in listed), reverse=True)
    for record in found:
        path = place / f"{record.source}.index"
        with suppress(OSError, ValueError, IndexError):
            if path.stat().st_size != record.rows * ROW.itemsize or hashes.sha256(path) != record.sha256:
                continue
            rows = np.memmap(path, dtype=ROW, mode="r", shape=(record.rows,)) if record.rows else np.zeros(0, ROW)
            return RowIndex([_entry(record, shard) for shard in record.shards], rows.view(np.ndarray))
    return None


def _entry(record: IndexRecord, shard: _Shard) -> ShardEntry:
    return ShardEntry(
        shard=shard.shard,
        fingerprint=record.fingerprint,
        sha256=shard.sha256,
        bytes=shard.bytes,
        rows=shard.rows,
        profile=tuple(sorted(record.profiles[shard.profile].items())),
        run_id=record.runs[shard.run],
    )


def _source(fingerprint: str, index: RowIndex) -> str:
    return sha256_json([INDEX_SCHEMA, fingerprint, [[entry.shard, entry.sha256] for entry in index.shards]])


def _headers(place: Path) -> list[IndexRecord]:
    """Headers that are whole and stand under their own name."""
    found = []
    with suppress(StoreError):
        for name in filesystem.names(place, _HEADER):
            with suppress(StoreError):
                source = f"index {str(place / name)!r}"
                record = parse_sealed(IndexRecord, filesystem.read(place / name, "index"), source)
                if name == record.source + _HEADER:
                    found.append(record)
    return found


def _remove_others(place: Path, fingerprint: str, source: str) -> None:
    """Delete the other indexes of the set. Who has one mapped keeps it; who made a later one meanwhile loses time."""
    for record in _headers(place):
        if record.fingerprint == fingerprint and record.source != source:
            filesystem.remove(place / f"{record.source}{_HEADER}")
            filesystem.remove(place / f"{record.source}.index")

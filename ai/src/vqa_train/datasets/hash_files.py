"""Hashes many files in threads, with or without the stat-keyed cache."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from vqa_train.core import remote
from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import is_remote
from vqa_train.core.progress import Advance
from vqa_train.core.remote import Listed
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.walk import FileFailure

if TYPE_CHECKING:
    from upath import UPath

# What is learnt is saved after each batch: the most hashing that an interruption can cost.
_BATCH_FILES = 4096
_BATCH_BYTES = 4 << 30


@dataclass
class Hashed:
    """Entries in the order of the paths given, files that could not be read, and how many were read in full."""

    entries: list[FileEntry] = field(default_factory=list)
    failed: list[FileFailure] = field(default_factory=list)
    read: int = 0


def hash_files(
    root: Path,
    paths: Sequence[str],
    *,
    cache: HashCache | None,
    workers: int,
    advance: Advance | None = None,
    listing: Mapping[str, Listed] | None = None,
) -> Hashed:
    """SHA-256 and size of each of `paths` under `root`.

    Args:
        root: data root.
        paths: relative to it; each must have been confined to it.
        cache: remembered hashes of unchanged files; None reads every file.
        workers: threads; hashing leaves the interpreter's lock, so they add up until the disk is the limit.
        advance: called with the number of files done.
        listing: what lies under a root that is a URL; a remembered hash counts while an object's entity tag (or where
            there is none its size and time) stays the same.
    """
    results: dict[str, FileEntry | FileFailure] = {}
    unknown: list[tuple[str, int]] = []
    base = root if listing is not None else root.absolute()
    for path in paths:
        try:
            file = base / path
            size, state = _look(file, path, listing)
            known = cache.cached(file, state) if cache is not None else None
        except OSError as error:
            results[path] = _failure(path, error)
            continue
        if known is None:
            unknown.append((path, size))
        else:
            results[path] = FileEntry(path, known, size)
    if advance is not None:
        advance(len(results))
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for batch in _batches(unknown):
            for result in pool.map(lambda path: _hash(root, path, cache, listing), batch):
                results[result.path] = result
                if advance is not None:
                    advance()
            if cache is not None:
                cache.save()
    hashed = Hashed(read=len(unknown))
    for path in paths:
        result = results[path]
        if isinstance(result, FileEntry):
            hashed.entries.append(result)
        else:
            hashed.failed.append(result)
    return hashed


def _look(file: Path, path: str, listing: Mapping[str, Listed] | None) -> tuple[int, str | None]:
    """Size and, behind a URL, the state of a file."""
    if listing is None:
        return file.stat().st_size, None
    if path not in listing:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return listing[path].bytes, listing[path].state


def _hash(
    root: Path, path: str, cache: HashCache | None, listing: Mapping[str, Listed] | None
) -> FileEntry | FileFailure:
    try:
        if is_remote(root) and listing is not None:
            return _hash_remote(root / path, path, cache, listing[path])
        file = confined(root, path)
        digest = cache.sha256(file) if cache is not None else sha256_file(file)
        return FileEntry(path, digest, file.stat().st_size)
    except VqaError as error:
        return FileFailure(path, error.reason or Reason.UNREADABLE, str(error))
    except (OSError, RuntimeError) as error:
        return _failure(path, error)


def _hash_remote(file: UPath, path: str, cache: HashCache | None, listed: Listed) -> FileEntry | FileFailure:
    """Read in ranges, without a local copy."""
    digest = hashlib.sha256()
    for chunk in remote.chunks(file, listed.bytes):
        digest.update(chunk)
    if remote.state(file) != listed.state:
        return FileFailure(path, Reason.CHECKSUM_MISMATCH, "the object changed while it was read")
    if cache is not None:
        cache.remember(cast(Path, file), digest.hexdigest(), listed.state)
    return FileEntry(path, digest.hexdigest(), listed.bytes)


def _failure(path: str, error: Exception) -> FileFailure:
    reason = Reason.MISSING_FILE if isinstance(error, FileNotFoundError) else Reason.UNREADABLE
    return FileFailure(path, reason, getattr(error, "strerror", None) or str(error))


def _batches(files: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for path, length in files:
        batch.append(path)
        size += length
        if len(batch) >= _BATCH_FILES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

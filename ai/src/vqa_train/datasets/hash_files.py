"""Hashes many files in threads, with or without the stat-keyed cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.files import confined
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_file
from vqa_train.core.progress import Advance
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.walk import FileFailure

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
    root: Path, paths: Sequence[str], *, cache: HashCache | None, workers: int, advance: Advance | None = None
) -> Hashed:
    """SHA-256 and size of each of `paths` under `root`.

    Args:
        root: data root.
        paths: relative to it; each must have been confined to it.
        cache: remembered hashes of unchanged files; None reads every file.
        workers: threads; hashing leaves the interpreter's lock, so they add up until the disk is the limit.
        advance: called with the number of files done.
    """
    results: dict[str, FileEntry | FileFailure] = {}
    unknown: list[tuple[str, int]] = []
    base = root.absolute()
    for path in paths:
        try:
            file = base / path
            known = cache.cached(file) if cache is not None else None
            size = file.stat().st_size
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
            for result in pool.map(lambda path: _hash(root, path, cache), batch):
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


def _hash(root: Path, path: str, cache: HashCache | None) -> FileEntry | FileFailure:
    try:
        file = confined(root, path)
        digest = cache.sha256(file) if cache is not None else sha256_file(file)
        return FileEntry(path, digest, file.stat().st_size)
    except VqaError as error:
        return FileFailure(path, error.reason or Reason.UNREADABLE, str(error))
    except (OSError, RuntimeError) as error:
        return _failure(path, error)


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

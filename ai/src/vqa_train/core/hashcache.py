"""A cache of file hashes keyed by stat, so that a re-scan of unchanged files costs one stat each."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import is_remote

# A file changed in the same clock tick as it was hashed could change again without its stat showing it.
_SETTLE_NS = 2_000_000_000
_SCHEMA = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stat TEXT NOT NULL, sha256 TEXT NOT NULL)"


def cache_dir() -> Path:
    """The folder for caches: $VQA_TRAIN_CACHE, else $XDG_CACHE_HOME/vqa-train, else ~/.cache/vqa-train."""
    explicit = os.environ.get("VQA_TRAIN_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vqa-train"


def _stat_key(stat: os.stat_result) -> str:
    return f"{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}:{stat.st_ino}"


class HashCache:
    """SHA-256 of files, remembered in SQLite while size, mtime, ctime and inode stay the same.

    Losing or deleting the database costs time, never correctness: a database that cannot be opened or written
    (read-only home, full disk) is treated as empty.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path if path is not None else cache_dir() / "hashes.sqlite3"
        self._known: dict[str, tuple[str, str]] | None = None
        self._fresh: dict[str, tuple[str, str]] = {}

    def sha256(self, path: Path) -> str:
        """Hex SHA-256 of `path`: from the cache where its stat is unchanged, else by reading it.

        Raises:
            OSError: the file cannot be opened or read.
        """
        cached = self.cached(path)
        if cached is not None:
            return cached
        before = path.stat()
        digest = sha256_file(path)
        after = path.stat()
        if _stat_key(before) == _stat_key(after):
            self.remember(path, digest)
        return digest

    def remember(self, path: Path, digest: str, state: str | None = None) -> None:
        """Note that `path`, as it is now, was found to have this hash; a file changed just now is not noted.

        What lies behind a URL is noted under its `state` (`core.remote`), or without one not at all.
        """
        if is_remote(path):
            if state is not None:
                self._fresh[str(path)] = (state, digest)
            return
        stat = path.stat()
        if time.time_ns() - stat.st_mtime_ns > _SETTLE_NS:
            self._fresh[str(path.absolute())] = (_stat_key(stat), digest)

    def cached(self, path: Path, state: str | None = None) -> str | None:
        """The remembered hash, or None when the file is unknown or its stat (behind a URL: its `state`) has changed."""
        if is_remote(path):
            noted = self._fresh.get(str(path)) or self._load().get(str(path))
            return noted[1] if noted is not None and noted[0] == state else None
        key = str(path.absolute())
        entry = self._fresh.get(key) or self._load().get(key)
        if entry is None or entry[0] != _stat_key(path.stat()):
            return None
        return entry[1]

    def cached_as(self, key: str, stat: os.stat_result) -> str | None:
        """`cached` of the local file at the absolute path `key`, whose stat was just taken; for many files in a row."""
        entry = self._fresh.get(key) or self._load().get(key)
        return entry[1] if entry is not None and entry[0] == _stat_key(stat) else None

    def save(self) -> None:
        """Write what was learnt since the last save; failures to write are ignored (it is a cache)."""
        if not self._fresh:
            return
        rows: Iterable[tuple[str, str, str]] = [(p, s, h) for p, (s, h) in self._fresh.items()]
        with suppress(sqlite3.Error, OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._connect() as connection:
                connection.execute(_SCHEMA)
                connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
            self._load().update(self._fresh)
            self._fresh = {}

    def __enter__(self) -> HashCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.save()

    def _load(self) -> dict[str, tuple[str, str]]:
        if self._known is None:
            self._known = {}
            if self.path.exists():
                with suppress(sqlite3.Error, OSError), self._connect() as connection:
                    rows = connection.execute("SELECT path, stat, sha256 FROM files")
                    self._known = {path: (stat, digest) for path, stat, digest in rows}
        return self._known

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=10.0)
        try:
            with connection:
                yield connection
        finally:
            connection.close()

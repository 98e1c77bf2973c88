"""Hashing many files: order, failures, and what the cache saves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import Reason
from vqa_train.core.hashcache import HashCache
from vqa_train.datasets import hash_files as module
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.hash_files import hash_files

FILES = {f"d{i % 3}/{i}.mp4": "x" * i for i in range(20)}


def expected(name: str) -> FileEntry:
    return FileEntry(name, hashlib.sha256(FILES[name].encode()).hexdigest(), len(FILES[name]))


@pytest.mark.parametrize("workers", [1, 4])
def test_entries_come_in_the_order_of_the_paths(
    tmp_path: Path, write_files: Callable[..., Path], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_FILES", 7)
    steps: list[int] = []
    hashed = hash_files(
        write_files(tmp_path, FILES), list(FILES), cache=None, workers=workers, advance=lambda n=1: steps.append(n)
    )
    assert hashed.entries == [expected(name) for name in FILES]
    assert hashed.read == sum(steps) == 20


def test_unchanged_files_are_not_read_again(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    root = write_files(tmp_path / "root", FILES)
    database = tmp_path / "hashes.sqlite3"
    assert hash_files(root, list(FILES), cache=HashCache(database), workers=2).read == 20
    again = hash_files(root, list(FILES), cache=HashCache(database), workers=2)
    assert (again.read, again.entries) == (0, [expected(name) for name in FILES])
    write_files(root, {"d0/3.mp4": "other"})
    changed = hash_files(root, list(FILES), cache=HashCache(database), workers=2)
    assert changed.read == 1
    assert changed.entries[3] == FileEntry("d0/3.mp4", hashlib.sha256(b"other").hexdigest(), 5)


def test_every_path_ends_as_an_entry_or_a_failure(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    root = write_files(tmp_path / "root", {"a.mp4": "a"})
    outside = write_files(tmp_path, {"outside.mp4": "o"})
    (root / "out.mp4").symlink_to(outside / "outside.mp4")
    (root / "folder.mp4").mkdir()
    (root / "loop.mp4").symlink_to("loop.mp4")
    paths = ["gone.mp4", "a.mp4", "out.mp4", "folder.mp4", "loop.mp4"]
    hashed = hash_files(root, paths, cache=None, workers=1)
    assert [entry.path for entry in hashed.entries] == ["a.mp4"]
    assert [(failure.path, failure.reason) for failure in hashed.failed] == [
        ("gone.mp4", Reason.MISSING_FILE),
        ("out.mp4", Reason.PATH_ESCAPE),
        ("folder.mp4", Reason.UNREADABLE),
        ("loop.mp4", Reason.UNREADABLE),
    ]

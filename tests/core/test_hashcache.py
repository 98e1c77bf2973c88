import os
from pathlib import Path

from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes


def settled(path: Path, data: bytes) -> Path:
    """A file last changed an hour ago, so that its stat can be trusted."""
    path.write_bytes(data)
    then = path.stat().st_mtime - 3600
    os.utime(path, (then, then))
    return path


def test_remembers_across_instances(tmp_path: Path) -> None:
    path = settled(tmp_path / "a", b"one")
    with HashCache(tmp_path / "db") as cache:
        assert cache.sha256(path) == sha256_bytes(b"one")
    assert HashCache(tmp_path / "db").cached(path) == sha256_bytes(b"one")


def test_changed_file_is_unknown_even_with_the_same_size_and_mtime(tmp_path: Path) -> None:
    path = settled(tmp_path / "a", b"one")
    with HashCache(tmp_path / "db") as cache:
        cache.sha256(path)
    mtime = path.stat().st_mtime_ns
    path.write_bytes(b"two")
    os.utime(path, ns=(mtime, mtime))
    fresh = HashCache(tmp_path / "db")
    assert fresh.cached(path) is None
    assert fresh.sha256(path) == sha256_bytes(b"two")


def test_file_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with HashCache(tmp_path / "db") as cache:
        cache.sha256(path)
    assert HashCache(tmp_path / "db").cached(path) is None


def test_unusable_database_costs_time_only(tmp_path: Path) -> None:
    path = settled(tmp_path / "a", b"one")
    database = tmp_path / "db"
    database.write_bytes(b"this is no database" * 100)
    with HashCache(database) as cache:
        assert cache.sha256(path) == sha256_bytes(b"one")
    (tmp_path / "file").write_bytes(b"")
    with HashCache(tmp_path / "file" / "db") as cache:
        assert cache.sha256(path) == sha256_bytes(b"one")


def test_a_stat_that_was_taken_answers_as_the_file_does(tmp_path: Path) -> None:
    path, other = settled(tmp_path / "a", b"one"), settled(tmp_path / "b", b"two")
    with HashCache(tmp_path / "db") as cache:
        cache.sha256(path)
    fresh = HashCache(tmp_path / "db")
    assert fresh.cached_as(str(path), path.stat()) == fresh.cached(path) == sha256_bytes(b"one")
    assert fresh.cached_as(str(other), other.stat()) is None
    path.write_bytes(b"two")
    assert fresh.cached_as(str(path), path.stat()) is None

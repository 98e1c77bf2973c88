"""Local copies: verified, shared, bounded, and the oldest go first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vqa_train.core import objectcache, remote
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import location


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """A folder in fsspec's memory."""
    return location(f"memory://{tmp_path}")


def test_a_copy_is_fetched_once(place: Any, own_cache: Path) -> None:
    remote.write(place / "a", b"content")
    copy = objectcache.fetch(place / "a", sha256_bytes(b"content"))
    assert copy.read_bytes() == b"content" and copy.is_relative_to(own_cache)
    remote.remove(place / "a")
    assert objectcache.fetch(place / "a", sha256_bytes(b"content")) == copy


def test_other_bytes_are_refused_and_not_kept_under_that_name(place: Any) -> None:
    remote.write(place / "a", b"changed")
    with pytest.raises(objectcache.DamagedObjectError) as found:
        objectcache.fetch(place / "a", sha256_bytes(b"content"))
    assert found.value.sha256 == sha256_bytes(b"changed")
    with pytest.raises(objectcache.DamagedObjectError):
        objectcache.fetch(place / "a", sha256_bytes(b"content"))


def test_bytes_that_were_damaged_on_the_way_are_fetched_again(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.write(place / "a", b"content")
    whole, broken = remote.download, [True]

    def download(path: Any, target: Path) -> None:
        whole(path, target)
        if broken.pop() if broken else False:
            target.write_bytes(b"conteXt")

    monkeypatch.setattr(remote, "download", download)
    assert objectcache.fetch(place / "a", sha256_bytes(b"content")).read_bytes() == b"content"
    assert not broken


def test_the_least_recently_used_make_room(place: Any) -> None:
    copies = []
    for number in range(4):
        data = bytes([number]) * 100
        remote.write(place / str(number), data)
        copies.append(objectcache.fetch(place / str(number), sha256_bytes(data)))
        os.utime(copies[-1].with_name(copies[-1].name + ".used"), (number, number))
    objectcache.fetch(place / "0", sha256_bytes(bytes(100)))
    assert objectcache.clean(250) == 2
    assert [copy.exists() for copy in copies] == [True, False, False, True]


def test_what_was_just_used_stays_whatever_the_limit(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQA_TRAIN_CACHE_BYTES", "10")
    for number in range(3):
        remote.write(place / str(number), bytes([number]) * 100)
        copy = objectcache.fetch(place / str(number), sha256_bytes(bytes([number]) * 100))
    assert copy.exists()
    assert objectcache.clean(10) == 0
    assert objectcache.clean(10, keep_s=0) == 3


def test_parts_of_downloads_that_died_go_after_a_day(place: Any) -> None:
    folder = objectcache.folder()
    folder.mkdir(parents=True)
    for name, age in (("old.part", 90_000), ("young.part", 60)):
        (folder / name).write_bytes(b"half")
        then = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (then, then))
    objectcache.clean(1 << 30)
    assert [path.name for path in folder.iterdir()] == ["young.part"]


def test_a_mirror_follows_what_is_there(place: Any, tmp_path: Path) -> None:
    local = tmp_path / "mirror"
    assert list(objectcache.mirror(place, local).iterdir()) == []
    remote.write(place / "d.yaml", b"one")
    remote.write(place / "d" / "labels.csv", b"id")
    objectcache.mirror(place, local)
    assert (local / "d.yaml").read_bytes() == b"one" and (local / "d" / "labels.csv").read_bytes() == b"id"
    remote.write(place / "d.yaml", b"other")
    remote.remove(place / "d" / "labels.csv")
    objectcache.mirror(place, local)
    assert (local / "d.yaml").read_bytes() == b"other" and not (local / "d" / "labels.csv").exists()


def test_publishing_writes_what_changed_and_leaves_what_others_added(place: Any, tmp_path: Path) -> None:
    local = tmp_path / "mirror"
    for name in ("a.yaml", "b.csv", "c.csv"):
        remote.write(place / name, b"old")
    objectcache.mirror(place, local)
    (local / "a.yaml").write_bytes(b"new")
    (local / "b.csv").unlink()
    (local / "d").mkdir()
    (local / "d" / "e.csv").write_bytes(b"more")
    (local / ".lock").write_bytes(b"")
    remote.write(place / "theirs.csv", b"theirs")
    objectcache.publish(local, place, last=(".yaml",))
    there = {name: remote.read(place / name) for name in remote.find(place)}
    assert there == {"a.yaml": b"new", "c.csv": b"old", "d/e.csv": b"more", "theirs.csv": b"theirs"}

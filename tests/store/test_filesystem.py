"""Writes are durable and whole; errors of the disk name the file and what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vqa_train.core.errors import StoreError
from vqa_train.store import filesystem


def test_a_write_makes_the_folders_it_needs(tmp_path):
    filesystem.write(tmp_path / "a" / "b" / "c.json", b"x")
    assert (tmp_path / "a" / "b" / "c.json").read_bytes() == b"x"


def test_new_folders_are_made_durable_in_their_parents(tmp_path, monkeypatch):
    synced = []
    real = os.fsync

    def fsync(handle):
        synced.append(Path(f"/proc/self/fd/{handle}").readlink())
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    filesystem.make_folder(tmp_path / "a" / "b")
    assert synced == [tmp_path, tmp_path / "a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_leaves_what_was_there(tmp_path, monkeypatch, code):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=os.strerror(code)) as caught:
        filesystem.write(path, b"new")
    assert "everything committed so far is kept" in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        filesystem.write(tmp_path / "a" / "b", b"x")


def test_names_are_sorted_and_leave_out_temporary_files(tmp_path):
    for name in ("b.json", "a.json", ".c.json.00000000.tmp", "d.parquet"):
        (tmp_path / name).touch()
    assert filesystem.names(tmp_path, ".json") == ["a.json", "b.json"]
    assert filesystem.names(tmp_path) == ["a.json", "b.json", "d.parquet"]
    assert filesystem.names(tmp_path / "absent") == []


def test_a_missing_file_is_named_with_what_it_is(tmp_path):
    with pytest.raises(StoreError, match="commit '.*x' is missing"):
        filesystem.read(tmp_path / "x", "commit")


def test_a_folder_that_is_a_file_cannot_be_listed(tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(StoreError, match="cannot be listed"):
        filesystem.names(tmp_path / "x")


def test_removing_twice_is_fine(tmp_path):
    (tmp_path / "x").touch()
    filesystem.remove(tmp_path / "x")
    filesystem.remove(tmp_path / "x")
    assert not (tmp_path / "x").exists()

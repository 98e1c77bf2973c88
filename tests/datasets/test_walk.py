"""Which files under a folder count as videos, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.datasets.walk import list_videos


def test_videos_are_found_sorted_at_every_depth(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    names = ["b/ü 2.MKV", "a.mp4", "b/c/d.webm", "labels.csv", "b/.hidden.mp4", ".git/x.mp4", "b/mp4"]
    walk = list_videos(write_files(tmp_path, dict.fromkeys(names, "x")))
    assert walk.paths == ["a.mp4", "b/c/d.webm", "b/ü 2.MKV"]
    assert walk.failed == []


def test_other_extensions_may_be_asked_for(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    assert list_videos(write_files(tmp_path, {"a.mp4": "", "b.gif": ""}), [".GIF"]).paths == ["b.gif"]


def test_what_is_no_regular_file_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert list_videos(tmp_path).paths == []


def test_links_inside_count_and_links_out_are_refused(tmp_path: Path, write_files: Callable[..., Path]) -> None:
    root = write_files(tmp_path / "root", {"real/a.mp4": "a"})
    outside = write_files(tmp_path / "outside", {"secret.mp4": "s"})
    (root / "inside.mp4").symlink_to("real/a.mp4")
    (root / "out.mp4").symlink_to(outside / "secret.mp4")
    (root / "again").symlink_to("real")
    (root / "folder out").symlink_to(outside)
    (root / "broken.mp4").symlink_to("nothing.mp4")
    (root / "broken.txt").symlink_to("nothing.txt")
    (root / "loop.mp4").symlink_to("loop.mp4")
    walk = list_videos(root)
    assert walk.paths == ["inside.mp4", "real/a.mp4"]
    assert [(failure.path, failure.reason) for failure in walk.failed] == [
        ("broken.mp4", Reason.MISSING_FILE),
        ("folder out", Reason.PATH_ESCAPE),
        ("loop.mp4", Reason.MISSING_FILE),
        ("out.mp4", Reason.PATH_ESCAPE),
    ]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4")).write_text("x")
    except OSError:
        pytest.skip("this file system keeps no such name")
    walk = list_videos(tmp_path)
    assert walk.paths == []
    assert [(failure.path, failure.message) for failure in walk.failed] == [
        ("bad\\xff.mp4", "the file's name is not UTF-8")
    ]


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone' cannot be read: No such file") as caught:
        list_videos(tmp_path / "gone")
    assert caught.value.reason == Reason.MISSING_FILE


def test_an_unreadable_folder_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0)
    if os.geteuid() == 0:  # permissions do not bind root; let the system call say what it says to others
        real = os.scandir

        def scandir(path: Path) -> object:
            if Path(path) == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
    try:
        with pytest.raises(ManifestError, match=r"locked' cannot be read: Permission denied.*give it read") as caught:
            list_videos(tmp_path)
    finally:
        locked.chmod(0o700)
    assert caught.value.reason == Reason.UNREADABLE

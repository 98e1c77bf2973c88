"""Verifying: every difference between the folder and the manifest is named, and nothing else."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.datasets.manifest import read_manifest
from vqa_train.datasets.scan import ScanReport
from vqa_train.datasets.verify import VerifyReport, verify

Small = Callable[..., ScanReport]


def check(tmp_path: Path) -> VerifyReport:
    return verify(read_manifest(tmp_path / "small.yaml")[0], tmp_path, tmp_path / "data")


def test_an_untouched_folder_is_as_listed(small: Small, tmp_path: Path) -> None:
    small()
    report = check(tmp_path)
    assert report.ok
    assert report.checked == 3
    assert (report.missing, report.changed, report.unlisted, report.unreadable) == ([], [], [], [])


def test_missing_changed_and_unlisted_files_are_named(small: Small, tmp_path: Path) -> None:
    small()
    clips = tmp_path / "data" / "clips"
    (clips / "a.mp4").rename(clips / "new.mp4")
    (clips / "b.mp4").write_text("longer bytes of b")
    (clips / "notes.txt").write_text("not a video")
    report = check(tmp_path)
    assert report.missing == ["clips/a.mp4"]
    assert report.unlisted == ["clips/new.mp4"]
    assert [change["path"] for change in report.changed] == ["clips/b.mp4"]
    assert (report.changed[0]["expected"]["bytes"], report.changed[0]["found"]["bytes"]) == (10, 17)
    assert not report.ok


def test_a_flipped_byte_is_found_though_the_stat_is_as_before(small: Small, tmp_path: Path) -> None:
    small()
    video = tmp_path / "data/clips/a.mp4"
    before = video.stat()
    data = bytearray(video.read_bytes())
    data[-1] ^= 1
    video.write_bytes(data)
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [change["path"] for change in check(tmp_path).changed] == ["clips/a.mp4"]


def test_remembered_hashes_are_not_believed(small: Small, tmp_path: Path, own_cache: Path) -> None:
    small()
    with sqlite3.connect(own_cache / "hashes.sqlite3") as database:
        assert database.execute("UPDATE files SET sha256 = ?", ("0" * 64,)).rowcount == 2
    database.close()
    assert check(tmp_path).ok


def test_label_tables_are_checked_too(small: Small, tmp_path: Path) -> None:
    small()
    (tmp_path / "data/labels.csv").write_text("changed")
    assert [change["path"] for change in check(tmp_path).changed] == ["labels.csv"]
    (tmp_path / "data/labels.csv").unlink()
    assert check(tmp_path).missing == ["labels.csv"]


def test_an_escaping_link_and_a_folder_in_a_files_place_are_unreadable(small: Small, tmp_path: Path) -> None:
    small()
    clips = tmp_path / "data" / "clips"
    (clips / "a.mp4").rename(tmp_path / "out.mp4")
    (clips / "a.mp4").symlink_to(tmp_path / "out.mp4")
    (clips / "stray.mp4").symlink_to(tmp_path / "out.mp4")
    (clips / "b.mp4").unlink()
    (clips / "b.mp4").mkdir()
    report = check(tmp_path)
    assert [(failure.path, failure.reason) for failure in report.unreadable] == [
        ("clips/a.mp4", Reason.PATH_ESCAPE),
        ("clips/b.mp4", Reason.UNREADABLE),
        ("clips/stray.mp4", Reason.PATH_ESCAPE),
    ]
    assert not report.ok


def test_files_scanned_for_by_extension_are_looked_for_again(small: Small, tmp_path: Path) -> None:
    small([("a", 3, "", "")], {"a.gif": "g"}, extensions=(".gif",))
    (tmp_path / "data" / "b.gif").write_text("new")
    assert check(tmp_path).unlisted == ["b.gif"]


def test_the_report_is_json(small: Small, tmp_path: Path) -> None:
    small()
    (tmp_path / "data/clips/a.mp4").unlink()
    value = json.loads(json.dumps(check(tmp_path).to_json(), allow_nan=False))
    assert (value["schema"], value["ok"], value["missing"]) == ("vqa-train/dataset-verify/1", False, ["clips/a.mp4"])


def test_a_manifest_without_files_cannot_be_verified(small: Small, tmp_path: Path) -> None:
    small()
    manifest = read_manifest(tmp_path / "small.yaml")[0].model_copy(update={"files": None})
    with pytest.raises(ManifestError, match="lists no files yet"):
        verify(manifest, tmp_path, tmp_path / "data")

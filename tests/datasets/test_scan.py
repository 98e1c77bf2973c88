"""Scanning: the manifest is true, a second scan reads nothing and writes the same bytes, problems are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import ConfigError, LabelError, ManifestError, Reason
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.datasets.files_table import read_files_table
from vqa_train.datasets.manifest import read_manifest
from vqa_train.datasets.scan import ScanReport

Small = Callable[..., ScanReport]


def test_the_manifest_lists_every_video_with_its_hash(small: Small, tmp_path: Path) -> None:
    report = small()
    manifest, _ = read_manifest(report.manifest)
    assert manifest.files is not None
    assert {e.path: e.sha256 for e in read_files_table(manifest.files, tmp_path)} == {
        f"clips/{name}.mp4": sha256_bytes(f"bytes of {name}".encode()) for name in "ab"
    }
    assert manifest.labels[0].sha256 == sha256_file(tmp_path / "data/labels.csv")
    assert (report.files, report.bytes_total, report.read, report.some_failed) == (2, 20, 2, False)


def test_a_second_scan_reads_nothing_and_writes_the_same_bytes(small: Small) -> None:
    first = small()
    written = [path.read_bytes() for path in (first.manifest, first.files_table)]
    second = small(files={})
    assert second.read == 0
    assert [path.read_bytes() for path in (second.manifest, second.files_table)] == written


def test_a_video_that_arrives_later_is_taken_up(small: Small, tmp_path: Path) -> None:
    small([("a", 3, "", ""), ("b", 3, "", "")], {"a.mp4": "a"})
    report = small([("a", 3, "", ""), ("b", 3, "", "")], {"b.mp4": "b"})
    assert (report.files, report.read) == (2, 1)
    assert not report.some_failed


@pytest.mark.parametrize(
    ("rows", "files", "field"),
    [
        ([("a", 3, "", ""), ("ghost", 3, "", "")], {"a.mp4": "a"}, "ids_without_file"),
        ([("a", 3, "", ""), ("a", 3, "", "")], {"a.mp4": "a"}, "duplicate_ids"),
        ([("a", 3, "", "")], {"x/a.mp4": "a", "y/a.mp4": "b"}, "ambiguous_ids"),
    ],
)
def test_a_row_without_its_video_is_a_failure(
    small: Small, rows: list[tuple[object, ...]], files: dict[str, str], field: str
) -> None:
    report = small(rows, files)
    assert report.some_failed
    assert len(getattr(report.labels, field)) == 1


def test_a_link_out_of_the_root_is_a_failure_and_not_in_the_table(small: Small, tmp_path: Path) -> None:
    (tmp_path / "secret.mp4").write_text("s")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.mp4").symlink_to(tmp_path / "secret.mp4")
    report = small([("a", 3, "", "")], {"b.mp4": "b"})
    assert [(f.path, f.reason) for f in report.failed] == [("a.mp4", Reason.PATH_ESCAPE)]
    assert report.labels.ids_without_file == ["a"]
    assert "a.mp4" not in report.files_table.read_text()


def test_labels_are_checked_before_any_video_is_read(small: Small, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"row 1 \(line 2\) column 'mos': 9 is outside"):
        small([("a", 9, "", "")])
    assert not (tmp_path / "small.yaml").exists()
    assert not list(tmp_path.glob("*.csv"))


def test_what_is_at_the_output_and_is_no_manifest_is_left_alone(small: Small, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("precious: notes\n")
    with pytest.raises((ManifestError, ConfigError)):
        small()
    assert (tmp_path / "small.yaml").read_text() == "precious: notes\n"


def test_a_folder_that_is_none_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"gone' is not a folder"):
        small(root=tmp_path / "gone")


def test_unicode_and_spaces_in_names(small: Small, tmp_path: Path) -> None:
    report = small(
        [("été 1, vidéo", 3, "", "")], {"mes clips/été 1, vidéo.mp4": "é"}, output=tmp_path / "été 2.yaml", name="n"
    )
    assert not report.some_failed
    assert report.files_table.name == "été 2.files.csv"


def test_the_report_is_json(small: Small) -> None:
    value = json.loads(json.dumps(small().to_json(), allow_nan=False))
    assert (value["schema"], value["files"], value["labels"]["videos"]) == ("vqa-train/dataset-scan/1", 2, 2)

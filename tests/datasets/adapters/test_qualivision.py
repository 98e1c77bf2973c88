"""The qualivision layout, from scan to loaded videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import LabelError, ManifestError
from vqa_train.core.hashing import sha256_bytes
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan


def config(root: Path) -> ScanConfig:
    return ScanConfig(root=root, output=root.parent / "qv.yaml", adapter="qualivision", license="CC-BY-4.0")


def test_the_whole_layout_is_understood(qualivision: Path) -> None:
    manifest, report = scan(config(qualivision))
    assert not report.some_failed
    assert [(table.path, table.split, table.labelled) for table in manifest.labels] == [
        ("train/labels/train_labels.csv", "train", True),
        ("val/labels/val_labels.csv", "val", True),
        ("test/labels/test_labels.csv", "test", False),
    ]
    dataset = load_dataset(str(qualivision.parent / "qv.yaml"))
    assert [(video.id, video.split) for video in dataset.videos] == [
        (f"{split}_{i} é.mp4", split) for split in ("train", "val", "test") for i in range(2)
    ]
    first = dataset.videos[0]
    assert first.path == "train/videos/train_0 é.mp4"
    assert first.sha256 == sha256_bytes("bytes of train_0 é.mp4".encode())
    assert first.prompt == 'a "cat", train_0 é.mp4'
    assert first.labels == {"technical": 1.5, "alignment": 2, "aesthetic": 3, "temporal": 4, "overall": 5}


def test_test_labels_without_mos_are_videos_without_labels(qualivision: Path) -> None:
    scan(config(qualivision))
    for policy in ("mask", "drop", "neutral"):
        dataset = load_dataset(str(qualivision.parent / "qv.yaml"), missing_mos=policy)
        assert [video.labels for video in dataset.videos if video.split == "test"] == [{}, {}]
        assert dataset.report.unlabelled_tables == ["test/labels/test_labels.csv"]
        assert dataset.report.missing_mos == {
            "technical": 0,
            "alignment": 2,
            "aesthetic": 0,
            "temporal": 2,
            "overall": 0,
        }


def test_training_labels_without_mos_are_an_error(qualivision: Path, write_csv: Callable[..., Path]) -> None:
    write_csv(qualivision / "train/labels/train_labels.csv", ("video_name", "Prompt"), [("train_0 é.mp4", "x")])
    with pytest.raises(LabelError, match=r"train_labels\.csv' has no column 'Traditional_MOS'"):
        scan(config(qualivision))


def test_a_name_without_its_extension_and_the_same_name_in_two_splits(
    qualivision: Path, write_csv: Callable[..., Path], write_files: Callable[..., Path]
) -> None:
    header = (
        "video_name",
        "Prompt",
        "Traditional_MOS",
        "Alignment_MOS",
        "Aesthetic_MOS",
        "Temporal_MOS",
        "Overall_MOS",
    )
    for split in ("train", "val"):
        write_csv(qualivision / split / f"labels/{split}_labels.csv", header, [("same", "p", 1, 2, 3, 4, 5)])
        write_files(qualivision / split / "videos", {"same.mp4": split})
    _, report = scan(config(qualivision))
    assert [d["id"] for d in report.labels.duplicate_ids] == ["same"]
    assert "val/videos/same.mp4" not in report.labels.files_without_id
    dataset = load_dataset(str(qualivision.parent / "qv.yaml"))
    assert [(v.path, v.split) for v in dataset.videos if v.id == "same"] == [("train/videos/same.mp4", "train")]


def test_another_layout_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no train\|val\|test/labels/\*\.csv"):
        scan(config(tmp_path))

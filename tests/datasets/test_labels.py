"""The join of labels and files: policies for missing scores, and everything that does not fit named."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from vqa_train.core.config import parse
from vqa_train.core.types import Video
from vqa_train.datasets.adapters.csv import CsvAdapter
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.labels import FINDINGS, LabelReport, MissingMos, join_labels, read_labels
from vqa_train.datasets.manifest import DatasetManifest

MANIFEST = parse(
    DatasetManifest,
    {
        "name": "t",
        "license": "MIT",
        "mos": {"min": 1, "max": 5},
        "targets": ["sharp", {"name": "smooth", "mos": {"min": 0, "max": 100}}],
        "columns": {"id": "id", "group": "scene"},
        "labels": [{"path": "train.csv", "split": "train"}, {"path": "test.csv", "split": "test"}],
    },
    "test",
)
HEADER = "id,scene,sharp,smooth\n"


def join(
    train: str, test: str = "", files: Sequence[tuple[str, str]] = (), policy: MissingMos = "mask"
) -> tuple[tuple[Video, ...], LabelReport]:
    """The join of two tables, with files given as (path, first letter of the sha256)."""
    texts = (HEADER + train, HEADER + test)
    tables = [(table, text.encode()) for table, text in zip(MANIFEST.labels, texts, strict=True)]
    entries = [FileEntry(path, letter * 64, 1) for path, letter in files]
    return join_labels(MANIFEST, read_labels(MANIFEST, CsvAdapter(), tables), entries, policy)


FILES = (("a.mp4", "a"), ("b.mp4", "b"), ("c.mp4", "c"))
TRAIN = "a,s,3,40\nb,s,n/a,50\nc,s,,nan\n"


def test_missing_scores_are_masked_and_counted_per_target() -> None:
    videos, report = join(TRAIN, files=FILES)
    assert [video.labels for video in videos] == [{"sharp": 3, "smooth": 40}, {"smooth": 50}, {}]
    assert report.missing_mos == {"sharp": 2, "smooth": 1}
    assert (report.policy, report.videos, report.neutral, report.dropped) == ("mask", 3, {}, [])


def test_drop_leaves_out_every_video_with_a_missing_score() -> None:
    videos, report = join(TRAIN, files=FILES, policy="drop")
    assert [video.id for video in videos] == ["a"]
    assert report.dropped == ["b", "c"]
    assert report.missing_mos == {"sharp": 2, "smooth": 1}
    assert report.files_without_id == []


def test_neutral_fills_in_the_middle_of_each_targets_range_and_says_so() -> None:
    videos, report = join(TRAIN, files=FILES, policy="neutral")
    assert [video.labels for video in videos] == [
        {"sharp": 3, "smooth": 40},
        {"sharp": 3, "smooth": 50},
        {"sharp": 3, "smooth": 50},
    ]
    assert report.neutral == {"sharp": 3, "smooth": 50}
    assert report.missing_mos == {"sharp": 2, "smooth": 1}


@pytest.mark.parametrize("policy", ["mask", "drop", "neutral"])
def test_a_table_without_a_single_score_is_unlabelled_under_every_policy(policy: MissingMos) -> None:
    videos, report = join("a,s,3,40\n", "b,t,,\nc,t,,\n", FILES, policy)
    assert [video.labels for video in videos if video.split == "test"] == [{}, {}]
    assert report.unlabelled_tables == ["test.csv"]
    assert report.missing_mos == {"sharp": 0, "smooth": 0}


def test_neutral_invents_no_score_for_a_target_that_a_table_does_not_have() -> None:
    table = MANIFEST.labels[1].model_copy(update={"labelled": False})
    rows = read_labels(MANIFEST, CsvAdapter(), [(table, b"id,scene,sharp\na,s,2\nb,s,\n")])
    videos, report = join_labels(MANIFEST, rows, [FileEntry(f"{n}.mp4", n * 64, 1) for n in "ab"], "neutral")
    assert [video.labels for video in videos] == [{"sharp": 2}, {"sharp": 3}]
    assert report.missing_mos == {"sharp": 1, "smooth": 0}


def test_of_rows_with_one_id_the_first_counts() -> None:
    videos, report = join("a,s,3,40\nb,s,2,2\n", "a,s,1,1\n", FILES)
    assert [(video.id, video.labels["sharp"]) for video in videos] == [("a", 3), ("b", 2)]
    assert report.duplicate_ids == [
        {
            "id": "a",
            "at": "label table 'test.csv' row 1 (line 2) column 'id'",
            "first": "label table 'train.csv' row 1 (line 2) column 'id'",
        }
    ]


def test_ids_without_file_and_files_without_id_are_named() -> None:
    videos, report = join("a,s,3,40\nghost,s,2,2\n", files=FILES)
    assert [video.id for video in videos] == ["a"]
    assert report.ids_without_file == ["ghost"]
    assert report.files_without_id == ["b.mp4", "c.mp4"]


def test_an_id_that_names_two_files_is_left_out() -> None:
    videos, report = join("a,s,3,40\n", files=[("x/a.mp4", "a"), ("y/a.mp4", "b")])
    assert videos == ()
    assert report.ambiguous_ids == [{"id": "a", "files": ["x/a.mp4", "y/a.mp4"]}]
    assert report.files_without_id == []


def test_the_same_bytes_and_the_same_group_in_two_splits_are_reported() -> None:
    _, report = join("a,s,3,40\nb,t,3,40\n", "c,s,3,40\n", [("a.mp4", "f"), ("b.mp4", "e"), ("c.mp4", "f")])
    assert report.same_bytes_across_splits == [{"sha256": "f" * 64, "ids": ["a", "c"], "splits": ["test", "train"]}]
    assert report.groups_across_splits == [{"group": "s", "splits": ["test", "train"]}]


def test_a_clean_join_has_no_findings_and_the_report_is_json() -> None:
    _, report = join("a,s,3,40\nb,s,2,40\n", "c,t,3,40\n", FILES)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["schema"] == "vqa-train/label-report/1"
    assert value["tables"] == {"train.csv": 2, "test.csv": 1}
    assert {field: value[field] for field in FINDINGS} == {field: [] for field in FINDINGS}

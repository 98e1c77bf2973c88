"""References of records: found by id or by path, hashed like videos, named where they are not what they should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from vqa_train.core.config import parse
from vqa_train.core.errors import LabelError, Reason
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.types import Reference, Video
from vqa_train.datasets.adapters.csv import CsvAdapter
from vqa_train.datasets.adapters.qualivision import QualivisionAdapter
from vqa_train.datasets.files_table import FileEntry
from vqa_train.datasets.labels import LabelReport, join_labels, read_labels
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.manifest import DatasetManifest, read_manifest
from vqa_train.datasets.protocols.units import units_of
from vqa_train.datasets.scan import ScanReport
from vqa_train.datasets.verify import verify
from vqa_train.pipelines.fit.data import with_splits

FILES = (("src/p.mp4", "1"), ("enc/a.mp4", "a"), ("enc/b.mp4", "b"))


def manifest(path: str = "t.csv") -> DatasetManifest:
    columns = {"id": "id", "reference": "ref", "split": "part"}
    value = {"name": "t", "license": "MIT", "mos": {"min": 1, "max": 5}, "targets": ["mos"], "columns": columns}
    return parse(DatasetManifest, {**value, "labels": [{"path": path}]}, "test")


def join(
    rows: str, files: Sequence[tuple[str, str]] = FILES, policy: str = "mask"
) -> tuple[tuple[Video, ...], LabelReport]:
    """Rows are id, mos, ref, part; files are (path, letter of the sha256)."""
    described = manifest()
    tables = read_labels(described, CsvAdapter(), [(described.labels[0], b"id,mos,ref,part\n" + rows.encode())])
    entries = [FileEntry(path, letter * 64, i) for i, (path, letter) in enumerate(files)]
    return join_labels(described, tables, entries, policy)  # type: ignore[arg-type] # a text in the tests


@pytest.mark.parametrize("name", ["src/p.mp4", "p.mp4", "p", "src/p"])
def test_a_reference_is_named_by_its_path_as_a_video_is(name: str) -> None:
    (a, b), report = join(f"a,3,{name},\nb,2,,\n")
    assert a.reference == Reference(id=name, path="src/p.mp4", sha256="1" * 64, bytes=0)
    assert b.reference is None
    assert (report.references, report.files_without_id) == (1, [])


def test_the_id_of_another_row_means_that_rows_video_even_where_a_file_has_that_name() -> None:
    rows = "p,5,p,\na,3,p,\n"
    videos, report = join(rows, [("x/p.mp4", "1"), ("enc/a.mp4", "a")])
    assert [video.reference and video.reference.sha256 for video in videos] == ["1" * 64] * 2
    assert report.references == 1
    # The row that is called clip.mp4 has its video elsewhere, and a file of that name lies about.
    described = manifest().model_copy(
        update={"columns": manifest().columns.model_copy(update={"path": "file", "split": None})}
    )
    data = b"id,mos,ref,file\nclip.mp4,5,,src/p.mp4\na,3,clip.mp4,enc/a.mp4\n"
    files = [*FILES, ("clip.mp4", "c")]
    entries = [FileEntry(path, letter * 64, 1) for path, letter in files]
    (_, a), _ = join_labels(described, read_labels(described, CsvAdapter(), [(described.labels[0], data)]), entries)
    assert a.reference is not None
    assert a.reference.path == "src/p.mp4"


def test_a_row_that_is_left_out_for_want_of_a_score_is_still_a_reference() -> None:
    videos, _ = join("p,,,\na,3,p,\n", policy="drop")
    assert [(video.id, video.reference.path if video.reference else None) for video in videos] == [("a", "src/p.mp4")]


def test_what_names_no_file_or_several_is_reported_and_the_row_kept_without_a_reference() -> None:
    videos, report = join("a,3,ghost,\nb,3,ghost,\nq,3,p,\n", [*FILES, ("more/p.mp4", "2"), ("q.mp4", "3")])
    assert [video.reference for video in videos] == [None] * 3
    assert report.references_without_file == [{"id": "ghost", "videos": 2}]
    assert report.ambiguous_references == [{"id": "p", "files": ["src/p.mp4", "more/p.mp4"], "videos": 1}]
    assert report.references == 0


@pytest.mark.parametrize("name", ["../p.mp4", "/data/p.mp4"])
def test_a_reference_outside_the_data_root_is_refused(name: str) -> None:
    with pytest.raises(LabelError, match=r"row 1 \(line 2\) column 'ref': path .* leaves the data root") as caught:
        join(f"a,3,{name},\n")
    assert caught.value.reason == Reason.PATH_ESCAPE


def test_an_adapters_place_comes_first_and_a_path_below_the_root_works_too() -> None:
    described = manifest("train/labels/t.csv")
    data = b"id,mos,ref,part\na,3,r,\nb,3,pristine/s.mp4,\n"
    paths = ["train/videos/a.mp4", "train/videos/b.mp4", "train/videos/r.mp4", "test/videos/r.mp4", "pristine/s.mp4"]
    entries = [FileEntry(path, f"{i}" * 64, 1) for i, path in enumerate(paths)]
    tables = read_labels(described, QualivisionAdapter(), [(described.labels[0], data)])
    found, _ = join_labels(described, tables, entries)
    assert [video.reference.path for video in found if video.reference] == ["train/videos/r.mp4", "pristine/s.mp4"]


def test_a_reference_whose_videos_are_in_two_splits_is_reported() -> None:
    _, report = join("a,3,p,train\nb,3,p,test\n")
    assert report.references_across_splits == [{"reference": "src/p.mp4", "splits": ["test", "train"]}]
    _, report = join("a,3,p,train\nb,3,p,train\n")
    assert report.references_across_splits == []


def test_videos_of_one_reference_are_one_unit_with_it_unless_rows_are_asked_for() -> None:
    videos, _ = join("p,5,,\na,3,p,\nb,3,p,\nc,3,,\n", [*FILES, ("c.mp4", "c")])
    units = units_of(["t"] * 4, videos)
    assert units[0] == units[1] == units[2] != units[3]
    assert len(set(units_of(["t"] * 4, videos, "row"))) == 4


ROWS = [(f"{source}{i}", 3, f"ref/{source}.mp4", "") for source in "abcdefgh" for i in range(3)]
PATHS = {**{f"enc/{row[0]}.mp4": row[0] for row in ROWS}, **{f"ref/{s}.mp4": f"pristine {s}" for s in "abcdefgh"}}


def test_a_scan_hashes_references_and_verify_finds_one_that_changed(
    small: Callable[..., ScanReport], tmp_path: Path
) -> None:
    # The label table of `small` has the columns video, mos, scene, part.
    report = small(rows=ROWS, files=PATHS, columns={"id": "video", "reference": "scene"})
    assert (report.labels.references, report.labels.files_without_id, report.some_failed) == (8, [], False)
    data = load_dataset(str(tmp_path / "small.yaml"))
    assert {v.reference.sha256 for v in data.videos if v.reference} == {
        sha256_bytes(f"pristine {source}".encode()) for source in "abcdefgh"
    }
    assert [(r.path, r.labels) for r in data.references] == [(f"ref/{source}.mp4", {}) for source in "abcdefgh"]
    described = read_manifest(tmp_path / "small.yaml")[0]
    assert verify(described, tmp_path, data.root).ok
    (data.root / "ref/c.mp4").write_text("another")
    (data.root / "ref/d.mp4").unlink()
    found = verify(described, tmp_path, data.root)
    assert ([item["path"] for item in found.changed], found.missing) == (["ref/c.mp4"], ["ref/d.mp4"])
    assert load_dataset(str(tmp_path / "small.yaml")).report.missing_files == ["ref/d.mp4"]


def test_a_scan_says_that_a_reference_is_not_there(small: Callable[..., ScanReport]) -> None:
    report = small(
        rows=[("a", 3, "ref/a.mp4", "")], files={"a.mp4": "a"}, columns={"id": "video", "reference": "scene"}
    )
    assert report.labels.references_without_file == [{"id": "ref/a.mp4", "videos": 1}]
    assert report.some_failed


def test_a_reference_with_the_bytes_of_a_row_is_no_record_of_its_own(
    small: Callable[..., ScanReport], tmp_path: Path
) -> None:
    rows = [("p", 5, "", ""), ("a", 3, "ref/copy.mp4", "")]
    files = {"p.mp4": "pristine", "ref/copy.mp4": "pristine", "a.mp4": "a"}
    small(rows=rows, files=files, columns={"id": "video", "reference": "scene"})
    assert load_dataset(str(tmp_path / "small.yaml")).references == ()


def test_splits_that_fit_draws_keep_the_videos_of_a_reference_together(
    small: Callable[..., ScanReport], tmp_path: Path
) -> None:
    small(rows=ROWS, files=PATHS, columns={"id": "video", "reference": "scene"})
    drawn: dict[str, set[str | None]] = {}
    for video in with_splits(load_dataset(str(tmp_path / "small.yaml"))):
        assert video.reference is not None
        assert video.group is None
        drawn.setdefault(video.reference.path, set()).add(video.split)
    assert {len(splits) for splits in drawn.values()} == {1}
    assert set().union(*drawn.values()) == {"train", "test"}

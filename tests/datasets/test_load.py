"""Loading: names and paths of manifests, data roots, hashes that must hold, paths that must stay inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import LabelError, ManifestError, Reason, VqaError
from vqa_train.core.hashing import sha256_file, unit_interval
from vqa_train.datasets.load import find_manifest, load_dataset
from vqa_train.datasets.manifest import read_manifest, write_manifest
from vqa_train.datasets.scan import ScanReport

Small = Callable[..., ScanReport]


def test_a_dataset_is_found_by_path_or_by_name(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(output=tmp_path / "manifests" / "small.yaml").manifest
    by_path = load_dataset(str(path))
    assert by_path == load_dataset("small", manifests_dir=tmp_path / "manifests")
    assert by_path.sha256 == sha256_file(path)
    assert [by_path.path_of(video).read_text() for video in by_path.videos] == ["bytes of a", "bytes of b"]
    monkeypatch.chdir(tmp_path)
    assert load_dataset("small").videos == by_path.videos


def test_an_unknown_name_is_an_error_with_the_nearest(small: Small, tmp_path: Path) -> None:
    small()
    with pytest.raises(ManifestError, match=r"no dataset 'smal'.*did you mean 'small'\?"):
        load_dataset("smal", manifests_dir=tmp_path)
    with pytest.raises(ManifestError, match=r"'gone\.yaml' does not exist"):
        load_dataset("gone.yaml")
    with pytest.raises(VqaError, match="leaves its root"):
        load_dataset("../small", manifests_dir=tmp_path / "manifests")


def test_a_store_is_looked_through_after_the_manifests(small: Small, tmp_path: Path) -> None:
    store = tmp_path / "store"
    inside = small(output=store / "datasets" / "small.yaml").manifest
    assert find_manifest("small", tmp_path / "none", [store]) == inside
    first = small(output=tmp_path / "manifests" / "small.yaml").manifest
    assert find_manifest("small", tmp_path / "manifests", [store]) == first
    with pytest.raises(
        ManifestError, match=r"no dataset 'smol'.*nor is it in '.*store/datasets' - did you mean 'small'"
    ):
        find_manifest("smol", tmp_path / "none", [store])


class TestDataRoot:
    @pytest.fixture
    def moved(self, small: Small, tmp_path: Path) -> str:
        """A manifest whose data is no longer where it says."""
        path = small().manifest
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        return str(path)

    def test_the_argument_comes_first(self, moved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQA_TRAIN_DATA_ROOT", str(tmp_path / "nowhere"))
        assert len(load_dataset(moved, data_root=tmp_path / "elsewhere").videos) == 2

    def test_then_the_environment(self, moved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQA_TRAIN_DATA_ROOT", str(tmp_path / "elsewhere"))
        assert load_dataset(moved).root == tmp_path / "elsewhere"

    def test_which_may_name_a_folder_of_datasets(
        self, moved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "all").mkdir()
        (tmp_path / "elsewhere").rename(tmp_path / "all" / "small")
        monkeypatch.setenv("VQA_TRAIN_DATA_ROOT", str(tmp_path / "all"))
        assert load_dataset(moved).root == tmp_path / "all" / "small"

    def test_a_root_that_is_not_there_is_an_error_naming_the_flag(self, moved: str) -> None:
        with pytest.raises(ManifestError, match=r"data' of dataset 'small' is not a folder.*--data-root"):
            load_dataset(moved)

    def test_so_is_no_root_at_all(self, moved: str) -> None:
        manifest, _ = read_manifest(Path(moved))
        write_manifest(manifest.model_copy(update={"root": None}), Path(moved))
        with pytest.raises(ManifestError, match="does not say where its data is - pass --data-root"):
            load_dataset(moved)


def test_a_manifest_without_files_says_to_scan(small: Small) -> None:
    path = small().manifest
    manifest, _ = read_manifest(path)
    write_manifest(manifest.model_copy(update={"files": None}), path)
    with pytest.raises(ManifestError, match="lists no files yet - run `vqa-train datasets scan"):
        load_dataset(str(path))


def test_a_changed_or_missing_label_table_is_refused(small: Small, tmp_path: Path) -> None:
    path = str(small().manifest)
    table = tmp_path / "data" / "labels.csv"
    table.write_text(table.read_text().replace("1.5", "2.5"))
    with pytest.raises(LabelError, match=r"labels\.csv' has changed.*scan") as changed:
        load_dataset(path)
    assert changed.value.reason == Reason.CHECKSUM_MISMATCH
    table.unlink()
    with pytest.raises(LabelError, match=r"labels\.csv' cannot be read: No such file") as missing:
        load_dataset(path)
    assert missing.value.reason == Reason.MISSING_FILE


def test_a_label_table_outside_the_root_is_refused(small: Small, tmp_path: Path) -> None:
    path = small().manifest
    (tmp_path / "secret.csv").write_text("video,mos\n")
    path.write_text(path.read_text().replace("path: labels.csv", "path: ../secret.csv"))
    with pytest.raises(VqaError, match="leaves its root") as caught:
        load_dataset(str(path))
    assert caught.value.reason == Reason.PATH_ESCAPE


def test_a_missing_video_is_kept_and_reported(small: Small, tmp_path: Path) -> None:
    path = str(small().manifest)
    (tmp_path / "data/clips/a.mp4").unlink()
    dataset = load_dataset(path)
    assert [video.id for video in dataset.videos] == ["a", "b"]
    assert dataset.report.missing_files == ["clips/a.mp4"]


def test_a_folder_in_a_videos_place_counts_as_missing(small: Small, tmp_path: Path) -> None:
    path = str(small().manifest)
    (tmp_path / "data/clips/a.mp4").unlink()
    (tmp_path / "data/clips/a.mp4").mkdir()
    assert load_dataset(path).report.missing_files == ["clips/a.mp4"]


@pytest.mark.parametrize("linked", ["clips/a.mp4", "clips"])
def test_a_link_out_of_the_root_is_refused(small: Small, tmp_path: Path, linked: str) -> None:
    path = str(small().manifest)
    place = tmp_path / "data" / linked
    outside = tmp_path / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    with pytest.raises(VqaError, match="leaves its root") as caught:
        load_dataset(path)
    assert caught.value.reason == Reason.PATH_ESCAPE


def test_a_link_that_stays_inside_is_followed_and_a_loop_is_missing(small: Small, tmp_path: Path) -> None:
    path = str(small().manifest)
    clips = tmp_path / "data" / "clips"
    (clips / "a.mp4").rename(clips / "real.mp4")
    (clips / "a.mp4").symlink_to("real.mp4")
    assert load_dataset(path).report.missing_files == []
    (clips / "a.mp4").unlink()
    (clips / "a.mp4").symlink_to("a.mp4")
    assert load_dataset(path).report.missing_files == ["clips/a.mp4"]


def test_splits_by_hash_do_not_depend_on_the_order_of_rows(small: Small, tmp_path: Path) -> None:
    rows = [(f"v{i}", 3, f"scene{i // 2}", "") for i in range(40)]
    options = {"columns": {"id": "video", "group": "scene"}, "fractions": {"train": 0.5, "test": 0.5}, "salt": "x"}
    first = load_dataset(str(small(rows, **options).manifest))
    second = load_dataset(str(small(rows[::-1], **options).manifest))
    splits = {video.id: video.split for video in first.videos}
    assert splits == {video.id: video.split for video in second.videos}
    assert splits["v0"] == ("train" if unit_interval("split", "x", "scene0") < 0.5 else "test")
    assert set(splits.values()) == {"train", "test"}
    assert first.report.groups_across_splits == []


def test_the_repr_is_short(small: Small) -> None:
    assert "videos=2" in repr(load_dataset(str(small().manifest)))


def test_loading_opens_no_video(small: Small, tmp_path: Path) -> None:
    config_files = {"clips/a.mp4": "x", "clips/b.mp4": "y"}
    path = str(small(files=config_files).manifest)
    for name in config_files:
        video = tmp_path / "data" / name
        video.unlink()
        os.mkfifo(video)  # opening a FIFO without a writer would wait for ever
    assert load_dataset(path).report.missing_files == sorted(config_files)


def test_scanning_and_loading_agree_on_the_report(small: Small) -> None:
    report = small([("a", "", "s", ""), ("a", 2, "s", ""), ("ghost", 2, "s", "")], {"a.mp4": "a", "extra.mp4": "e"})
    assert load_dataset(str(report.manifest)).report.to_json() == report.labels.to_json()
    assert report.labels.files_without_id == ["extra.mp4"]

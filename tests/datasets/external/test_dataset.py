"""Labels of feature files become an ordinary dataset: what two files say is joined, what they contradict is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import LabelError, ManifestError, Reason
from vqa_train.datasets.external.dataset import DatasetConfig, videos_of, write_dataset
from vqa_train.datasets.external.keys import imported_key
from vqa_train.datasets.external.labels import FileLabels
from vqa_train.datasets.load import IMPORTED_FOLDER, find_root, load_dataset
from vqa_train.datasets.manifest import read_manifest
from vqa_train.datasets.verify import verify
from vqa_train.store.layout import DATASETS

NAN = float("nan")


@pytest.fixture
def config(tmp_path) -> DatasetConfig:
    return DatasetConfig(
        name="made",
        folder=tmp_path / "datasets",
        license=None,
        source="imported from x.csv",
        direction="higher_is_better",
        ranges={"mos": (1.0, 5.0)},
    )


def labels(ids=("a", "b", "c"), groups=None, splits=None, prompts=None, std=None, **targets) -> FileLabels:
    columns = {name: np.array(values, dtype=float) for name, values in (targets or {"mos": [1.5, NAN, 4.25]}).items()}
    deviations = {name: np.array(values, dtype=float) for name, values in (std or {}).items()}
    return FileLabels(list(ids), columns, deviations, groups, splits, prompts)


def put(config: DatasetConfig, given: FileLabels):
    keys = [imported_key(config.name, name) for name in given.ids]
    return write_dataset(videos_of(given, keys), list(given.targets), config)


def loaded(config: DatasetConfig):
    return load_dataset(config.name, stores=[config.folder.parent], manifests_dir=config.folder.parent / "none")


def test_what_was_written_is_loaded_by_name(config):
    given = labels(
        groups=["g", "", "h"],
        splits=["train", "", "test"],
        prompts=['a, "cat"', "", "x\ny"],
        std={"mos": [0.1, NAN, 0.25]},
    )
    written = put(config, given)
    assert (written.state, written.videos) == ("written", 3)
    dataset = loaded(config)
    assert dataset.path == written.path == config.folder / "made.yaml"
    assert [video.id for video in dataset.videos] == ["a", "b", "c"]
    assert [video.sha256 for video in dataset.videos] == [imported_key("made", name) for name in "abc"]
    assert [video.labels for video in dataset.videos] == [{"mos": 1.5}, {}, {"mos": 4.25}]
    assert [video.label_std for video in dataset.videos] == [{"mos": 0.1}, {}, {"mos": 0.25}]
    assert [video.group for video in dataset.videos] == ["g", None, "h"]
    assert [video.split for video in dataset.videos] == ["train", None, "test"]
    assert [video.prompt for video in dataset.videos] == ['a, "cat"', None, "x\ny"]
    assert dataset.manifest.license == "unknown"
    assert dataset.manifest.range_of("mos").model_dump() == {"min": 1, "max": 5, "direction": "higher_is_better"}


def test_its_videos_are_not_missing_because_there_are_none(config):
    put(config, labels())
    dataset = loaded(config)
    assert dataset.has_videos is False
    assert dataset.report.missing_files == []
    assert dataset.report.files_without_id == []
    assert dataset.report.missing_mos == {"mos": 1}


def test_the_environments_data_root_is_that_of_videos(config, monkeypatch, tmp_path):
    put(config, labels())
    monkeypatch.setenv("VQA_TRAIN_DATA_ROOT", str(tmp_path))
    assert len(loaded(config).videos) == 3
    path = str(config.folder / "made.yaml")
    assert len(load_dataset(path, data_root=tmp_path).videos) == 3


ODD = ["a,b", 'a"b', "a\nb", "a\rb", "../x", "/abs", "ünï", "u\u0308", "a/b", "C:\\x", "%2E", ".", "=1", "a'b"]


def test_any_id_survives(config):
    put(config, labels(ODD, mos=np.linspace(1, 5, len(ODD))))
    videos = loaded(config).videos
    assert [video.id for video in videos] == ODD
    assert [video.sha256 for video in videos] == [imported_key("made", name) for name in ODD]
    assert [video.labels["mos"] for video in videos] == np.linspace(1, 5, len(ODD)).tolist()


def test_targets_that_are_named_like_other_columns(config):
    wide = replace(config, ranges={})
    put(wide, labels(id=[1, 2, 3], mos=[1, 2, 4], mos_std=[7, 8, 9], group=[0, 1, 0], std={"mos": [0.5, 0.25, 0]}))
    first = loaded(wide).videos[0]
    assert first.labels == {"id": 1, "mos": 1, "mos_std": 7, "group": 0}
    assert (first.label_std, first.group) == ({"mos": 0.5}, None)


def test_scores_keep_every_digit(config):
    scores = [1 / 3 + 1, np.nextafter(2.0, 3.0), 4.444029851]
    put(config, labels(mos=scores))
    assert [video.labels["mos"] for video in loaded(config).videos] == scores


def test_without_a_range_the_observed_one_counts_per_target(config):
    put(replace(config, ranges={}), labels(mos=[2, NAN, 4], quality=[10, 20, 30]))
    manifest = loaded(config).manifest
    assert (manifest.range_of("mos").min, manifest.range_of("mos").max) == (2, 4)
    assert (manifest.range_of("quality").min, manifest.range_of("quality").max) == (10, 30)


@pytest.mark.parametrize(("scores", "got"), [([3, 3, 3], "all 3 scores are 3"), ([NAN] * 3, "there is no score")])
def test_a_range_that_cannot_be_observed_must_be_given(config, scores, got):
    with pytest.raises(LabelError, match=f"range of 'mos' is not known: {got} - give the scale, as in --mos-range 1,5"):
        put(replace(config, ranges={}), labels(mos=scores))
    assert not (config.folder / "made.yaml").exists()


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_labels_again_write_nothing(config):
    put(config, labels())
    before = files(config.folder)
    assert put(config, labels()).state == "unchanged"
    assert put(replace(config, ranges={}, source="imported from y.csv"), labels()).state == "unchanged"
    assert files(config.folder) == before


def test_some_of_the_rows_in_another_order_write_nothing(config):
    put(config, labels())
    before = files(config.folder)
    assert put(config, labels(["c", "a"], mos=[4.25, 1.5])).state == "unchanged"
    assert files(config.folder) == before


def test_scores_that_went_through_float32_are_the_same(config):
    put(config, labels(mos=[1.1, NAN, 4.444029851]))
    single = np.array([1.1, NAN, 4.444029851], np.float32).astype(float)
    assert put(config, labels(mos=single)).state == "unchanged"
    assert loaded(config).videos[0].labels == {"mos": 1.1}


def test_what_another_file_adds_is_joined(config):
    put(config, labels())
    more = labels(["c", "d", "b"], mos=[NAN, 2, 3], quality=[10, 20, 30], groups=["s", "s", ""])
    assert put(config, more).state == "extended"
    videos = {video.id: video for video in loaded(config).videos}
    assert list(videos) == ["a", "b", "c", "d"]
    assert videos["a"].labels == {"mos": 1.5}
    assert videos["b"].labels == {"mos": 3, "quality": 30}
    assert videos["c"].labels == {"mos": 4.25, "quality": 10}
    assert (videos["c"].group, videos["d"].group, videos["b"].group) == ("s", "s", None)
    assert len(files(config.folder)) == 4  # the lock, the manifest and its two tables: older tables are gone


def test_an_observed_range_grows_with_what_is_observed(config):
    open_ended = replace(config, ranges={})
    put(open_ended, labels(mos=[2, 3, 4]))
    put(open_ended, labels(["d"], mos=[5]))
    assert (loaded(config).manifest.mos.min, loaded(config).manifest.mos.max) == (2, 5)


def test_a_range_that_leaves_out_what_is_there_is_refused(config):
    put(config, labels())
    with pytest.raises(LabelError, match="holds a score 1.5 of 'mos', outside the range 2 to 5"):
        put(replace(config, ranges={"mos": (2.0, 5.0)}), labels(["d"], mos=[3]))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({"mos": [1.5, 2, 3]}, {"mos": [1.5, 2.001, 3]}, r"mos of 'b' is 2\.0 there and 2\.001 here"),
        ({"mos": [1.5, 2, 3]}, {"mos": [1, 1, 1]}, r"mos of 'a' is 1\.5 there and 1\.0 here \(and 2 more rows\)"),
        ({"groups": ["x", "y", "z"]}, {"groups": ["x", "q", "z"]}, "group of 'b' is 'y' there and 'q' here"),
        ({"splits": ["train", "", ""]}, {"splits": ["test", "", ""]}, "split of 'a' is 'train' there"),
        ({"prompts": ["x", "", ""]}, {"prompts": ["y", "", ""]}, "prompt of 'a' is 'x' there"),
        (
            {"std": {"mos": [1, NAN, 2]}},
            {"std": {"mos": [1, NAN, 3]}},
            r"std of mos of 'c' is 2\.0 there and 3\.0 here",
        ),
    ],
)
def test_other_labels_are_refused_and_change_nothing(config, first, second, message):
    base = {"mos": [1.5, NAN, 4.25]}
    put(config, labels(**{**base, **first}))
    before = files(config.folder)
    with pytest.raises(
        LabelError, match=rf"'made' is there with other labels: {message}.*--overwrite-labels"
    ) as caught:
        put(config, labels(**{**base, **second}))
    assert caught.value.reason is Reason.LABEL_MISMATCH
    assert files(config.folder) == before


def test_overwriting_replaces_the_whole_dataset(config):
    put(config, labels())
    assert put(replace(config, overwrite=True), labels(["a"], mos=[5])).state == "replaced"
    assert [(video.id, video.labels) for video in loaded(config).videos] == [("a", {"mos": 5})]


def test_another_direction_is_refused(config):
    put(config, labels())
    with pytest.raises(LabelError, match="is there as higher_is_better, and lower_is_better was given"):
        put(replace(config, direction="lower_is_better"), labels())


def test_another_key_for_an_id_is_refused(config):
    put(config, labels())
    with pytest.raises(LabelError, match="video of 'a' is"):
        write_dataset(videos_of(labels(), ["1" * 64, "2" * 64, "3" * 64]), ["mos"], config)


def test_a_licence_that_is_given_later_is_taken(config):
    put(config, labels())
    assert put(replace(config, license="CC-BY-4.0"), labels()).state == "extended"
    assert put(config, labels()).manifest.license == "CC-BY-4.0"


def test_a_manifest_of_real_videos_is_left_alone(config, small):
    config.folder.mkdir()
    path = small(output=config.folder / "made.yaml").manifest
    before = path.read_bytes()
    with pytest.raises(LabelError, match="was not written by import-features"):
        put(config, labels())
    assert path.read_bytes() == before


def test_the_tables_of_a_dataset_with_a_longer_name_stay(config):
    put(replace(config, name="made.too"), labels())
    put(config, labels())
    put(config, labels(["z"], mos=[2]))
    assert len(load_dataset("made.too", stores=[config.folder.parent]).videos) == 3
    assert len(loaded(config).videos) == 4


@pytest.mark.parametrize("call", range(3))
def test_a_crash_at_any_step_leaves_the_old_dataset_or_the_new(config, monkeypatch, call):
    """The steps are the label table, the files table and the manifest."""
    put(config, labels())
    calls = [0]
    rename = Path.replace

    def crash(self, target):
        calls[0] += 1
        if calls[0] == call + 1:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            put(config, labels(["d"], mos=[2]))
    assert len(loaded(config).videos) == 3
    assert put(config, labels(["d"], mos=[2])).state == "extended"
    assert len(loaded(config).videos) == 4


def test_a_dataset_without_videos_cannot_be_read_as_videos(config):
    put(config, labels())
    with pytest.raises(ManifestError, match="was imported with its features and has no videos to read"):
        load_dataset("made", stores=[config.folder.parent], need_videos=True)


def test_verify_reads_the_label_table(config):
    path = put(config, labels()).path
    manifest, _ = read_manifest(path)
    root = find_root(manifest, path)
    report = verify(manifest, path.parent, root)
    assert (report.ok, report.checked) == (True, 1)
    table = root / manifest.labels[0].path
    table.write_bytes(table.read_bytes() + b"\n")
    assert not verify(manifest, path.parent, root).ok


def test_two_writers_at_once_lose_nothing(config):
    put(config, labels())
    threads = [threading.Thread(target=put, args=(config, labels([f"t{n}"], mos=[2 + n / 10]))) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded(config).videos) == 11


def test_the_folder_is_the_one_that_the_store_leaves_alone():
    assert IMPORTED_FOLDER == DATASETS

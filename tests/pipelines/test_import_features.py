"""Features of other tools in the store: joined by dataset and id, imported once, refused whole if one row is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from vqa_train.core.errors import ExitCode, LabelError, ManifestError, StoreError, UsageError, VqaError
from vqa_train.core.hashcache import HashCache
from vqa_train.core.hashing import sha256_bytes, sha256_file
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.external import base
from vqa_train.datasets.external.base import FeatureFileError
from vqa_train.datasets.external.keys import imported_key
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines.extract.run import ExtractConfig, extract_features
from vqa_train.pipelines.importing.run import ImportConfig, import_features
from vqa_train.pipelines.store import look as store_pipeline
from vqa_train.store.gc import gc
from vqa_train.store.store import FeatureStore
from vqa_train.store.verify import verify

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture
def write(tmp_path):
    """`write(name, ids, **columns)`: a Parquet file of `video_id`, `mos`, `features` and what else is given."""

    def call(name="made.parquet", ids=tuple("abcdefgh"), seed=0, dims=3, **columns):
        rng = np.random.default_rng(seed)
        # Scores depend on the id alone, so that two files of one dataset agree.
        given = {"video_id": list(ids), "mos": [1 + int(sha256_bytes(i.encode())[:4], 16) / 16384 for i in ids]}
        if "features" not in columns:
            columns["features"] = pl.Series(rng.normal(size=(len(ids), dims)), dtype=pl.Array(pl.Float32, dims))
        frame = pl.DataFrame({name: column for name, column in {**given, **columns}.items() if column is not None})
        frame.write_parquet(tmp_path / name)
        return tmp_path / name

    return call


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run(file, **options)`: import into tmp_path/store, in an empty working folder."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(file, name="made", **options):
        return import_features(ImportConfig(**{"file": file, "name": name, "output": tmp_path / "store", **options}))

    return call


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "store"


def keys(ids, dataset="made"):
    return [imported_key(dataset, name) for name in ids]


def everything(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_features_and_labels_are_in_the_store_under_keys_of_dataset_and_id(run, write, root):
    file = write()
    report = run(file, dataset="konvid", license="MIT")
    assert (report.rows, report.added, report.known, report.no_op, report.exit_code) == (8, 8, 0, False, ExitCode.DONE)
    features = FeatureStore.open(root).find("made")
    assert (features.name, features.license) == (report.set, "MIT")
    expected = pl.read_parquet(file)
    np.testing.assert_array_equal(
        features.matrix("pooled", keys("abcdefgh", "konvid")), expected["features"].to_numpy()
    )
    dataset = load_dataset("konvid", stores=[root])
    assert [video.sha256 for video in dataset.videos] == keys("abcdefgh", "konvid")
    assert [video.labels["mos"] for video in dataset.videos] == expected["mos"].to_list()
    assert verify(root).problems == []
    assert gc(root, grace_s=0) == []


def test_the_spec_says_what_was_imported(run, write, root):
    file = write()
    run(file)
    spec = FeatureStore.open(root).find("made").spec
    assert spec.imported
    assert spec.preprocessing == {"imported": {"file_sha256": sha256_file(file), "columns": ["features"]}}
    assert (spec.backbone, spec.definition, spec.modality, spec.sampling) == ("made", 1, "video", None)
    assert [(o.name, o.shape, o.names) for o in spec.outputs] == [("pooled", (3,), None)]


def test_the_run_is_kept_with_its_file(run, write, root):
    file = write()
    report = run(file)
    features = FeatureStore.open(root).find("made")
    block = json.loads((features.folder / "runs" / f"{report.run_id}.json").read_text())
    assert block["entrypoint"] == "import-features"
    assert block["inputs"]["features"]["sha256"] == sha256_file(file)
    assert block["outputs"]["dataset"]["sha256"] == sha256_file(root / "datasets" / "made.yaml")
    assert block["counts"]["done"] == 8
    assert features.commits()[0].run_id == report.run_id
    assert (features.folder / "manifest.json").exists()


def test_importing_again_changes_no_byte(run, write, root):
    file = write()
    run(file, license="MIT")
    before = everything(root)
    again = run(file)
    assert (again.added, again.known, again.no_op, again.run_id) == (0, 8, True, None)
    assert everything(root) == before


def test_an_import_that_was_cut_off_goes_on(run, write, root, monkeypatch):
    monkeypatch.setattr(base, "MIN_ROWS", 1)
    monkeypatch.setattr(base, "MAX_ROWS", 3)
    file = write()
    run(file)
    features = FeatureStore.open(root).find("made")
    assert sorted(commit.rows for commit in features.commits()) == [2, 3, 3]
    lost = features.commits()[0]
    for suffix in (".json", ".parquet"):
        (features.folder / "shards" / f"{lost.shard}{suffix}").unlink()
    again = run(file)
    assert (again.added, again.known) == (lost.rows, 8 - lost.rows)
    assert FeatureStore.open(root).find("made").known_keys() == set(keys("abcdefgh"))


def test_two_files_of_one_dataset_join(run, write, root):
    run(write("one.parquet"), "one", dataset="both")
    second = run(write("two.parquet", ids="hgfe", seed=1, dims=5), "two", dataset="both")
    assert second.dataset["state"] == "unchanged"
    assert not second.no_op
    store = FeatureStore.open(root)
    assert store.find("two").known_keys() == set(keys("efgh", "both")) < store.find("one").known_keys()


def test_other_labels_are_refused_before_anything_is_written(run, write, root):
    run(write("one.parquet"), "one", dataset="both")
    before = everything(root)
    other = write("two.parquet", seed=1, mos=[3.0] * 7 + [2.0])
    with pytest.raises(LabelError, match="dataset 'both' is there with other labels: mos of 'a'"):
        run(other, "two", dataset="both")
    assert everything(root) == before
    report = run(other, "two", dataset="both", overwrite_labels=True)
    assert report.dataset["state"] == "replaced"
    assert load_dataset("both", stores=[root]).videos[0].labels == {"mos": 3.0}


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": ["a", "b", "a"]},
        {"ids": ["a", "", "c"]},
        {"features": [[1.0, 2.0], [1.0], [1.0, 2.0]], "ids": "abc"},
        {"mos": [2.0, float("inf"), 3.0], "ids": "abc"},
    ],
)
def test_a_file_with_a_fault_writes_nothing(run, write, root, columns):
    with pytest.raises(FeatureFileError, match="row [23] column"):
        run(write(**columns))
    assert not root.exists()


def test_a_fault_far_down_writes_nothing(run, tmp_path, root):
    path = tmp_path / "x.csv"
    path.write_text("video_id,f\n" + "".join(f"v{n},{n}\n" for n in range(50_000)) + "last,x\n")
    with pytest.raises(FeatureFileError, match="row 50001 column 'f'"):
        run(path, dim_columns=("f",))
    assert not root.exists()


def test_nan_and_infinity_stay_and_are_counted(run, write, root):
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    values[1, 0], values[1, 1], values[5, 2] = np.nan, np.inf, -np.inf
    report = run(write(features=pl.Series(values, dtype=pl.Array(pl.Float32, 3))))
    assert (report.nonfinite_rows, report.nonfinite_values) == (2, 3)
    assert any("3 NaN or infinite values in 2 rows, kept as published" in note for note in report.notes)
    features = FeatureStore.open(root).find("made")
    np.testing.assert_array_equal(features.matrix("pooled", keys("abcdefgh")), values)
    (described,) = store_pipeline.info(root)["sets"]
    assert (described["rows"], described["finite_rows"]) == (8, {"pooled": 6})
    assert described["imported"]["columns"] == ["features"]
    assert verify(root).problems == []


def test_constant_dimensions_and_values_beyond_float32_are_said(run, write):
    values = np.ones((8, 3))
    values[:, 1] = range(8)
    values[3, 1] = 1e200
    report = run(write(features=pl.Series(values, dtype=pl.Array(pl.Float64, 3))))
    assert (report.constant, report.beyond_float32) == (2, 1)
    assert "1 values are beyond float32 and became infinite" in report.notes
    assert "2 of 3 dimensions are constant" in report.notes


def test_rows_without_a_vector_are_left_out_and_listed(run, write, root):
    report = run(write(ids="abcd", features=[[1.0], None, [3.0], [2.0]]))
    assert (report.added, report.without_features, report.exit_code) == (3, ["b"], ExitCode.SOME_INPUTS_FAILED)
    features = FeatureStore.open(root).find("made")
    assert features.known_keys() == set(keys("acd"))
    assert features.matrix("pooled", keys("acd")).tolist() == [[1], [3], [2]]
    assert (report.nonfinite_rows, report.nonfinite_values) == (0, 0)
    assert len(load_dataset("made", stores=[root]).videos) == 4


def test_usual_names_of_columns_are_taken(run, write, root):
    report = run(write(mos_std=[0.5] * 8, content_id=list("xxyyzzxy"), width=[1] * 8))
    assert report.columns["std"] == {"mos": "mos_std"}
    assert (report.columns["group"], report.dataset["groups"]) == ("content_id", 3)
    assert report.columns["unused"] == ["width"]
    video = load_dataset("made", stores=[root]).videos[0]
    assert (video.group, video.label_std) == ("x", {"mos": 0.5})


def test_a_usual_group_is_left_out_on_request(run, write, root):
    report = run(write(content_id=list("xxyyzzxy")), group_column="")
    assert (report.columns["group"], report.dataset["groups"]) == (None, None)
    assert load_dataset("made", stores=[root]).videos[0].group is None


def test_other_names_are_given(run, tmp_path, root):
    path = tmp_path / "x.csv"
    path.write_text(
        "name;tech;aes;sd;scene;part;text;f1;f2;junk\nv1;40;7;2;s;train;a cat;1;2;x\nv2;60;;3;s;test;;3;4;y\n"
    )
    report = run(
        path,
        id_column="name",
        dim_columns=("f1..f2",),
        feature_names=("sharp", "flat"),
        labels={"technical": "tech", "aesthetic": "aes"},
        std={"technical": "sd"},
        group_column="scene",
        split_column="part",
        prompt_column="text",
        mos_range={"": (0.0, 100.0), "aesthetic": (0.0, 10.0)},
        lower_is_better=True,
        label_license="CC-BY-4.0",
    )
    assert FeatureStore.open(root).find("made").spec.outputs[0].names == ("sharp", "flat")
    dataset = load_dataset("made", stores=[root])
    assert [dict(video.labels) for video in dataset.videos] == [{"technical": 40, "aesthetic": 7}, {"technical": 60}]
    first = dataset.videos[0]
    assert (first.split, first.group, first.prompt, first.label_std) == ("train", "s", "a cat", {"technical": 2})
    assert dataset.manifest.range_of("technical").model_dump() == {"min": 0, "max": 100, "direction": "lower_is_better"}
    assert dataset.manifest.range_of("aesthetic").max == 10
    assert dataset.manifest.license == "CC-BY-4.0"
    assert [target["missing"] for target in report.dataset["targets"]] == [0, 1]


def test_columns_give_dimensions_their_names(run, tmp_path, root):
    path = tmp_path / "x.csv"
    path.write_text("video_id,f_1,f_0\nv1,1,2\nv2,3,4\n")
    report = run(path, dim_columns=("f_*",))
    assert FeatureStore.open(root).find("made").spec.outputs[0].names == ("f_1", "f_0")
    assert report.dataset is None
    assert "no labels were read; name their column with --label" in report.notes
    assert not (root / "datasets").exists()


def test_features_that_are_the_label_are_refused(run, tmp_path, root):
    path = tmp_path / "x.csv"
    path.write_text("video_id,mos,f_0,f_1\nv1,1.1,1,1.1\nv2,2.2,4,2.2\nv3,,4,9\nv4,3.3,0,3.3\n")
    with pytest.raises(UsageError, match="column 'f_1' of .* is the label 'mos' itself"):
        run(path, dim_columns=("f_*",))
    assert not root.exists()
    path.write_text(path.read_text().replace("3.3,0,3.3", "3.3,0,3.4"))
    run(path, dim_columns=("f_*",))


def test_row_numbers_are_ids_where_there_are_none(run, tmp_path, root):
    path = tmp_path / "x.csv"
    path.write_text("mos,f\n1,5\n2,6\n")
    report = run(path, number_rows=True, dim_columns=("f",))
    assert FeatureStore.open(root).find("made").known_keys() == set(keys(["1", "2"]))
    assert any("row numbers" in note for note in report.notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "nss"}, "is a backbone of vqa-train"),
        ({"name": "minilm"}, "is a backbone of vqa-train"),
        ({"name": "a/b"}, "cannot name a folder"),
        ({"dataset": "../x"}, "cannot name a file"),
        ({"number_rows": True, "id_column": "video_id"}, "both decide the ids"),
        ({"features_column": "features", "dim_columns": ("f*",)}, "both name the features"),
        ({"features_column": "mos"}, "as a feature and as an id, label"),
        ({"std": {"other": "mos"}}, "names 'other', which is no --label"),
        ({"mos_range": {"other": (1.0, 5.0)}}, "of 'other', which is no --label"),
        ({"mos_range": {"": (5.0, 1.0)}}, "lowest score comes first"),
        ({"feature_names": ("a", "b")}, r"2 --feature-names \(2 distinct\) for the 3 dimensions"),
        ({"feature_names": ("a", "b", "a")}, r"3 --feature-names \(2 distinct\)"),
        ({"dim_columns": ("features", "mos_again")}, "'features' of .* holds vectors"),
        ({"features_column": "Features"}, "did you mean 'features'"),
        ({"mos_range": {"": (1.0, 1.5)}}, "is outside the range 1 to 1.5"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, write, root, options, message):
    file = write(mos_again=[0.0] * 8)
    with pytest.raises(VqaError, match=message):
        run(file, **options)
    assert not root.exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"features": None}, "has no column 'features'; it has .* - name a column of vectors"),
        ({"video_id": None}, "has no column 'video_id'; it has .* --number-rows"),
    ],
)
def test_a_file_without_the_usual_names_says_what_to_name(run, write, columns, message):
    if "features" in columns:
        columns = {**columns, "other": [1.0] * 8}
    with pytest.raises(UsageError, match=message):
        run(write(**columns))


def test_a_licence_belongs_to_the_set(run, write, root):
    file = write()
    run(file, license="MIT")
    with pytest.raises(StoreError, match="under licence 'MIT', not 'GPL-3.0'"):
        run(file, license="GPL-3.0")
    other = run(write("two.parquet", ids="xyz", seed=2), "two")
    assert other.license == "unknown"
    assert any("licence of the features is unknown" in note for note in other.notes)


def test_a_changed_file_is_another_set_and_that_is_said(run, write, root):
    first = run(write("one.parquet"))
    second = run(write("two.parquet", seed=1))
    assert first.set != second.set
    assert any("'made' names several sets here" in note for note in second.notes)
    with pytest.raises(StoreError, match="ambiguous"):
        FeatureStore.open(root).find("made")


class TestAppend:
    """The same features of another dataset's videos go into the same set, so that a head may see both."""

    def test_rows_of_another_dataset_join_the_set(self, run, write, root):
        first = run(write("one.parquet"), dataset="one")
        second = run(write("two.parquet", ids="xyz", seed=1), dataset="two", append=True)
        assert (second.set, second.fingerprint, second.added) == (first.set, first.fingerprint, 3)
        features = FeatureStore.open(root).find("made")
        assert features.known_keys() == {*keys("abcdefgh", "one"), *keys("xyz", "two")}
        assert len(load_dataset("two", stores=[root]).videos) == 3
        assert verify(root).problems == []

    def test_again_is_a_no_op(self, run, write, root):
        run(write("one.parquet"), dataset="one")
        file = write("two.parquet", ids="xyz", seed=1)
        run(file, dataset="two", append=True)
        before = everything(root)
        assert run(file, dataset="two", append=True).no_op
        assert everything(root) == before

    def test_other_features_of_a_known_row_are_refused(self, run, write, root):
        run(write("one.parquet"), dataset="one")
        before = everything(root)
        with pytest.raises(StoreError, match="holds other features for"):
            run(write("two.parquet", seed=1), dataset="one", append=True)
        assert everything(root) == before

    def test_other_dimensions_are_refused(self, run, write):
        run(write("one.parquet"))
        with pytest.raises(StoreError, match=r"holds pooled \[3\]; .* has pooled \[4\]: not the same"):
            run(write("two.parquet", ids="xyz", dims=4), append=True)

    def test_a_set_must_be_there(self, run, write):
        with pytest.raises(StoreError, match="is not a feature store"):
            run(write(), append=True)

    def test_one_of_several_sets_is_named_by_its_fingerprint(self, run, write, root):
        first = run(write("one.parquet"), dataset="one")
        run(write("two.parquet", seed=1, ids="pq"), dataset="one")
        third = run(write("three.parquet", seed=2, ids="xyz"), first.set, dataset="two", append=True)
        assert (third.set, third.added) == (first.set, 3)


class TestVideos:
    """Features of videos that are at hand are keyed by the videos' own bytes."""

    @pytest.fixture
    def manifest(self, tmp_path) -> Path:
        data = tmp_path / "data"
        (data / "clips").mkdir(parents=True)
        for name in "abcd":
            (data / "clips" / f"{name}.mp4").write_text(f"bytes of {name if name != 'd' else 'c'}")
        (data / "labels.csv").write_text(
            "video,overall\n" + "".join(f"{name},{n + 1}\n" for n, name in enumerate("abcd"))
        )
        config = ScanConfig(
            root=data,
            output=tmp_path / "manifests" / "real.yaml",
            labels=(("labels.csv", None),),
            columns={"id": "video"},
            targets={"overall": "overall"},
            mos_min=1.0,
            mos_max=5.0,
        )
        scan(config, cache=HashCache())
        return config.output

    def test_keys_are_those_of_the_videos(self, run, write, root, manifest):
        report = run(write(ids=["b", "clips/a.mp4"]), videos=str(manifest))
        found = {video.id: video.sha256 for video in load_dataset(str(manifest)).videos}
        assert FeatureStore.open(root).find("made").known_keys() == {found["a"], found["b"]}
        assert found["a"] == sha256_bytes(b"bytes of a")
        assert report.exit_code == ExitCode.DONE
        assert report.dataset is None
        assert not (root / "datasets").exists()

    def test_ids_that_are_no_videos_are_listed_and_left_out(self, run, write, root, manifest):
        report = run(write(ids=["a", "zzz", "b", "yyy"]), videos=str(manifest))
        assert (report.added, report.not_in_videos) == (2, ["zzz", "yyy"])
        assert report.exit_code == ExitCode.SOME_INPUTS_FAILED

    def test_of_two_rows_of_one_video_the_first_counts(self, run, write, root, manifest):
        file = write(ids=["c", "d", "a"])
        report = run(file, videos=str(manifest))
        assert (report.added, report.same_video) == (2, ["d"])
        features = FeatureStore.open(root).find("made")
        expected = pl.read_parquet(file)["features"].to_numpy()
        np.testing.assert_array_equal(features.matrix("pooled", [sha256_bytes(b"bytes of c")])[0], expected[0])

    def test_no_common_id_is_an_error(self, run, write, root, manifest):
        with pytest.raises(
            UsageError, match="none of the 2 ids of .* is a video of 'real': 'x' is one of the ids, 'a'"
        ):
            run(write(ids="xy"), videos=str(manifest))
        assert not root.exists()

    def test_labels_that_are_asked_for_are_kept_with_the_videos_keys(self, run, write, root, manifest):
        run(write(ids=["a", "b", "zzz"]), videos=str(manifest), labels={"mos": "mos"})
        dataset = load_dataset("made", stores=[root])
        assert [(v.id, v.sha256) for v in dataset.videos] == [
            ("a", sha256_bytes(b"bytes of a")),
            ("b", sha256_bytes(b"bytes of b")),
        ]

    def test_a_name_that_has_videos_needs_to_say_so(self, run, write, root, manifest):
        with pytest.raises(UsageError, match="'real' has videos of its own.*pass --videos real"):
            run(write(), dataset="real", manifests_dir=manifest.parent)
        assert not root.exists()


def test_videos_that_are_not_at_hand_cannot_be_extracted(run, write, root):
    run(write())
    with pytest.raises(ManifestError, match="was imported with its features and has no videos to read - scan"):
        extract_features(ExtractConfig(dataset="made", output=root, backbones=("nss",)))
    assert [found.spec.backbone for found in FeatureStore.open(root).sets()] == ["made"]


def test_a_folder_of_something_else_is_left_alone(run, write, root):
    root.mkdir()
    (root / "notes.txt").touch()
    with pytest.raises(StoreError, match="not empty and not a feature store"):
        run(write())
    assert [path.name for path in root.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "rows", "dims", "bounds", "groups", "nonfinite"),
    [
        ("konvid1k_videval", 1200, 60, (1.22, 4.64), None, 2),
        ("konvid1k_doverpred", 1200, 2, (1.22, 4.64), None, 0),
        ("cvd2014_resnet50", 234, 4096, (-6.5, 93.38), 5, 0),
    ],
)
def test_published_features_of_real_datasets(run, root, name, rows, dims, bounds, groups, nonfinite):
    path = REAL / f"{name}.parquet"
    if not path.exists():
        pytest.skip("the shared real features are not here")
    report = run(path, name, dataset="real")
    assert (report.rows, report.added, report.dims, report.nonfinite_values) == (rows, rows, dims, nonfinite)
    assert report.dataset["groups"] == groups
    assert report.dataset["targets"][0]["observed"] == pytest.approx(bounds, abs=0.01)
    published = pl.read_parquet(path)
    found = FeatureStore.open(root).find(name).matrix("pooled", keys(published["video_id"], "real"))
    np.testing.assert_array_equal(found, published["features"].to_numpy())
    videos = load_dataset("real", stores=[root]).videos
    assert [video.labels["mos"] for video in videos] == published["mos"].to_list()
    assert verify(root).problems == []


def test_two_published_feature_sets_of_one_dataset_agree_on_its_labels(run, root):
    if not REAL.exists():
        pytest.skip("the shared real features are not here")
    run(REAL / "konvid1k_videval.parquet", "videval", dataset="konvid1k")
    report = run(REAL / "konvid1k_doverpred.parquet", "doverpred", dataset="konvid1k")
    assert (report.added, report.dataset["state"]) == (1200, "unchanged")
    store = FeatureStore.open(root)
    assert store.find("videval").known_keys() == store.find("doverpred").known_keys()


def test_the_report_is_json(run, write):
    report = run(write())
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["schema"] == "vqa-train/import-report/1"
    assert (value["rows"], value["added"], value["no_op"], value["dims"]) == (8, 8, False, 3)
    assert replace(report, added=0, dataset=None).to_json()["no_op"] is True

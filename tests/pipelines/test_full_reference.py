"""Full-reference models: the features of each record's reference are extracted once, joined, fitted, measured, kept."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from scipy import stats

from vqa_train import backbones
from vqa_train.core.errors import ConfigError, ExitCode, Reason, StoreError, UsageError
from vqa_train.core.hashing import sha256_bytes, sha256_file, sha256_json
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.model import evaluate_model
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.extract.estimate import estimate
from vqa_train.pipelines.extract.run import ExtractConfig, extract_features
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.pipelines.table import FeatureInput, join, parse_inputs
from vqa_train.registry.sidecar import ModelInput, read_sidecar, sidecar_path
from vqa_train.store.store import FeatureRow, FeatureStore

TESTS = Path(__file__).parents[1]
SOURCES, LEVELS = 20, 5
OF_BOTH = {"video": {"set": "fake"}, "pristine": {"set": "fake", "of": "reference"}}
SPEC = FeatureSpec(
    backbone="fake", definition=1, modality="video", sampling=Sampling(mode="uniform", n=2),
    outputs=(OutputSpec(name="pooled", shape=(3,)),),
)  # fmt: skip
TEXT = FeatureSpec(backbone="words", definition=1, modality="text", outputs=(OutputSpec(name="pooled", shape=(2,)),))
FACTS = {
    "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Pairs:
    """Videos of 20 sources at 5 levels; how sharp a source is varies far more than what a level takes from it."""

    manifest: Path
    store: Path
    feature: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    folder = tmp_path_factory.mktemp("pairs")
    root, rng = folder / "set", np.random.default_rng(0)
    (root / "ref").mkdir(parents=True)
    feature, rows = {}, []
    for source in range(SOURCES):
        (root / f"ref/s{source}.mp4").write_bytes(b"pristine %d" % source)
        sharp = rng.normal(0, 3, 3)
        feature[sha256_bytes(b"pristine %d" % source)] = sharp
        for level in range(LEVELS):
            data = b"video %d %d" % (source, level)
            (root / f"v{source}-{level}.mp4").write_bytes(data)
            mos = 5 - 0.7 * level - rng.uniform(0, 0.5)
            feature[sha256_bytes(data)] = sharp - (5 - mos) + rng.normal(0, 0.05, 3)
            rows.append([f"v{source}-{level}", round(mos, 3), f"ref/s{source}.mp4", "train" if source < 14 else "test"])
    # One without a reference, one whose reference was never extracted.
    for name, reference in (("alone", ""), ("lost", "ref/gone.mp4")):
        (root / f"{name}.mp4").write_bytes(name.encode())
        feature[sha256_bytes(name.encode())] = np.ones(3)
        rows.append([name, 3, reference, "train"])
    (root / "ref/gone.mp4").write_bytes(b"pristine gone")
    write(root / "labels.csv", ["id", "mos", "ref", "part"], rows)
    manifest = folder / "pairs.yaml"
    columns = {"id": "id", "reference": "ref", "split": "part"}
    scan(
        ScanConfig(
            root=root, output=manifest, name="pairs", license="CC0-1.0", labels=(("labels.csv", None),),
            columns=columns, targets={"overall": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    store = FeatureStore(folder / "features")
    stored = [
        FeatureRow(key=key, outputs={"pooled": values.astype(np.float32)}, facts=FACTS)
        for key, values in feature.items()
    ]
    store.create_set(SPEC, license="CC-BY-4.0").append(stored, profile={}, run_id="made-by-test")
    store.create_set(TEXT, license="MIT")
    return Pairs(manifest, folder / "features", feature)


def write(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([header, *rows])


def recipe(features: object, **changes: object) -> pipeline.FitConfig:
    train = {"head": {"kind": "linear"}}
    value = {"schema": "vqa-train/fit/1", "features": features, "train": train, **changes}
    return pipeline.parse_fit_config(value, "test")


@pytest.fixture(scope="module")
def run(pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "run"
    pipeline.fit(recipe(OF_BOTH), features=pairs.store, output=folder, dataset=str(pairs.manifest))
    return folder


def test_inputs_of_the_reference_are_written_with_an_at_sign() -> None:
    found = parse_inputs(["a=nss", "b=nss@0123ab:pooled@reference", "c=nss@reference", "d=nss@0123ab:frames"])
    assert found == {
        "a": FeatureInput(set="nss"),
        "b": FeatureInput(set="nss@0123ab", output="pooled", of="reference"),
        "c": FeatureInput(set="nss", of="reference"),
        "d": FeatureInput(set="nss@0123ab", output="frames"),
    }
    for text in ("a=nss:pooled@original", "a=@reference", "a=nss:@reference"):
        with pytest.raises(UsageError, match="is not NAME=SET"):
            parse_inputs([text])


def test_a_recipe_without_references_has_the_hash_that_it_always_had() -> None:
    resolved = recipe({"video": {"set": "fake"}}).model_dump(mode="json", by_alias=True)
    assert resolved["features"] == {"video": {"set": "fake", "output": "pooled"}}
    with_reference = recipe(OF_BOTH).model_dump(mode="json", by_alias=True)
    assert with_reference["features"]["pristine"] == {"set": "fake", "output": "pooled", "of": "reference"}
    assert sha256_json(resolved) != sha256_json(with_reference)


def test_each_row_has_the_features_of_its_own_reference_and_the_rest_is_counted(pairs: Pairs) -> None:
    data = load_dataset(str(pairs.manifest))
    inputs = {"video": FeatureInput(set="fake"), "pristine": FeatureInput(set="fake", of="reference")}
    store = FeatureStore.open(pairs.store)
    table = join(data.videos, store, inputs, ["overall"])
    assert table.without_features == ("alone", "lost")
    for row, video in enumerate(table.videos):
        source = video.id[1:].partition("-")[0]
        reference = (data.root / f"ref/s{source}.mp4").read_bytes()
        np.testing.assert_allclose(table.features["pristine"][row], pairs.feature[sha256_bytes(reference)], rtol=1e-6)
        own = (data.root / f"{video.id}.mp4").read_bytes()
        np.testing.assert_allclose(table.features["video"][row], pairs.feature[sha256_bytes(own)], rtol=1e-6)
    masked = join(data.videos, store, inputs, ["overall"], missing="mask")
    assert (masked.without_features, masked.masked) == ((), {"pristine": 2})
    assert np.isnan(masked.features["pristine"][-2:]).all()
    # In a file, in the order of the keys.
    mapped = join(data.videos, store, inputs, ["overall"], memory_limit=0)
    row = next(i for i, video in enumerate(mapped.videos) if video.id == "v7-2")
    np.testing.assert_allclose(
        mapped.features["pristine"].rows(np.asarray([row]))[0], pairs.feature[sha256_bytes(b"pristine 7")], rtol=1e-6
    )


def test_what_cannot_have_a_reference_is_said(pairs: Pairs, labelled_store: object) -> None:
    data, store = load_dataset(str(pairs.manifest)), FeatureStore.open(pairs.store)
    with pytest.raises(ConfigError, match=r"input 'a' is of the reference, and words@.* has features of text"):
        join(data.videos, store, {"a": FeatureInput(set="words", of="reference")}, ["overall"])
    plain = load_dataset(str(labelled_store.manifest))  # type: ignore[attr-defined] # a fixture of another module
    with pytest.raises(StoreError, match=r"'a' is of the reference, and none of the 120 videos has one.*--reference-c"):
        join(plain.videos, store, {"a": FeatureInput(set="fake", of="reference")}, ["overall"])


def test_the_reference_tells_what_the_video_alone_cannot(pairs: Pairs, run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    pipeline.fit(recipe({"video": {"set": "fake"}}), features=pairs.store, output=alone, dataset=str(pairs.manifest))
    found = {}
    for folder in (alone, run):
        table = pl.read_parquet(folder / runs.PREDICTIONS_FILE).filter(pl.col("split") == "test")
        found[folder] = stats.spearmanr(table["overall"], table["predicted_overall"]).statistic
        assert len(table) == (SOURCES - 14) * LEVELS
    assert found[run] > 0.97
    assert found[alone] < 0.7


def test_run_and_sidecar_say_whose_features_an_input_has_and_eval_takes_them(
    pairs: Pairs, run: Path, tmp_path: Path
) -> None:
    record = json.loads((run / runs.RUN_FILE).read_bytes())
    assert [(item["name"], item.get("of", "video")) for item in record["inputs"]] == [
        ("video", "video"), ("pristine", "reference"),
    ]  # fmt: skip
    assert [item.of for item in runs.open_run(run).inputs] == [None, "reference"]
    model = export_run(run, tmp_path / "pairs.onnx").path
    sidecar = json.loads(sidecar_path(model).read_bytes())
    assert [item.get("of") for item in sidecar["inputs"]] == [None, "reference"]
    assert "of" not in sidecar["inputs"][0]
    assert read_sidecar(sidecar_path(model)).takes_reference
    result = evaluate_model(
        str(model), features=pairs.store, datasets=[str(pairs.manifest)], split="all",
        predictions=tmp_path / "p.parquet", resamples=0,
    )  # fmt: skip
    entry = result.report.result("overall")
    assert (entry.rows, entry.missing_predictions) == (SOURCES * LEVELS + 2, 2)
    measured = pl.read_parquet(tmp_path / "p.parquet").sort("id")
    fitted = pl.read_parquet(run / runs.PREDICTIONS_FILE).sort("id")
    assert measured.filter(pl.col("predicted_overall").is_null())["id"].to_list() == ["alone", "lost"]
    both = measured.join(fitted, on="id", suffix="_fit")
    np.testing.assert_allclose(both["predicted_overall"], both["predicted_overall_fit"], atol=1e-4)


def test_folds_keep_the_videos_of_a_reference_together_though_no_group_is_named(pairs: Pairs, tmp_path: Path) -> None:
    folder = tmp_path / "folds"
    pipeline.fit(
        recipe(OF_BOTH, protocol="kfold:k=5"), features=pairs.store, output=folder, dataset=str(pairs.manifest)
    )
    held_out = pl.read_parquet(folder / "heldout.parquet").with_columns(source=pl.col("id").str.split("-").list[0])
    folds = held_out.group_by("source").agg(pl.col("fold").n_unique())
    assert folds["fold"].to_list() == [1] * SOURCES
    assert runs.open_run(folder).rows["without_features"] == 2


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(TESTS / "registry")
    monkeypatch.syspath_prepend(TESTS / "backbones")
    module = importlib.import_module("tiny_model")
    monkeypatch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
    return module


def registered(model: Path, tiny: ModuleType, kind: str | None) -> str | None:
    config = RegisterConfig(
        model=model, kind=kind, dataset="ladder", license="MIT", train_commit=tiny.COMMIT, registry=model.parent
    )  # type: ignore[arg-type]
    return register(config).kind


def of_reference(model: Path) -> None:
    """The exported sidecar with its second input taken from the reference."""
    path = sidecar_path(model)
    value = json.loads(path.read_bytes())
    value["inputs"][1]["of"] = "reference"
    ModelInput(**value["inputs"][1])
    path.write_text(json.dumps(value), encoding="utf-8")


def test_register_says_nr_or_fr_as_the_inputs_are(tiny: ModuleType, tmp_path: Path) -> None:
    plain, full = tiny.export_tiny(tmp_path / "plain.onnx"), tiny.export_tiny(tmp_path / "full.onnx")
    of_reference(full)
    with pytest.raises(UsageError, match="--kind fr: model 'plain' has no input of the reference, so it is 'nr'"):
        registered(plain, tiny, "fr")
    with pytest.raises(UsageError, match="--kind nr: model 'full' has an input of the reference, so it is 'fr'"):
        registered(full, tiny, "nr")
    assert (registered(plain, tiny, None), registered(full, tiny, None)) == ("nr", "fr")


def test_references_are_extracted_once_each_and_a_bad_one_is_a_failure(
    write_video: Callable[..., Path], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for name, seed in (("p", 0), ("ref/q", 1), ("a", 2), ("b", 3), ("c", 4)):
        write_video(root / f"{name}.mp4", frames=12, size=(96, 128), options={"crf": "30", "g": "6"}, seed=seed)
    (root / "ref/bad.mp4").write_bytes(b"no video at all " * 50)
    rows = [["p", 5, "p"], ["a", 4, "p"], ["b", 3, "ref/q.mp4"], ["c", 2, "ref/q.mp4"], ["d", 2, "ref/bad.mp4"]]
    (root / "d.mp4").write_bytes((root / "c.mp4").read_bytes())
    write(root / "labels.csv", ["id", "mos", "ref"], [*rows, ["e", 2, "ghost.mp4"]])
    (root / "e.mp4").write_bytes((root / "a.mp4").read_bytes())
    manifest, store = tmp_path / "data.yaml", tmp_path / "store"
    config = ScanConfig(
        root=root, output=manifest, name="data", license="CC0-1.0", labels=(("labels.csv", None),),
        columns={"id": "id", "reference": "ref"}, targets={"overall": "mos"}, mos_min=1, mos_max=5,
    )  # fmt: skip
    scan(config)
    extract = ExtractConfig(dataset=str(manifest), output=store, backbones=("nss",), workers=1)
    assert estimate(extract).videos == 6
    report = extract_features(extract)
    # Six rows, two references beside them, and one that names no file; d and e have the bytes of c and a.
    (counts,) = report.sets
    assert (report.references, report.duplicates, counts.inputs) == (2, 2, 9)
    assert (counts.done, counts.known) == (5, 2)
    assert dict(counts.failed) == {Reason.DECODE_ERROR: 1, Reason.LABEL_MISMATCH: 1}
    assert report.exit_code == ExitCode.SOME_INPUTS_FAILED
    feature_set = FeatureStore.open(store).find("nss")
    names = ("p", "ref/q", "a", "b", "c")
    assert feature_set.known_keys() == {sha256_file(root / f"{name}.mp4") for name in names}
    failures = {failure.path: failure for failure in feature_set.failures()}
    assert failures.keys() == {"ref/bad.mp4", "ghost.mp4"}
    assert failures["ref/bad.mp4"].key == sha256_file(root / "ref/bad.mp4")
    assert "reference 'ghost.mp4' of 1 videos names no file" in failures["ghost.mp4"].message
    # The file that was missing appears: its failure no longer stands.
    (root / "ghost.mp4").write_bytes((root / "p.mp4").read_bytes())
    scan(config)
    again = extract_features(extract)
    assert [failure.path for failure in feature_set.failures()] == ["ref/bad.mp4"]
    assert (again.references, again.sets[0].done, again.sets[0].known) == (2, 0, 7)

"""The lineage of a real registered model: every hash recomputed by hand, every kind of broken link shown as such."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from vqa_train import backbones
from vqa_train.cli.main import app
from vqa_train.core.errors import StoreError, UsageError
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import FeatureSpec, OutputSpec
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.pipelines.lineage.graph import Lineage, Node
from vqa_train.pipelines.lineage.trace import LineageConfig, trace
from vqa_train.pipelines.lineage.tree import tree_lines
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.store.store import FeatureRow, FeatureSet, FeatureStore
from vqa_train.store.tags import tag

TESTS = Path(__file__).parents[2]
FACTS = {
    "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
}  # fmt: skip
SOURCES, LEVELS = 12, 4
FILES = {"head", "card", "backbone", "run_file", "dataset", "file_list", "labels", "shard"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Chain:
    """A registered full-reference model and all that it descends from, under `root`."""

    root: Path
    config: LineageConfig

    @property
    def shards(self) -> list[Path]:
        return sorted(self.root.glob("store/tiny@*/shards/*.parquet"))

    def trace(self, **changes: Any) -> Lineage:
        return trace(replace(self.config, **changes))


def write_csv(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


def make_set(root: Path, name: str, *, prompts: bool = False) -> Dataset:
    """Files of 12 sources at 4 levels; the reference of each is a file beside them."""
    data = root / name
    (data / "ref").mkdir(parents=True)
    rows: list[list[object]] = [["id", "mos", "ref", "part", "text"]]
    for source in range(SOURCES):
        (data / f"ref/s{source}.mp4").write_bytes(f"{name} pristine {source}".encode())
        for level in range(LEVELS):
            (data / f"v{source}-{level}.mp4").write_bytes(f"{name} {source} {level}".encode())
            part = "train" if source < 8 else "val" if source < 10 else "test"
            rows.append([f"v{source}-{level}", 5 - level, f"ref/s{source}.mp4", part, f"scene {source}"])
    write_csv(data / "labels.csv", rows)
    manifest = root / "manifests" / f"{name}.yaml"
    manifest.parent.mkdir(exist_ok=True)
    columns = {"id": "id", "reference": "ref", "split": "part", **({"prompt": "text"} if prompts else {})}
    scan(
        ScanConfig(
            root=data, output=manifest, name=name, license="CC0-1.0", labels=(("labels.csv", None),), columns=columns,
            targets={"overall": "mos"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return load_dataset(str(manifest))


def fill(feature_set: FeatureSet, keys: list[str], dataset: Dataset | None, *, seed: int = 0) -> str:
    """One shard of made features, and the record of the run that wrote it."""
    rng = np.random.default_rng(seed)
    spec = feature_set.spec
    provenance = RunProvenance(entrypoint="extract-features", config={"backbones": [spec.backbone], "seed": seed})
    if dataset is not None:
        provenance.inputs["dataset"] = file_entry(dataset.path, "dataset-manifest")
    views = spec.sampling.views if spec.sampling else 1
    rows = [
        FeatureRow(
            key=key, view=view, facts=FACTS if spec.modality == "video" and not spec.imported else {},
            outputs={output.name: rng.normal(size=output.shape).astype(np.float32) for output in spec.outputs},
        )
        for key in keys
        for view in range(views)
    ]  # fmt: skip
    feature_set.append(rows, profile={"device": "cpu"}, run_id=provenance.run_id)
    feature_set.write_run(provenance.to_json())
    return provenance.run_id


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TESTS / "registry")
        patch.syspath_prepend(TESTS / "backbones")
        tiny = importlib.import_module("tiny_model")
        patch.setattr(backbones.BACKBONES, "_builtin", tiny.BUILTIN)
        root = tmp_path_factory.mktemp("chain")
        dataset = make_set(root, "pairs")
        extractor = tiny.TinyBackbone()
        feature_set = FeatureStore(root / "store").create_set(extractor.spec, license=extractor.license)
        keys = [video.sha256 for video in (*dataset.references, *dataset.videos)]
        for number in range(3):
            fill(feature_set, keys[number::3], dataset, seed=number)
        feature_set.snapshot()
        recipe = {
            "schema": "vqa-train/fit/1",
            "features": {"look": {"set": "tiny"}, "pristine": {"set": "tiny", "of": "reference"}},
            "train": {"head": {"kind": "linear"}},
        }
        pipeline.fit(
            pipeline.parse_fit_config(recipe, "test"),
            features=root / "store", output=root / "run", dataset=str(dataset.path),
        )  # fmt: skip
        export_run(root / "run", root / "exported.onnx")
        register(
            RegisterConfig(
                model=root / "exported.onnx", name="tiny-fr", dataset="pairs", license="MIT", train_commit=tiny.COMMIT,
                registry=root / "model",
            )
        )  # fmt: skip
        config = LineageConfig(
            model="tiny-fr", registry=root / "model", features=root / "store", run=root / "run",
            manifests=root / "manifests",
        )  # fmt: skip
        yield Chain(root, config)


@contextmanager
def changed(*paths: Path, to: bytes | None) -> Iterator[None]:
    """Files with other bytes, or without any (None), and as they were at the end."""
    before = {path: path.read_bytes() for path in paths}
    try:
        for path in paths:
            path.unlink() if to is None else path.write_bytes(to)
        yield
    finally:
        for path, data in before.items():
            path.write_bytes(data)


def only(lineage: Lineage, kind: str, name: str = "") -> Node:
    (found,) = [node for node in lineage.of_kind(kind) if name in node.name]
    return found


def test_every_verified_file_is_on_disk_with_its_id_as_its_hash(chain: Chain) -> None:
    lineage = chain.trace(content=True)
    there = {sha256(path) for path in chain.root.rglob("*") if path.is_file()}
    checked = [node for node in lineage.nodes.values() if node.kind in FILES | {"video", "model"}]
    assert {node.kind for node in checked} == FILES | {"video", "model"}
    assert all(node.status == "verified" and node.id in there for node in checked)
    assert lineage.root == sha256(chain.root / "model/tiny-fr/1/model.json")
    assert only(lineage, "head").id == sha256(chain.root / "exported.onnx")
    assert only(lineage, "export").id == sha256(chain.root / "exported.json")
    assert only(lineage, "dataset").id == sha256(chain.root / "manifests/pairs.yaml")
    assert {node.id for node in lineage.of_kind("shard")} == {sha256(path) for path in chain.shards}
    record = json.loads((chain.root / "run/run.json").read_bytes())
    assert {node.name: node.id for node in lineage.of_kind("run_file")} == record["files"]
    assert only(lineage, "run", "fit ").id == record["run_provenance"]["run_id"]
    # The weights of the tiny backbone are no file of any manifest; all else is at hand.
    assert [node.kind for node in lineage.nodes.values() if node.status == "not_looked_for"] == ["weights"]
    assert lineage.broken == []


def test_videos_say_what_they_were_used_for_and_shards_which_they_hold(chain: Chain) -> None:
    lineage = chain.trace()
    root = chain.root / "pairs"
    videos = {node.id: node for node in lineage.of_kind("video")}
    assert videos.keys() == {sha256(path) for path in root.rglob("*.mp4")}
    with (root / "labels.csv").open(encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            node = videos[sha256(root / f"{row['id']}.mp4")]
            assert node.facts["rows"] == [{"dataset": "pairs", "id": row["id"], "split": row["part"]}]
            assert node.facts["path"] == f"{row['id']}.mp4"
            reference = videos[sha256(root / row["ref"])]
            used = {"dataset": "pairs", "id": row["id"], "split": row["part"], "as": "reference"}
            assert used in reference.facts["rows"]
            assert len(reference.facts["rows"]) == LEVELS
    for path in chain.shards:
        keys = set(json.loads(path.with_suffix(".json").read_bytes())["keys"])
        held = {edge.target for edge in lineage.edges if edge.source == sha256(path) and edge.relation == "holds"}
        assert held == keys
        (run_id,) = [e.target for e in lineage.edges if e.source == sha256(path) and e.relation == "was written by"]
        assert run_id == json.loads(path.with_suffix(".json").read_bytes())["run_id"]
        assert lineage.nodes[run_id].status == "verified"
    # A file that was not read is not claimed to be there.
    assert {node.status for node in videos.values()} == {"not_looked_for"}


def test_nothing_is_claimed_of_what_was_not_given(chain: Chain) -> None:
    lineage = chain.trace(features=None, run=None)
    assert lineage.of_kind("shard") == lineage.of_kind("video") == []
    assert {node.status for node in lineage.of_kind("run_file")} == {"not_looked_for"}
    fit = only(lineage, "run", "fit ")
    assert (fit.status, fit.detail) == ("not_looked_for", "the run folder was not given (--run)")
    store_only = chain.trace(run=None)
    assert len(store_only.of_kind("shard")) == 3
    assert "which of them the fit read is in its run folder" in only(store_only, "feature_set").detail
    assert store_only.of_kind("video") == []


def flipped(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    return bytes(data)


# What is broken, whether its bytes are changed or it is taken away, and what the node of which kind then says.
BROKEN = [
    ("model/tiny-fr/1/model.onnx", True, "head", "", "differs"),
    ("model/tiny-fr/1/model.onnx", False, "head", "", "not_found"),
    ("model/tiny-fr/1/backbones/*.onnx", True, "backbone", "", "differs"),
    ("model/tiny-fr/1/backbones/*.onnx", False, "backbone", "", "not_found"),
    ("manifests/pairs.yaml", True, "dataset", "", "differs"),
    ("manifests/pairs.yaml", False, "dataset", "", "not_found"),
    ("manifests/pairs.files.csv", True, "file_list", "", "differs"),
    ("manifests/pairs.files.csv", False, "file_list", "", "not_found"),
    ("pairs/labels.csv", True, "labels", "", "differs"),
    ("pairs/labels.csv", False, "labels", "", "not_found"),
    ("run/head.safetensors", True, "run_file", "head.safetensors", "differs"),
    ("run/predictions.parquet", False, "run_file", "predictions.parquet", "not_found"),
    ("run/head.safetensors", True, "run", "fit ", "differs"),
    ("run/run.json", False, "run", "fit ", "not_found"),
]


@pytest.mark.parametrize(("pattern", "change", "kind", "name", "status"), BROKEN)
def test_a_broken_link_is_shown(chain: Chain, pattern: str, change: bool, kind: str, name: str, status: str) -> None:
    (path,) = chain.root.glob(pattern)
    assert only(chain.trace(), kind, name).status == "verified"
    with changed(path, to=flipped(path) if change else None):
        lineage = chain.trace()
    node = only(lineage, kind, name)
    assert node.status == status
    assert path.name in node.detail or (path.name == "run.json" and "is not a run folder" in node.detail)
    assert node in lineage.broken


def test_a_sidecar_that_is_not_the_registrys_is_refused_as_nothing_in_it_can_be_trusted(chain: Chain) -> None:
    path = chain.root / "model/tiny-fr/1/model.json"
    with changed(path, to=flipped(path)), pytest.raises(Exception, match="has sha256 .*, the registry says"):
        chain.trace()


def test_a_shard_that_was_changed_after_the_fit_differs(chain: Chain) -> None:
    path = chain.shards[0]
    with changed(path, to=flipped(path)):
        lineage = chain.trace()
        # Without the run folder its commit still says what it should be.
        assert only(chain.trace(run=None), "shard", path.name).status == "differs"
    states = {node.name: node.status for node in lineage.of_kind("shard")}
    assert states == {**dict.fromkeys((p.name for p in chain.shards), "verified"), path.name: "differs"}
    with changed(path, to=None):
        assert only(chain.trace(), "shard", path.name).status == "not_found"


def test_a_record_of_an_extraction_that_is_gone_or_changed_is_shown(chain: Chain) -> None:
    path = sorted(chain.root.glob("store/tiny@*/runs/*.json"))[0]
    with changed(path, to=None):
        assert only(chain.trace(), "run", path.stem).status == "not_found"
    with changed(path, to=flipped(path)):
        assert only(chain.trace(), "run", path.stem).status == "differs"


def test_videos_that_are_not_in_the_store_any_more_are_named(chain: Chain) -> None:
    path = chain.shards[1]
    commit = path.with_suffix(".json")
    lost = set(json.loads(commit.read_bytes())["keys"])
    rows = json.loads(commit.read_bytes())["rows"]
    gone = sha256(path)
    with changed(path, commit, to=None):
        lineage = chain.trace()
    feature_set = only(lineage, "feature_set")
    assert feature_set.status == "differs"
    assert "are gone" in feature_set.detail
    assert rows == 2 * len(lost)
    assert {node.id for node in lineage.of_kind("video") if node.status == "not_found"} == lost
    assert lineage.nodes[gone].status == "not_found"
    assert {node.status for node in lineage.of_kind("shard") if node.id != gone} == {"verified"}


def test_rows_that_were_extracted_anew_with_other_numbers_differ(chain: Chain) -> None:
    path = chain.shards[2]
    commit = path.with_suffix(".json")
    keys = sorted(set(json.loads(commit.read_bytes())["keys"]))
    feature_set = FeatureStore.open(chain.root / "store").find("tiny")
    with changed(path, commit, to=None):
        run_id = fill(feature_set, keys, None, seed=99)
        fresh = [shard for shard in chain.shards if shard != path]
        lineage = chain.trace()
        (new,) = [s for s in fresh if json.loads(s.with_suffix(".json").read_bytes())["run_id"] == run_id]
        new.unlink()
        new.with_suffix(".json").unlink()
    node = only(lineage, "feature_set")
    assert node.status == "differs"
    assert "with other content" in node.detail
    assert all(video.status == "not_looked_for" for video in lineage.of_kind("video"))


def test_content_reads_the_videos(chain: Chain) -> None:
    lineage = chain.trace(content=True)
    path = chain.root / "pairs/v3-1.mp4"
    video = lineage.nodes[sha256(path)]
    assert video.status == "verified"
    with changed(path, to=b"another"):
        assert chain.trace(content=True).nodes[video.id].status == "differs"
    with changed(path, to=None):
        assert chain.trace(content=True).nodes[video.id].status == "not_found"


def test_a_run_folder_of_another_fit_is_not_taken(chain: Chain, tmp_path: Path) -> None:
    recipe = {
        "schema": "vqa-train/fit/1", "features": {"look": {"set": "tiny"}}, "train": {"head": {"kind": "linear"}},
    }  # fmt: skip
    other = tmp_path / "other"
    pipeline.fit(
        pipeline.parse_fit_config(recipe, "test"),
        features=chain.root / "store", output=other, dataset=str(chain.root / "manifests/pairs.yaml"),
    )  # fmt: skip
    lineage = chain.trace(run=other)
    fit = only(lineage, "run", "fit ")
    assert fit.status == "differs"
    assert "the folder is of run" in fit.detail
    assert lineage.of_kind("video") == []


def test_a_store_without_the_set_and_a_folder_that_is_no_store(chain: Chain, tmp_path: Path) -> None:
    FeatureStore(tmp_path / "empty").create()
    node = only(chain.trace(features=tmp_path / "empty"), "feature_set")
    assert node.status == "not_found"
    with pytest.raises(StoreError, match="is not a feature store"):
        chain.trace(features=tmp_path / "nowhere")


def test_compaction_changes_shards_and_not_rows(chain: Chain, tmp_path: Path) -> None:
    # A store of one run, in small shards.
    dataset = load_dataset(str(chain.root / "manifests/pairs.yaml"))
    spec = FeatureStore.open(chain.root / "store").find("tiny").spec
    feature_set = FeatureStore(tmp_path / "store").create_set(replace(spec, backbone="many"), license="MIT")
    rng = np.random.default_rng(5)
    for video in dataset.videos:
        rows = [
            FeatureRow(
                key=video.sha256, view=view, facts=FACTS,
                outputs={o.name: rng.normal(size=o.shape).astype(np.float32) for o in spec.outputs},
            )
            for view in range(2)
        ]  # fmt: skip
        feature_set.append(rows, profile={"device": "cpu"}, run_id="one")
    digest, _ = feature_set.snapshot()
    tag(feature_set.folder, "paper", digest)
    recipe = {"schema": "vqa-train/fit/1", "features": {"look": {"set": "many"}}, "train": {"head": {"kind": "linear"}}}
    pipeline.fit(
        pipeline.parse_fit_config(recipe, "test"),
        features=tmp_path / "store", output=tmp_path / "run", dataset=str(dataset.path),
    )  # fmt: skip
    export_run(tmp_path / "run", tmp_path / "m.onnx")
    config = LineageConfig(
        model=str(tmp_path / "m.onnx"), features=tmp_path / "store", run=tmp_path / "run",
        manifests=chain.root / "manifests",
    )  # fmt: skip
    before = trace(config)
    assert len(before.of_kind("shard")) == len(dataset.videos)
    FeatureStore.open(tmp_path / "store").find("many").compact()
    after = trace(config)
    node = only(after, "feature_set")
    assert node.status == "verified"
    assert set(node.facts["merged_since"]) == {Path(shard.name).stem for shard in before.of_kind("shard")}
    assert node.facts["tags"] == ["paper"]
    (shard,) = after.of_kind("shard")
    assert shard.status == "verified"
    assert len([edge for edge in after.edges if edge.source == shard.id and edge.relation == "holds"]) == len(
        dataset.videos
    )
    # The run that wrote them kept no record.
    assert after.nodes["one"].status == "not_found"
    lines = [line.text for line in tree_lines(after)]
    assert any("shards that the fit read were merged into others since" in line for line in lines)
    assert any("tags: paper" in line for line in lines)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """Two datasets, one feature of the prompts and one imported from a file, an ensemble, exported only."""
    root = tmp_path_factory.mktemp("mixed")
    first, second = make_set(root, "first", prompts=True), make_set(root, "second", prompts=True)
    imported = {"imported": {"file_sha256": "7" * 64, "columns": ["a", "b"]}}
    outputs = (OutputSpec(name="pooled", shape=(2,)),)
    file = FeatureSpec(backbone="file", definition=1, modality="video", outputs=outputs, preprocessing=imported)
    words = FeatureSpec(backbone="words", definition=1, modality="text", outputs=outputs, weights_sha256="8" * 64)
    store = FeatureStore(root / "store")
    videos = [video for data in (first, second) for video in data.videos]
    fill(store.create_set(file, license="MIT"), [video.sha256 for video in videos], None)
    texts = sorted({hashlib.sha256((video.prompt or "").encode()).hexdigest() for video in videos})
    fill(store.create_set(words, license="MIT"), texts, None, seed=1)
    mlp = {"head": {"kind": "mlp", "hidden": [4]}, "epochs": 2}
    recipe = {
        "schema": "vqa-train/fit/1",
        "features": {"video": {"set": "file"}, "prompt": {"set": "words"}},
        "seeds": 2,
        "members": [{"name": "net", "train": mlp}, {"name": "ridge", "train": {"head": {"kind": "linear"}}}],
    }
    pipeline.fit(
        pipeline.parse_fit_config(recipe, "test"),
        features=root / "store", output=root / "run", dataset=[str(first.path), str(second.path)],
    )  # fmt: skip
    export_run(root / "run", root / "m.onnx")
    config = LineageConfig(
        model=str(root / "m.onnx"), features=root / "store", run=root / "run", manifests=root / "manifests"
    )
    return Chain(root, config)


def test_several_datasets_prompts_imported_features_and_ensembles(mixed: Chain) -> None:
    lineage = mixed.trace()
    root = lineage.nodes[lineage.root]
    assert (root.id, root.status) == (sha256(mixed.root / "m.json"), "not_looked_for")
    assert {node.id for node in lineage.of_kind("dataset")} == {
        sha256(mixed.root / f"manifests/{name}.yaml") for name in ("first", "second")
    }
    assert {node.name: node.status for node in lineage.of_kind("feature_set")} == {
        node.name: "verified" for node in lineage.of_kind("feature_set")
    }
    assert only(lineage, "feature_file").id == "7" * 64
    assert only(lineage, "weights").id == "8" * 64
    assert [member["name"] for member in only(lineage, "head").facts["members"]] == ["net", "ridge"]
    assert {node.id for node in lineage.of_kind("prompt")} == {
        hashlib.sha256(f"scene {source}".encode()).hexdigest() for source in range(SOURCES)
    }
    predictions = pl.read_parquet(mixed.root / "run/predictions.parquet")
    assert len(lineage.of_kind("video")) == len(predictions) == 2 * SOURCES * LEVELS
    assert only(lineage, "run", "fit ").status == "verified"
    assert lineage.broken == []


def test_a_recipe_that_was_edited_in_the_sidecar_is_not_what_the_run_had(mixed: Chain) -> None:
    path = mixed.root / "m.json"
    value = json.loads(path.read_bytes())
    value["run_provenance"]["config"]["seeds"] = 3
    with changed(path, to=json.dumps(value).encode()):
        fit = only(mixed.trace(run=None), "run", "fit ")
        assert fit.status == "differs"
        assert "does not have the sha256 that it states" in fit.detail
        assert only(mixed.trace(), "run", "fit ").status == "differs"


def test_long_lists_are_counted_and_broken_ones_named(chain: Chain) -> None:
    lines = [line.text for line in tree_lines(chain.trace())]
    assert "has 60 videos: 60 not looked for" in lines
    assert "rows: 8 test, 32 train, 8 val; a reference of 48 rows" in lines
    # The one feature set is two inputs, and each of the three runs that wrote shards read the dataset.
    repeated = [line.partition(" [")[0] for line in lines if line.endswith("see above")]
    assert [line.partition("@")[0] for line in repeated] == [
        *["read dataset pairs 1"] * 3,
        "input pristine: pooled of the reference feature set tiny",
    ]
    full = [line.text for line in tree_lines(chain.trace(), full=True)]
    assert sum("v3-1.mp4" in line for line in full) >= 1
    path = chain.root / "pairs/v3-1.mp4"
    with changed(path, to=b"x"):
        lines = [line.text for line in tree_lines(chain.trace(content=True))]
    assert any("video v3-1.mp4" in line and "DIFFERS" in line for line in lines)
    assert "has 60 videos: 59 verified, 1 DIFFERS" in lines


@pytest.fixture
def call(chain: Chain) -> Callable[..., Any]:
    def run(*options: str) -> Any:
        where = ["--registry", str(chain.config.registry), "--manifests", str(chain.config.manifests)]
        return CliRunner().invoke(app, ["lineage", "tiny-fr", *where, *options])

    return run


def test_the_command_prints_a_tree_writes_json_and_is_strict_when_asked(
    chain: Chain, call: Callable[..., Any], tmp_path: Path
) -> None:
    at_hand = ["--features", str(chain.root / "store"), "--run", str(chain.root / "run")]
    done = call(*at_hand, "--strict", "--json", str(tmp_path / "l.json"))
    assert done.exit_code == 0
    assert done.stdout.startswith("model tiny-fr:1 [")
    document = json.loads((tmp_path / "l.json").read_bytes())
    assert document["schema"] == "vqa-train/lineage/1"
    ids = {node["id"] for node in document["nodes"]}
    assert {edge[end] for edge in document["edges"] for end in ("from", "to")} <= ids
    assert document["root"] in ids
    assert sum(document["counts"].values()) == len(document["nodes"]) == len(ids)
    path = chain.shards[0]
    with changed(path, to=flipped(path)):
        assert call(*at_hand).exit_code == 0
        broken = call(*at_hand, "--strict")
    assert broken.exit_code == 3
    assert "1 of " in broken.stderr
    strict = call("--strict")
    assert isinstance(strict.exception, UsageError)

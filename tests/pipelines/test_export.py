"""export: one ONNX file that computes what torch computes, or no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file

from vqa_train.core.errors import ModelError, RunError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.heads.ensemble import Ensemble
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines import runs
from vqa_train.pipelines.export.run import export_run, golden_rows
from vqa_train.pipelines.fit import run as pipeline
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.pipelines.models.replay import replay_golden
from vqa_train.registry.sidecar import read_sidecar
from vqa_train.store.store import FeatureRow, FeatureStore

BASE: dict[str, Any] = {
    "epochs": 12, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [8]},
}  # fmt: skip
FEATURES = {"video": {"set": "fake"}}


@pytest.fixture
def make_run(labelled_store: Any, tmp_path: Path) -> Callable[..., Path]:
    """`make_run(**recipe)`: the folder of a run on the small store."""

    def make(**recipe: Any) -> Path:
        config = pipeline.parse_fit_config({"schema": "vqa-train/fit/1", "features": FEATURES, **recipe}, "recipe")
        pipeline.fit(
            config, features=labelled_store.store, output=tmp_path / "made", dataset=str(labelled_store.manifest)
        )
        return tmp_path / "made"

    return make


@pytest.fixture
def sound(labelled_store: Any) -> None:
    """A second feature set in the store, which every fourth video lacks."""
    add_set(labelled_store.store, "sound", (3,), [i for i in range(119) if i % 4])


@pytest.fixture
def clips(labelled_store: Any) -> None:
    """A feature set with five time steps of three numbers."""
    add_set(labelled_store.store, "clips", (5, 3), list(range(119)))


def add_set(path: Path, name: str, shape: tuple[int, ...], rows: list[int]) -> None:
    spec = FeatureSpec(
        backbone=name, definition=1, modality="video", sampling=Sampling(mode="uniform", n=2),
        outputs=(OutputSpec(name="pooled", shape=shape),),
    )  # fmt: skip
    store = FeatureStore.open(path)
    keys = sorted(store.find("fake").known_keys())
    rng = np.random.default_rng(1)
    facts = {
        "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
    }  # fmt: skip
    made = [
        FeatureRow(key=keys[i], outputs={"pooled": rng.normal(size=shape).astype(np.float32)}, facts=facts)
        for i in rows
    ]
    store.create_set(spec, license="CC0-1.0").append(made, profile={"device": "cpu"}, run_id="made-by-test")


def drift(monkeypatch: pytest.MonkeyPatch, output: int) -> None:
    """While an ensemble is traced, one of what it gives is a thousandth larger."""
    honest = Ensemble.forward

    def drifting(self: Ensemble, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = list(honest(self, *inputs))
        results[output] = results[output] + (1e-3 if torch.jit.is_tracing() else 0)
        return tuple(results)

    monkeypatch.setattr(Ensemble, "forward", drifting)


@pytest.fixture
def run_folder(labelled_store: Any, tmp_path: Path) -> Path:
    config = pipeline.load_fit_config(labelled_store.recipe)
    pipeline.fit(config, features=labelled_store.store, output=tmp_path / "run", dataset=str(labelled_store.manifest))
    return tmp_path / "run"


RECIPES: dict[str, dict[str, Any]] = {
    "seeds": {"seeds": 3, "train": BASE},
    "ordinal": {"seeds": 2, "train": {**BASE, "head": {"hidden": [8], "output": "ordinal"}}, "calibration": {}},
    "heteroscedastic": {"train": {**BASE, "head": {"hidden": [8], "output": "heteroscedastic"}}},
    "one plain head with intervals": {"train": BASE, "calibration": {"method": "split", "level": 0.8}},
    "mlp and kernel ridge": {
        "seeds": 2,
        "members": [
            {"name": "mlp", "weight": 3, "train": BASE},
            {"name": "kernel", "train": {"head": {"kind": "kernel_ridge"}}},
        ],
        "calibration": {"level": 0.8},
    },
    "time steps": {
        "seeds": 2,
        "train": {**BASE, "head": {"kind": "temporal"}},
        "features": {"video": {"set": "fake"}, "steps": {"set": "clips"}},
    },
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_graph_gives_every_number_that_the_run_gave(
    recipe: dict[str, Any], labelled_store: Any, clips: None, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(**recipe)
    result = export_run(run, tmp_path / "m.onnx")
    table = pl.read_parquet(run / runs.PREDICTIONS_FILE)
    got = dict(zip(result.outputs, run_graph(result.path, labelled_store.store, table, recipe), strict=True))
    for output, prefix in (("scores", "predicted"), ("spread", "spread")):
        if output in got:
            expected = table.select(f"{prefix}_overall", f"{prefix}_detail").to_numpy()
            np.testing.assert_allclose(got[output], expected, atol=2e-5)
            assert got[output].std() > 1e-3
    assert ("spread" in got) == ("spread_overall" in table.columns)
    assert ("low" in got) == ("calibration" in recipe)
    if "low" in got:
        calibration = json.loads((run / runs.CALIBRATION_FILE).read_text())
        half = [calibration["targets"][target]["half_width"] for target in ("overall", "detail")]
        assert min(half) > 0
        np.testing.assert_allclose(got["scores"] - got["low"], np.tile(half, (len(table), 1)), rtol=1e-4)
        np.testing.assert_allclose(got["high"] - got["scores"], np.tile(half, (len(table), 1)), rtol=1e-4)
    sidecar = read_sidecar(result.sidecar)
    head = OnnxModel(result.path, expected_sha256=sidecar.onnx.sha256)
    check_head(head, sidecar)
    replay_golden(head, sidecar)
    assert sidecar.output_names == list(result.outputs)
    assert sum(member.models for member in sidecar.members or ()) == result.models


def run_graph(path: Path, store: Path, table: pl.DataFrame, recipe: dict[str, Any]) -> list[np.ndarray]:
    """Every output for every row of the table, through a session of onnxruntime's own."""
    selected = recipe.get("features", FEATURES)
    keys = table["video_sha256"].to_list()
    sets = FeatureStore.open(store)
    inputs = {
        name: np.asarray(sets.find(one["set"]).matrix("pooled", keys), dtype=np.float32)
        for name, one in selected.items()
    }
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def test_sidecar_names_the_members_and_what_they_weigh(make_run: Callable[..., Path], tmp_path: Path) -> None:
    sidecar = read_sidecar(export_run(make_run(**RECIPES["mlp and kernel ridge"]), tmp_path / "m.onnx").sidecar)
    assert [(m.name, m.kind, m.models, m.weight) for m in sidecar.members or ()] == [
        ("mlp", "mlp", 2, 0.75), ("kernel", "kernel_ridge", 1, 0.25),
    ]  # fmt: skip


def test_sidecar_carries_the_calibration_and_the_protocols_results(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(seeds=2, train=BASE, protocol="kfold:k=3", calibration={"level": 0.8})
    sidecar = read_sidecar(export_run(run, tmp_path / "m.onnx").sidecar)
    calibration = json.loads((run / runs.CALIBRATION_FILE).read_text())
    report = json.loads((run / runs.PROTOCOL_FILE).read_text())
    assert sidecar.calibration is not None
    assert {"schema": calibration["schema"], **sidecar.calibration.model_dump(exclude={"normalised"})} == calibration
    assert sidecar.protocol is not None
    assert (sidecar.protocol.folds, sidecar.protocol.splits_sha256) == (3, report["splits_sha256"])
    for target, metrics in sidecar.protocol.metrics.items():
        assert metrics["srocc"].median == report["summary"][target]["srocc"]["median"]
        assert metrics["srocc"].std == report["summary"][target]["srocc"]["std"]


def test_sidecar_of_time_steps_says_their_shape(clips: None, make_run: Callable[..., Path], tmp_path: Path) -> None:
    result = export_run(make_run(**RECIPES["time steps"]), tmp_path / "m.onnx")
    assert [item.dims for item in read_sidecar(result.sidecar).inputs] == [(4,), (5, 3)]
    assert OnnxModel(result.path).inputs["steps"].shape == ("batch", 5, 3)


def test_an_interval_that_cannot_be_bounded_is_no_output_but_is_told(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    result = export_run(make_run(train=BASE, calibration={"level": 0.999}), tmp_path / "m.onnx")
    assert result.outputs == ("scores",)
    calibration = read_sidecar(result.sidecar).calibration
    assert calibration is not None
    assert calibration.targets["overall"].half_width is None
    assert "too few for a level of 0.999" in str(calibration.targets["overall"].note)


@pytest.mark.parametrize(
    ("changes", "optional"),
    [
        ({"train": {**BASE, "drop_sets": 0.3}}, ["video", "sound"]),
        ({"train": BASE}, None),
        ({"train": {**BASE, "drop_sets": 0.3}, "features": {"video": {"set": "fake"}}}, None),
        (
            {"members": [{"name": "a", "train": {**BASE, "drop_sets": 0.3}}, {"name": "b", "train": BASE}]},
            None,
        ),
        (
            {
                "members": [
                    {"name": "a", "train": {**BASE, "drop_sets": 0.3}},
                    {"name": "b", "train": {"drop_sets": 0.3, "head": {"kind": "kernel_ridge"}}},
                ]
            },
            None,  # a closed form never meets a row without an input
        ),
    ],
)
def test_inputs_may_be_absent_where_every_member_was_trained_without_them(
    changes: dict[str, Any], optional: list[str] | None, sound: None, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    run = make_run(**{"features": {**FEATURES, "sound": {"set": "sound"}}, **changes})
    assert read_sidecar(export_run(run, tmp_path / "m.onnx").sidecar).optional_inputs == optional


def test_rows_that_lack_an_input_are_checked_and_kept_as_golden_rows(
    sound: None, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    features = {**FEATURES, "sound": {"set": "sound"}}
    run = make_run(features=features, missing_features="mask", train={**BASE, "drop_sets": 0.2})
    result = export_run(run, tmp_path / "m.onnx")
    assert {check.name for check in result.parity.sets} == {"real", "random", "extremes", "missing"}
    sidecar = read_sidecar(result.sidecar)
    assert None not in {value for row in sidecar.golden_rows.inputs["sound"] for value in row}
    rows = load_file(run / runs.ROWS_FILE)
    lacking = {name: matrix[np.isnan(rows["sound"]).all(axis=1)] for name, matrix in rows.items()}
    assert len(lacking["sound"]) > 8
    golden = golden_rows(result.path, lacking, tolerance=1e-5)
    assert {value for row in golden.inputs["sound"] for value in row} == {None}
    replay_golden(OnnxModel(result.path), sidecar.model_copy(update={"golden_rows": golden}))


def test_heads_that_are_not_those_of_the_record_are_refused(make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(seeds=2, train=BASE)
    record = json.loads((run / runs.RUN_FILE).read_text())
    record["members"][0]["seeds"].append(7)
    (run / runs.RUN_FILE).write_text(json.dumps(record))
    with pytest.raises(RunError, match=r"holds heads \[\('mlp', 2\)\].*run.json says \[\('mlp', 3\)\]"):
        export_run(run, tmp_path / "m.onnx")
    assert not list(tmp_path.glob("m.*"))


def test_graph_gives_the_runs_own_predictions(run_folder: Path, labelled_store: Any, tmp_path: Path) -> None:
    result = export_run(run_folder, tmp_path / "model" / "m.onnx")
    table = pl.read_parquet(run_folder / runs.PREDICTIONS_FILE)
    matrix = FeatureStore.open(labelled_store.store).find("fake").matrix("pooled", table["video_sha256"].to_list())
    session = onnxruntime.InferenceSession(str(result.path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"video": matrix})
    expected = table.select("predicted_overall", "predicted_detail").to_numpy()
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert session.run(None, {"video": matrix[:1]})[0].shape == (1, 2)


def test_sidecar_tells_the_whole_identity(run_folder: Path, tmp_path: Path) -> None:
    result = export_run(run_folder, tmp_path / "m.onnx", opset=17)
    sidecar = read_sidecar(result.sidecar)
    record = runs.open_run(run_folder)
    assert sidecar.onnx.sha256 == sha256_file(result.path) == result.sha256
    assert sidecar.inputs[0].feature_spec().fingerprint == record.inputs[0].fingerprint
    assert sidecar.train_config_hash == record.config_sha256
    assert sidecar.inherited_licenses == {"dataset set": "CC0-1.0", "features fake": "CC-BY-4.0"}
    assert not sidecar.descends_from_random_weights
    assert {s["name"] for s in sidecar.parity["sets"]} == {"real", "random", "extremes", "missing"}
    model = onnx.load(result.path)
    assert model.opset_import[0].version == 17
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_file_is_the_same_every_time_and_names_no_path(run_folder: Path, tmp_path: Path) -> None:
    one = export_run(run_folder, tmp_path / "m.onnx").path.read_bytes()
    two = export_run(run_folder, tmp_path / "again" / "m.onnx").path.read_bytes()
    assert one == two
    for word in (str(tmp_path), str(Path.home()) + "/", "site-packages"):
        assert word.encode() not in one


def test_graph_that_disagrees_with_torch_leaves_no_file(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A planted defect: the graph is traced from heads that say something else than those that are compared."""
    drift(monkeypatch, 0)
    with pytest.raises(ModelError, match="parity.*differ by"):
        export_run(run_folder, tmp_path / "m.onnx")
    assert not list(tmp_path.glob("*.onnx"))
    assert not (tmp_path / "m.json").exists()


def test_graph_whose_spread_alone_disagrees_leaves_no_file(
    make_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(seeds=2, train=BASE)
    drift(monkeypatch, 1)
    with pytest.raises(ModelError, match="parity.*differ by .* in spread"):
        export_run(run, tmp_path / "m.onnx")
    assert not list(tmp_path.glob("m.*"))


def test_wrong_suffix_is_a_usage_error(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        export_run(run_folder, tmp_path / "m.pt")


def test_golden_rows_are_real_rows(run_folder: Path, labelled_store: Any, tmp_path: Path) -> None:
    sidecar = json.loads(export_run(run_folder, tmp_path / "m.onnx").sidecar.read_text())
    feature_set = FeatureStore.open(labelled_store.store).find("fake")
    stored = {tuple(row) for row in feature_set.matrix("pooled", sorted(feature_set.known_keys())).tolist()}
    assert {tuple(row) for row in sidecar["golden_rows"]["inputs"]["video"]} <= stored

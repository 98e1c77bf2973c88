"""export: one ONNX file that computes what torch computes, or no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.heads.mlp import MlpHead
from vqa_train.pipelines import fit as pipeline
from vqa_train.pipelines import runs
from vqa_train.pipelines.export import export_run
from vqa_train.registry.sidecar import read_sidecar
from vqa_train.store.store import FeatureStore


@pytest.fixture
def run_folder(labelled_store: Any, tmp_path: Path) -> Path:
    config = pipeline.load_fit_config(labelled_store.recipe)
    pipeline.fit(config, features=labelled_store.store, output=tmp_path / "run", dataset=str(labelled_store.manifest))
    return tmp_path / "run"


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
    assert {s["name"] for s in sidecar.parity["sets"]} == {"real", "random", "extremes"}
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
    """A planted defect: the graph is traced from a head whose clipping differs from the one that is compared."""
    import torch

    honest = MlpHead.forward

    def drifting(self: MlpHead, *inputs: torch.Tensor) -> torch.Tensor:
        scores = honest(self, *inputs)
        return scores + 1e-3 if torch.jit.is_tracing() else scores

    monkeypatch.setattr(MlpHead, "forward", drifting)
    with pytest.raises(ModelError, match="parity.*differ by"):
        export_run(run_folder, tmp_path / "m.onnx")
    assert not list(tmp_path.glob("*.onnx"))
    assert not (tmp_path / "m.json").exists()


def test_wrong_suffix_is_a_usage_error(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        export_run(run_folder, tmp_path / "m.pt")


def test_golden_rows_are_real_rows(run_folder: Path, labelled_store: Any, tmp_path: Path) -> None:
    sidecar = json.loads(export_run(run_folder, tmp_path / "m.onnx").sidecar.read_text())
    feature_set = FeatureStore.open(labelled_store.store).find("fake")
    stored = {tuple(row) for row in feature_set.matrix("pooled", sorted(feature_set.known_keys())).tolist()}
    assert {tuple(row) for row in sidecar["golden_rows"]["inputs"]["video"]} <= stored

"""Backbones as files, and scorers that need no training: whole, hashed, and the same numbers without torch."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vqa_train.backbones
import vqa_train.backbones.build
from vqa_train.backbones.build import build_backbone
from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.hashing import sha256_file
from vqa_train.core.plugins import Registry
from vqa_train.onnx import export
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel
from vqa_train.pipelines.export import backbone as export_backbone
from vqa_train.pipelines.export.files import ExportOptions, export_to_folder
from vqa_train.pipelines.models.ready import make_ready
from vqa_train.pipelines.score import ready as score_ready
from vqa_train.pipelines.score.ready import ensure_ready
from vqa_train.pipelines.score.scorer import Scorer
from vqa_train.registry.cache import ready_models
from vqa_train.registry.registry import ModelRegistry
from vqa_train.video.decode import read_clips


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny-batched` is a registered backbone."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "backbones")
    importlib.import_module("tiny_batched")
    registry = Registry(
        "backbone", {"nss": "vqa_train.backbones.nss:NssBackbone", "tiny-batched": "tiny_batched:TinyBatched"}
    )
    monkeypatch.setattr(vqa_train.backbones.build, "BACKBONES", registry)


@pytest.fixture
def video(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    return write_video(tmp_path / "clip.mp4", frames=12)


def test_a_backbone_and_its_manifest(tmp_path: Path, video: Path) -> None:
    path = tmp_path / "onnx" / "tiny.onnx"
    manifest = export_to_folder("tiny-batched:sign=minus", path, ExportOptions(), videos=[video])
    assert json.loads((tmp_path / "onnx" / "tiny.json").read_text()) == manifest
    assert manifest["files"] == {"tiny.onnx": {"sha256": sha256_file(path), "bytes": path.stat().st_size}}
    assert manifest["license"] == "LicenseRef-tiny"
    assert manifest["inputs"] == {"frames": [4, "height", "width", 3]}
    backbone = build_backbone("tiny-batched:sign=minus")
    model = OnnxModel(path, expected_sha256=manifest["files"]["tiny.onnx"]["sha256"], threads=1)
    assert model.metadata[FINGERPRINT_KEY] == manifest["fingerprint"] == backbone.spec.fingerprint
    [[clip]] = read_clips(video, [backbone.spec.sampling])
    np.testing.assert_allclose(
        model.run({"frames": clip.frames})["pooled"], backbone.extract([clip])[0]["pooled"], rtol=1e-4
    )


def test_large_weights_lie_beside_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        export.export_module, "__kwdefaults__", {**export.export_module.__kwdefaults__, "max_inside": 4}
    )
    manifest = export_to_folder("tiny-batched", tmp_path / "tiny.onnx", ExportOptions())
    [weights] = [name for name in manifest["files"] if name.endswith(".weights")]
    assert (tmp_path / weights).is_file()
    (tmp_path / weights).write_bytes(b"\0" * manifest["files"][weights]["bytes"])
    with pytest.raises(ModelError, match="expects"):
        OnnxModel(tmp_path / "tiny.onnx")


def test_a_graph_that_differs_leaves_no_file(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_backbone, "TOLERANCE", 0.0)
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelError, match="parity of 'nss.pooled' fails on probe rows"):
        export_to_folder("nss", tmp_path / "nss.onnx", ExportOptions(), videos=[video])
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "file", "options", "message"),
    [
        ("tiny-batched", "tiny.bin", ExportOptions(), "must end in .onnx"),
        ("tinny-batched", "tiny.onnx", ExportOptions(), "unknown backbone 'tinny-batched' - did you mean"),
        ("minilm", "m.onnx", ExportOptions(random_weights=1), "takes no videos and no random weights"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, name: str, file: str, options: ExportOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_to_folder(name, tmp_path / file, options)
    assert not list(tmp_path.iterdir())


def test_a_ready_made_scorer_scores_as_its_backbone_does(tmp_path: Path, video: Path) -> None:
    sidecar = make_ready("tiny-batched")
    assert ModelRegistry(ready_models()).models().keys() == {"tiny-batched"}
    assert sidecar.inherited_licenses == {"weights tiny-batched": "LicenseRef-tiny"}
    assert sidecar.license == "LicenseRef-tiny"
    found = Scorer("tiny-batched", registry=tmp_path / "model", threads=1).score(video)
    backbone = build_backbone("tiny-batched")
    [[clip]] = read_clips(video, [backbone.spec.sampling])
    assert found.scores["overall"] == pytest.approx(float(backbone.extract([clip])[0]["score"][0]), abs=1e-5)
    assert found.mos_range == {"overall": (0.0, 1.0)}
    # Made again, it is the same model.
    assert make_ready("tiny-batched").onnx.sha256 == sidecar.onnx.sha256


@pytest.mark.parametrize(
    ("name", "random", "message"),
    [
        ("nss", None, "gives features, no scores - fit a head"),
        ("tiny-batched:sign=minus", None, "has no settings"),
        ("tiny-batched", 3, "random weights make no scorer"),
    ],
)
def test_what_makes_no_scorer_is_refused(name: str, random: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_ready(name, random_weights=random)


def test_a_scorer_that_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_ready("tiny-batched")
    monkeypatch.setattr(score_ready, "READY_MADE", ("tiny-batched",))
    monkeypatch.setattr(score_ready.sys, "executable", "/nonexistent/python")
    said: list[str] = []
    ensure_ready("tiny-batched", tmp_path, log=said.append)
    ensure_ready("some-model-of-mine", tmp_path, log=said.append)
    assert not said


def test_a_scorer_that_cannot_be_made_says_how_to_try_again(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ModelError, match=r"could not be made.*`vqa-train export-backbone dover\+\+ --ready` tries"):
        ensure_ready("dover++", tmp_path, log=said.append)
    assert said == ["making the ready-made scorer dover++ from its weights; this happens once"]

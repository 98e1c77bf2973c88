"""A run whose head is large enough to be quantised, and its twin that was fitted later on other labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DIM = 256
ROWS = 240
TARGETS = ("overall", "detail")


@dataclass(frozen=True)
class Fitted:
    """Paths: labels, features, the run, its twin of the same recipe and other labels, and the exported model."""

    manifest: Path
    store: Path
    run: Path
    later: Path
    model: Path

    def copy(self, folder: Path) -> Path:
        """The exported model and its sidecar, to be tampered with."""
        for path in (self.model, self.model.with_suffix(".json")):
            shutil.copy(path, folder / path.name)
        return folder / self.model.name


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    from vqa_train.pipelines.export.run import export_run
    from vqa_train.pipelines.fit import run as pipeline

    root = tmp_path_factory.mktemp("fitted")
    rng = np.random.default_rng(5)
    quality, noise = rng.uniform(1, 5, ROWS), rng.normal(0, 0.3, ROWS)
    manifest = _labels(root / "set", np.stack([quality, 6 - quality + noise], axis=1))
    _features(root / "store", manifest, quality, rng)
    config = pipeline.parse_fit_config(
        {
            "schema": "vqa-train/fit/1",
            "features": {"video": {"set": "fake"}},
            "train": {"epochs": 10, "patience": None, "validation": {"fraction": 0}, "head": {"hidden": [192]}},
            "calibration": {"method": "split", "level": 0.8},
        },
        "recipe",
    )
    runs = []
    for name, shift in (("run", 0.0), ("later", 0.4)):
        labels = np.stack([quality + shift * np.sin(np.arange(ROWS)), 6 - quality + noise], axis=1)
        _labels(root / "set", labels)
        pipeline.fit(config, features=root / "store", output=root / name, dataset=str(manifest))
        runs.append(root / name)
    _labels(root / "set", np.stack([quality, 6 - quality + noise], axis=1))
    export_run(runs[0], root / "head.onnx")
    return Fitted(manifest, root / "store", *runs, root / "head.onnx")


def _labels(folder: Path, labels: Any) -> Path:
    from vqa_train.datasets.draft import ScanConfig
    from vqa_train.datasets.scan import scan

    folder.mkdir(exist_ok=True)
    lines = [f"id,{','.join(TARGETS)},scene"]
    for i, row in enumerate(np.clip(labels, 1, 5)):
        (folder / f"v{i:03d}.mp4").write_bytes(b"video %d" % i)
        lines.append(f"v{i:03d},{row[0]:.3f},{row[1]:.3f},scene{i // 2}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    manifest = folder.with_suffix(".yaml")
    manifest.unlink(missing_ok=True)
    scan(
        ScanConfig(
            root=folder, output=manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets=dict(zip(TARGETS, TARGETS, strict=True)),
            mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    return manifest


def _features(path: Path, manifest: Path, quality: Any, rng: np.random.Generator) -> None:
    from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
    from vqa_train.datasets.load import load_dataset
    from vqa_train.store.store import FeatureRow, FeatureStore

    spec = FeatureSpec(
        backbone="fake", definition=1, modality="video", sampling=Sampling(mode="uniform", n=2),
        outputs=(OutputSpec(name="pooled", shape=(DIM,)),),
    )  # fmt: skip
    facts = {
        "num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none",
    }  # fmt: skip
    numbers = rng.normal(size=(ROWS, DIM))
    numbers[:, ::2] += 0.5 * quality[:, None]
    # Columns as unlike in scale as those of real backbones.
    numbers *= np.exp(rng.normal(size=DIM))
    rows = [
        FeatureRow(key=video.sha256, outputs={"pooled": numbers[int(video.id[1:])].astype(np.float32)}, facts=facts)
        for video in load_dataset(str(manifest)).videos
    ]
    FeatureStore(path).create_set(spec, license="CC-BY-4.0").append(rows, profile={"device": "cpu"}, run_id="made")


@pytest.fixture
def retouch() -> Callable[..., Path]:
    """`retouch(path, change)`: an ONNX file that was changed and whose sidecar says the new hash."""
    import onnx

    from vqa_train.core.hashing import sha256_file
    from vqa_train.registry.sidecar import read_sidecar, sidecar_path, write_sidecar

    def retouch(path: Path, change: Callable[[Any], None]) -> Path:
        model = onnx.load(path)
        change(model)
        onnx.save(model, path)
        sidecar = read_sidecar(sidecar_path(path))
        file = sidecar.onnx.model_copy(update={"sha256": sha256_file(path), "bytes": path.stat().st_size})
        write_sidecar(sidecar_path(path), sidecar.model_copy(update={"onnx": file}))
        return path

    return retouch


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with the tiny model, its backbone and its text encoder."""
    import importlib

    from vqa_train import backbones
    from vqa_train.pipelines.models.register import RegisterConfig, register

    tests = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(tests / "registry")
    monkeypatch.syspath_prepend(tests / "backbones")
    tiny = importlib.import_module("tiny_model")
    monkeypatch.setattr(backbones.BACKBONES, "_builtin", tiny.BUILTIN)
    monkeypatch.setattr(backbones.TEXT_ENCODERS, "_builtin", tiny.BUILTIN_TEXT)
    monkeypatch.setenv("VQA_TRAIN_TEXT_MODELS", str(tmp_path / "text"))
    tiny.text_folder(tmp_path / "text")
    model = tiny.export_tiny(tmp_path / "m.onnx", text=True, ensemble=True)
    register(
        RegisterConfig(
            model=model, registry=tmp_path / "model", kind="nr", dataset="ladder", license="MIT", train_commit="unknown"
        )
    )
    return tmp_path / "model"

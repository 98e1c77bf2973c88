"""A labelled set of 60 small files in 20 groups, a store of their features, and models fitted on them; the features are
of the tiny backbone, so that models can be registered."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vqa_train import backbones
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.load import load_dataset
from vqa_train.datasets.scan import scan
from vqa_train.pipelines.export.run import export_run
from vqa_train.pipelines.fit.run import fit, parse_fit_config
from vqa_train.pipelines.models.register import RegisterConfig, register
from vqa_train.store.store import FeatureRow, FeatureStore

LINEAR = {"head": {"kind": "linear"}}
MLP = {"head": {"kind": "mlp", "hidden": [8]}, "epochs": 30, "patience": None, "ema": None, "optimizer": {"lr": 0.02}}
FACTS = {"num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_s": 0.36, "codec": "h264", "decoder": "none"}


def tiny_model() -> Any:
    """tests/registry/tiny_model.py."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("registry", "backbones"):
            patch.syspath_prepend(Path(__file__).parents[2] / folder)
        return importlib.import_module("tiny_model")


@dataclass(frozen=True)
class ReleaseSet:
    """Where everything is."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "set.yaml"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def registry(self) -> Path:
        return self.root / "model"

    def recipe(self, protocol: str = "splits", output: str = "pooled", train: Any = None, **changes: Any) -> Any:
        values = {
            "schema": "vqa-train/fit/1",
            "dataset": str(self.manifest),
            "features": {"look": {"set": "tiny", "output": output}},
            "train": train or LINEAR,
            "protocol": protocol,
        }
        return parse_fit_config({**values, **changes}, "recipe")

    def fit(self, name: str, **changes: Any) -> Path:
        """A run folder."""
        torch.set_num_threads(1)
        config = self.recipe(**changes)
        # As from the command line, where the recipe is no file of this folder: by the manifest's path.
        fit(config, features=self.store, output=self.root / "runs" / name, dataset=str(self.manifest))
        return self.root / "runs" / name

    def export(self, run: Path) -> Path:
        path = self.root / "exported" / f"{run.name}.onnx"
        path.parent.mkdir(exist_ok=True)
        export_run(run, path)
        return path

    def register(self, model: Path, name: str = "m", **changes: Any) -> str:
        """NAME:VERSION."""
        module = tiny_model()
        fields = {
            "kind": "nr", "dataset": "set", "license": "MIT", "train_commit": "unknown", "name": name,
            "registry": self.registry,
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(backbones.BACKBONES, "_builtin", module.BUILTIN)
            sidecar = register(RegisterConfig(model=model, **{**fields, **changes}))
        return f"{sidecar.name}:{sidecar.version}"


def make_set(root: Path, *, noise: float = 0.3, count: int = 60) -> ReleaseSet:
    """Labels of 1 to 5; column 2 of `pooled` is the label and noise, `motion` says less."""
    made = ReleaseSet(root)
    data = root / "set"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    mos = rng.uniform(1, 5, count).round(3)
    lines = ["id,overall,scene"]
    for i in range(count):
        (data / f"v{i:03d}.mp4").write_bytes(b"video %d" % i)
        lines.append(f"v{i:03d},{mos[i]},scene{i // 3}")
    (data / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    scan(
        ScanConfig(
            root=data, output=made.manifest, name="set", license="CC0-1.0", labels=(("labels.csv", None),),
            columns={"id": "id", "group": "scene"}, targets={"overall": "overall"}, mos_min=1, mos_max=5,
        )
    )  # fmt: skip
    features = FeatureStore(made.store).create_set(tiny_model().TinyBackbone().spec, license="MIT")
    rows = []
    for video in load_dataset(str(made.manifest)).videos:
        pooled, motion = rng.normal(size=(2, 5)).astype(np.float32)
        pooled[2] = video.labels["overall"] + rng.normal() * noise
        motion[1] = video.labels["overall"] + rng.normal() * noise * 5
        outputs = {"pooled": pooled, "motion": motion}
        rows += [FeatureRow(key=video.sha256, view=view, outputs=outputs, facts=FACTS) for view in range(2)]
    features.append(rows, profile={"device": "cpu"}, run_id="made-by-test")
    return made

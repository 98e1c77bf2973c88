"""A whole small model: a real convolutional backbone, a real text encoder, a head, exported as `export` does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqa_train.backbones.base import BackboneOptions, VideoBackbone
from vqa_train.backbones.text import SentenceEncoder
from vqa_train.backbones.text_folder import TextModel
from vqa_train.core.hashing import sha256_json
from vqa_train.core.provenance import RunProvenance
from vqa_train.core.types import FeatureSpec, OutputSpec, Sampling
from vqa_train.heads.base import ScalingStatistics
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.graph import ScoringGraph
from vqa_train.heads.mlp import MlpHead
from vqa_train.onnx.export import export_module
from vqa_train.onnx.parity import check_parity, torch_reference
from vqa_train.pipelines.export.run import golden_rows
from vqa_train.registry.facts import Calibration, MemberFacts, TargetInterval
from vqa_train.registry.sidecar import (
    INTERVAL_KEY,
    DatasetRef,
    ModelInput,
    ModelSidecar,
    OnnxFile,
    sidecar_path,
    write_sidecar,
)  # fmt: skip
from vqa_train.weights.manifest import Source, WeightsEntry, WeightsFile

BUILTIN = {
    "tiny": "tiny_model:TinyBackbone",
    "tiny-random": "tiny_model:RandomBackbone",
    "tiny-temporal": "tiny_model:TemporalBackbone",
}
BUILTIN_TEXT = {"tiny-text": "tiny_model:tiny_text"}
TARGETS = ["overall", "temporal"]
TEXT_DIM = 32
COMMIT = "0123abc"
PROVENANCE = RunProvenance("fit", {}).to_json()
CALIBRATION = Calibration(
    level=0.9,
    method="cross",
    targets={
        "overall": TargetInterval(half_width=0.75, n=40, coverage=0.9, coverage_n=40),
        "temporal": TargetInterval(half_width=None, n=3, coverage=None, coverage_n=0, note="3 residuals are too few"),
    },
)


class TinyBackbone(VideoBackbone):
    """Strided convolutions over frames: pooled mean, and the mean of absolute differences between frames."""

    name = "tiny"
    random_seed: int | None = None
    license = "MIT"

    def __init__(self, options: BackboneOptions | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)
            self.net = nn.Sequential(nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2))
        self.spec = FeatureSpec(
            backbone=self.name,
            definition=1,
            modality="video",
            outputs=(OutputSpec(name="pooled", shape=(5,)), OutputSpec(name="motion", shape=(5,))),
            weights_sha256=None if self.random_seed is not None else "1" * 64,
            random_seed=self.random_seed,
            sampling=Sampling(mode="uniform", n=4, views=2),
            preprocessing={"scale": 255},
        )
        self.eval()

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        (frames,) = inputs
        x = self.net(frames.permute(0, 3, 1, 2).float() / 255)
        return x.mean(dim=(0, 2, 3)), (x[1:] - x[:-1]).abs().mean(dim=(0, 2, 3))

    def onnx_example(self) -> tuple[Tensor, ...]:
        return (torch.randint(0, 255, (4, 40, 48, 3), dtype=torch.uint8),)


class RandomBackbone(TinyBackbone):
    """The same with weights that say they are random."""

    name = "tiny-random"
    random_seed = 7


class TemporalBackbone(TinyBackbone):
    """The same, frame by frame: `pooled` has the mean and the deviation over the frames of `temporal`."""

    name = "tiny-temporal"

    def __init__(self, options: BackboneOptions | None = None) -> None:
        super().__init__(options)
        names = tuple("abcde")
        pooled = (*(f"{name}.mean" for name in names), *(f"{name}.std" for name in names))
        self.spec = replace(
            self.spec,
            outputs=(
                OutputSpec(name="pooled", shape=(10,), names=pooled),
                OutputSpec(name="temporal", shape=(4, 5), names=names),
                OutputSpec(name="spread", shape=(5,)),
            ),
        )

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (frames,) = inputs
        steps = self.net(frames.permute(0, 3, 1, 2).float() / 255).mean(dim=(2, 3))
        spread = steps.std(0, correction=0)
        return torch.cat([steps.mean(0), spread]), steps, spread


def tiny_text(options: BackboneOptions | None = None) -> SentenceEncoder:
    """A text encoder from the folder that `text_folder` wrote, whatever the options."""
    entry = WeightsEntry(
        name="tiny-text",
        source=Source(repo="example/tiny-text"),
        files=(WeightsFile(path="model.safetensors"),),
        license="CC-BY-4.0",
        commercial_use=True,
    )
    folder = Path(os.environ["VQA_TRAIN_TEXT_MODELS"]) / "tiny-text"
    return SentenceEncoder(TextModel(entry=entry, pooling="cls", dim=TEXT_DIM), BackboneOptions(weights=folder))


class TinyHead(nn.Module):
    """Standardises and maps all inputs, side by side, to scores around 3."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.first, self.last = nn.Linear(dim, 8), nn.Linear(8, len(TARGETS))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, *inputs: Tensor) -> Tensor:
        return 3 + self.last(torch.tanh(self.first(torch.cat(inputs, dim=1))))


def backbones(*, text: bool, random: bool = False) -> dict[str, tuple[Any, str]]:
    """Input name -> (extractor, output)."""
    video = RandomBackbone() if random else TinyBackbone()
    chosen: dict[str, tuple[Any, str]] = {"look": (video, "pooled"), "motion": (video, "motion")}
    return {**chosen, "prompt": (tiny_text(), "pooled")} if text else chosen


def make_head(*, text: bool) -> TinyHead:
    return TinyHead(10 + TEXT_DIM * text)


def make_ensemble(*, text: bool) -> ScoringGraph:
    """Three small networks that differ; `overall` has an interval, `temporal` has none."""
    inputs = {"look": 5, "motion": 5, **({"prompt": TEXT_DIM} if text else {})}
    columns = sum(inputs.values())
    head = MlpHead(inputs, TARGETS, HeadConfig(hidden=(6,)), models=3)
    head.initialise([torch.Generator().manual_seed(seed) for seed in range(3)])
    one = ScalingStatistics(
        input_mean=np.full(columns, 0.1, np.float32),
        input_std=np.full(columns, 0.2, np.float32),
        input_varies=np.ones(columns, np.bool_),
        target_mean=np.full(2, 3, np.float32),
        target_std=np.full(2, 0.8, np.float32),
        target_min=np.full(2, 1, np.float32),
        target_max=np.full(2, 5, np.float32),
    )
    head.set_statistics([one] * 3)
    return ScoringGraph(Ensemble([head]).eval(), CALIBRATION.half_widths).eval()


def export_tiny(
    path: Path,
    *,
    text: bool = False,
    random: bool = False,
    ensemble: bool = False,
    chosen: dict[str, tuple[Any, str]] | None = None,
    of: dict[str, str] | None = None,
    head: nn.Module | None = None,
    **changes: Any,
) -> Path:
    """NAME.onnx and NAME.json, as `export` writes them; `changes` go into the sidecar.

    `chosen` are other inputs than `backbones` gives, for `head`; `of` says which are of the reference.
    """
    chosen = chosen or backbones(text=text, random=random)
    dims = {name: extractor.spec.output(output).shape for name, (extractor, output) in chosen.items()}
    head = head or (make_ensemble(text=text) if ensemble else make_head(text=text))
    outputs = make_ensemble(text=text).output_names if ensemble else ("scores",)
    exported = export_module(
        head,
        tuple(torch.zeros(2, *dim) for dim in dims.values()),
        path,
        input_names=list(dims),
        output_names=list(outputs),
        dynamic_axes={name: {0: "batch"} for name in (*dims, *outputs)},
        metadata={
            "vqa_train.targets": TARGETS,
            "vqa_train.fingerprints": {name: extractor.spec.fingerprint for name, (extractor, _) in chosen.items()},
            **({INTERVAL_KEY: CALIBRATION.in_graph()} if ensemble else {}),
        },
    )
    rng = np.random.default_rng(1)
    rows = {name: rng.normal(0, 0.3, (6, *dim)).astype(np.float32) for name, dim in dims.items()}
    parity = check_parity(
        torch_reference(head, list(dims), outputs), path, rows, missing=ensemble, unbounded=("low", "high")
    )
    inputs = [
        ModelInput(
            name=name,
            modality=extractor.spec.modality,
            backbone=extractor.spec.backbone,
            fingerprint=extractor.spec.fingerprint,
            output=output,
            dim=dims[name][-1],
            shape=dims[name] if len(dims[name]) > 1 else None,
            of=(of or {}).get(name),
            spec=extractor.spec.to_json(),
            license=extractor.license,
        )
        for name, (extractor, output) in chosen.items()
    ]
    fields: dict[str, Any] = {
        "name": path.stem,
        "onnx": OnnxFile(file=path.name, sha256=exported.sha256, bytes=exported.bytes, opset=exported.opset),
        "inputs": inputs,
        "targets": TARGETS,
        "input_normalization": "inside the graph: none",
        "expected_output_range": dict.fromkeys(TARGETS, (1.5, 4.5)),
        "direction": "higher_is_better",
        "mos_range": dict.fromkeys(TARGETS, (1.0, 5.0)),
        "dataset": DatasetRef(name="ladder", version="1", manifest_sha256="a" * 64),
        "train_config_hash": sha256_json({"recipe": "tiny"}),
        "inherited_licenses": {"dataset ladder": "CC0-1.0", **{f"features {i.backbone}": i.license for i in inputs}},
        "descends_from_random_weights": random,
        "parity": parity.to_json(),
        "golden_rows": golden_rows(path, rows, tolerance=1e-5),
        "output_names": list(outputs),
        "calibration": CALIBRATION if ensemble else None,
        "members": [MemberFacts(name="head", kind="mlp", models=3, weight=1)] if ensemble else None,
        "run_provenance": PROVENANCE,
    }
    write_sidecar(sidecar_path(path), ModelSidecar(**{**fields, **changes}))
    return path


def torch_scores(video: Path, prompt: str | None = None) -> dict[str, float]:
    """What torch, without any ONNX file, says of a video."""
    with torch.inference_mode():
        scores = make_head(text=prompt is not None)(*torch_features(video, prompt))[0]
    return dict(zip(TARGETS, scores.tolist(), strict=True))


def torch_outputs(video: Path, prompt: str | None = None, *, without_prompt: bool = False) -> dict[str, dict]:
    """The same of the ensemble, output -> target -> number; `without_prompt` counts the text as the training mean."""
    text = prompt is not None or without_prompt
    graph = make_ensemble(text=text)
    features = torch_features(video, prompt)
    if without_prompt:
        features.append(torch.full((1, TEXT_DIM), 0.1))
    with torch.inference_mode():
        results = [values[0].tolist() for values in graph(*features)]
    return {
        output: dict(zip(TARGETS, values, strict=True))
        for output, values in zip(graph.output_names, results, strict=True)
    }


def torch_features(video: Path, prompt: str | None = None) -> list[Tensor]:
    """(1, D) per input of the model."""
    from vqa_train.video.decode import read_clips

    chosen = backbones(text=prompt is not None)
    features = []
    for extractor, output in chosen.values():
        if extractor.spec.modality == "video":
            (clips,) = read_clips(video, [extractor.spec.sampling])
            rows = [row[output] for row in extractor.extract(clips)]
            features.append(torch.from_numpy(np.mean(rows, axis=0))[None])
        else:
            features.append(torch.from_numpy(extractor.encode([prompt])))
    return features


def text_folder(root: Path) -> None:
    """Make the tiny text encoder findable under `root`."""
    import tiny_bert

    tiny_bert.write_tiny_bert(root / "tiny-text", dim=TEXT_DIM)
    os.environ["VQA_TRAIN_TEXT_MODELS"] = str(root)

"""Turns the frozen backbone of a model input into a verified ONNX file that scoring runs without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError
from vqa_train.core.hashing import seed_from
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.onnx.probes import SENTENCES, probe_clip
from vqa_train.onnx.runtime import FINGERPRINT_KEY, OnnxModel
from vqa_train.pipelines.score.graphs import FRAMES, graph_inputs
from vqa_train.registry.sidecar import ModelInput

if TYPE_CHECKING:
    from vqa_train.backbones.base import TextEncoder, VideoBackbone
    from vqa_train.onnx.export import Exported

TOLERANCE = 1e-4
# A feature that is under a tenth on every probe is compared absolutely, at a tenth of the tolerance. Over a few real
# clips the largest size says little, and what is small there may be a difference of large numbers: compared at 1.
_SCALE_FLOOR = 0.1
_SCALE_FLOOR_REAL = 1.0
_PROBE_SIZES = ((144, 192), (241, 387), (192, 128))


@dataclass(frozen=True)
class ExportedBackbone:
    """A backbone's ONNX file, its inputs' dimensions, and for text its tokenizer."""

    onnx: Exported
    inputs: Mapping[str, list[int | str]]
    tokenizer: bytes | None = None
    max_tokens: int | None = None


def export_backbone(item: ModelInput, path: Path, *, opset: int) -> ExportedBackbone:
    """Build the backbone or text encoder of `item`, check that it is the one, export it and compare both.

    Raises:
        ModelError: another fingerprint or licence than the model's, a backbone whose input is not raw frames, or
            graph and module differ by more than 1e-4 of a feature's size.
        WeightsError: the weights are missing or wrong.
        DependencyError: a package that the backbone needs is not installed.
    """
    from vqa_train.backbones.build import rebuild

    backbone = rebuild(item.feature_spec())
    _refuse_other(item, backbone.spec, backbone.license)
    return export_extractor(backbone, path, opset=opset)


def export_extractor(
    backbone: VideoBackbone | TextEncoder, path: Path, *, opset: int, clips: Sequence[Clip] = ()
) -> ExportedBackbone:
    """Export a backbone or text encoder and compare the graph with the module.

    Args:
        backbone: in inference mode, on the CPU in float32.
        path: of the graph; weights over 2 GiB go into a file beside it.
        opset: version of the default operator set.
        clips: real clips, with as many frames as the backbone's sampling, to compare on beside the made ones.

    Raises:
        ModelError: a backbone whose input is not raw frames, or graph and module differ by more than 1e-4 of a
            feature's size.
    """
    from vqa_train.backbones.base import VideoBackbone

    if isinstance(backbone, VideoBackbone):
        return _export_video(backbone, path, opset, clips)
    return _export_text(backbone, path, opset)


def _refuse_other(item: ModelInput, spec: FeatureSpec, license_: str) -> None:
    if spec.fingerprint != item.fingerprint:
        mine, theirs = spec.to_json(), item.spec
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        raise ModelError(
            f"backbone {item.backbone!r} gives features {spec.fingerprint[:12]} here, model input {item.name!r} was "
            f"fitted on {item.fingerprint[:12]}; they differ in: {', '.join(differing)}",
            hint="extract the features again and fit anew, or install the versions and weights it was fitted with",
        )
    if license_ != item.license:
        raise ModelError(
            f"backbone {item.backbone!r} is under {license_!r}, model input {item.name!r} says {item.license!r}"
        )


def _export_video(backbone: VideoBackbone, path: Path, opset: int, clips: Sequence[Clip]) -> ExportedBackbone:
    from vqa_train.onnx.export import export_module

    example = backbone.onnx_example()
    axes = backbone.onnx_inputs()
    if next(iter(axes)) != FRAMES or example[0].ndim != 4 or len(axes) != len(example):
        raise ModelError(f"backbone {backbone.spec.backbone!r} must take (T, H, W, 3) frames first, takes {list(axes)}")
    onnx = export_module(
        backbone,
        example,
        path,
        input_names=list(axes),
        output_names=[output.name for output in backbone.spec.outputs],
        dynamic_axes=axes,
        opset=opset,
        metadata=_metadata(backbone.spec, backbone.license),
    )
    graph = OnnxModel(path)
    _compare_video(backbone, graph, _probes(backbone, axes[FRAMES], tuple(example[0].shape)), "probe")
    if clips:
        _compare_video(backbone, graph, clips, "real")
    dims = {
        name: [axes[name].get(i, size) for i, size in enumerate(part.shape)]
        for name, part in zip(axes, example, strict=True)
    }
    return ExportedBackbone(onnx, dims)


def _probes(backbone: VideoBackbone, axes: Mapping[int, str], example: tuple[int, ...]) -> list[Clip]:
    """Made clips of several sizes, where sizes may vary."""
    count = example[0] if 0 not in axes or backbone.spec.sampling is None else backbone.spec.sampling.num_frames
    sizes = _PROBE_SIZES if {1, 2} <= axes.keys() else (example[1:3],) * len(_PROBE_SIZES)
    return [
        probe_clip(count, height, width, seed_from("probe", backbone.spec.fingerprint, i))
        for i, (height, width) in enumerate(sizes)
    ]


def _compare_video(
    backbone: VideoBackbone, graph: OnnxModel, clips: Sequence[Clip], kind: Literal["probe", "real"]
) -> None:
    expected: list[dict[str, NDArray[np.float32]]] = []
    got: list[dict[str, NDArray[Any]]] = []
    for clip in clips:
        prepared = [part.numpy() for part in backbone.prepare(clip)]
        inputs = graph_inputs(graph, clip)
        if any(not np.array_equal(mine, theirs) for mine, theirs in zip(prepared, inputs.values(), strict=True)):
            raise ModelError(
                f"backbone {backbone.spec.backbone!r} prepares frames outside its graph, so scoring without torch "
                "would skip that",
                hint="move the preparation into forward",
            )
        expected += backbone.extract([clip])
        got.append(graph.run(inputs))
    for output in backbone.spec.outputs:
        _compare(
            np.stack([row[output.name] for row in expected]),
            np.stack([row[output.name] for row in got]),
            f"{backbone.spec.backbone}.{output.name}",
            kind,
        )


def _export_text(encoder: TextEncoder, path: Path, opset: int) -> ExportedBackbone:
    import torch
    from tokenizers import Tokenizer

    from vqa_train.onnx.export import export_module

    tokenizer = encoder.tokenizer_json()
    reader = Tokenizer.from_str(tokenizer.decode("utf-8"))
    rows = [reader.encode(text) for text in SENTENCES]
    names = ["input_ids", "attention_mask"]
    size = len(rows[1].ids)
    # Two rows, one of them padded: a mask of ones only would be traced away.
    ids = torch.tensor([rows[1].ids, rows[0].ids + [0] * (size - len(rows[0].ids))])
    mask = torch.tensor([[1] * size, [1] * len(rows[0].ids) + [0] * (size - len(rows[0].ids))])
    onnx = export_module(
        encoder.onnx_module(),
        (ids, mask),
        path,
        input_names=names,
        output_names=[output.name for output in encoder.spec.outputs],
        dynamic_axes={**{name: {0: "batch", 1: "tokens"} for name in names}, "pooled": {0: "batch"}},
        opset=opset,
        metadata=_metadata(encoder.spec, encoder.license),
    )
    graph = OnnxModel(path)
    got = [
        graph.run({n: np.asarray([v], dtype=np.int64) for n, v in zip(names, (r.ids, r.attention_mask), strict=True)})
        for r in rows
    ]
    _compare(encoder.encode(SENTENCES), np.concatenate([row["pooled"] for row in got]), encoder.spec.backbone)
    return ExportedBackbone(onnx, {name: ["batch", "tokens"] for name in names}, tokenizer, encoder.max_tokens)


def _compare(expected: NDArray[Any], got: NDArray[Any], what: str, kind: Literal["probe", "real"] = "probe") -> None:
    """Each feature (last axis) may differ by `TOLERANCE` of its largest size over the rows and time steps."""
    from vqa_train.onnx.parity import compare

    if kind == "probe" and (expected == expected[0]).all():
        raise ModelError(f"parity of {what!r} means nothing: it gives the same for every probe")
    floor = _SCALE_FLOOR if kind == "probe" else _SCALE_FLOOR_REAL
    axes = tuple(range(expected.ndim - 1))
    scale = np.maximum(np.abs(expected).max(axis=axes, keepdims=True), floor)
    compare(kind, expected, got, tolerance=TOLERANCE, what=what, scale=scale)


def _metadata(spec: FeatureSpec, license_: str) -> dict[str, Any]:
    return {FINGERPRINT_KEY: spec.fingerprint, "vqa_train.spec": spec.to_json(), "vqa_train.license": license_}

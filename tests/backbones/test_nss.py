"""The backbone as a whole: input checks, tiny and huge frames, pooling, the ONNX graph, and the page that lists it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vqa_train.backbones import nss
from vqa_train.backbones.nss import BURST, BURSTS, LARGEST, NssBackbone
from vqa_train.backbones.nss_names import PER_BURST, PER_CLIP, POOLED_NAMES, TEMPORAL_NAMES
from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.types import Clip
from vqa_train.onnx.export import export_module
from vqa_train.onnx.probes import probe_clip
from vqa_train.onnx.runtime import OnnxModel

PAGE = Path(__file__).resolve().parents[2] / "docs" / "features" / "nss.md"
COUNT = BURSTS * BURST


@pytest.fixture(scope="module")
def backbone() -> NssBackbone:
    return NssBackbone().eval()


@pytest.fixture(scope="module")
def model(backbone: NssBackbone, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    path = tmp_path_factory.mktemp("nss") / "nss.onnx"
    names = [output.name for output in backbone.spec.outputs]
    axes = backbone.onnx_inputs()
    export_module(
        backbone, backbone.onnx_example(), path, input_names=["frames"], output_names=names, dynamic_axes=axes
    )
    return OnnxModel(path)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (COUNT, height, width, 3), dtype=np.uint8)


def run(backbone: NssBackbone, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with torch.inference_mode():
        pooled, temporal = backbone(torch.from_numpy(frames))
    return pooled.numpy(), temporal.numpy()


def with_frames(frames: NDArray[np.generic]) -> Clip:
    return Clip(**{**probe_clip(COUNT, 32, 32, 0).__dict__, "frames": frames})


def test_it_needs_no_weights_and_reads_bursts_within_a_budget(backbone: NssBackbone) -> None:
    assert backbone.spec.weights_sha256 is None
    assert backbone.spec.random_seed is None
    assert backbone.spec.sampling is not None
    assert backbone.spec.sampling.num_frames == COUNT
    assert backbone.spec.sampling.decode_budget is not None
    assert not list(backbone.parameters())


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((COUNT - 1, 32, 32, 3), np.uint8),
        np.zeros((COUNT, 32, 32), np.uint8),
        np.zeros((COUNT, 32, 32, 4), np.uint8),
        np.zeros((COUNT, 32, 32, 3), np.float32),
    ],
    ids=["too few", "no channels", "four channels", "float"],
)
def test_other_frames_are_refused_with_what_was_expected(backbone: NssBackbone, frames: NDArray[np.generic]) -> None:
    with pytest.raises(MediaError, match=r"uint8 frames \(48, H, W, 3\), got") as caught:
        backbone.prepare(with_frames(frames))
    assert caught.value.reason is Reason.BACKBONE_ERROR


def test_read_only_frames_are_taken(backbone: NssBackbone) -> None:
    frames = noise(32, 32)
    frames.flags.writeable = False
    assert torch.equal(backbone.prepare(with_frames(frames))[0], torch.from_numpy(frames.copy()))


def test_the_difference_is_between_the_third_frame_of_a_burst_and_the_next(backbone: NssBackbone) -> None:
    frames = np.full((COUNT, 32, 32, 3), 100, np.uint8)
    frames[2 * BURST + 2] = noise(32, 32)[0]
    ti = run(backbone, frames)[1][:, TEMPORAL_NAMES.index("ti")]
    assert np.flatnonzero(ti > 0).tolist() == [2]
    frames[2 * BURST + 3] = frames[2 * BURST + 2]
    assert run(backbone, frames)[1][:, TEMPORAL_NAMES.index("ti")].max() < 0


@pytest.mark.parametrize("size", [(1, 1), (8, 200), (31, 33), (16, 16)], ids=str)
def test_frames_under_32_pixels_count_as_continued_by_their_edge(backbone: NssBackbone, size: tuple[int, int]) -> None:
    frames = noise(*size)
    height, width = max(size[0], 32), max(size[1], 32)
    widths = ((0, 0), (0, height - size[0]), (0, width - size[1]), (0, 0))
    grown = np.pad(frames, widths, mode="edge")
    # Motion is measured on every second pixel, where the continued edge may lie one pixel off.
    spatial = TEMPORAL_NAMES.index("ti")
    np.testing.assert_allclose(run(backbone, frames)[1][:, :spatial], run(backbone, grown)[1][:, :spatial], rtol=1e-5)
    assert all(np.isfinite(output).all() for output in run(backbone, frames))


def test_of_larger_frames_the_middle_is_measured(backbone: NssBackbone) -> None:
    width = LARGEST + 96
    frames = noise(40, width)
    middle = np.ascontiguousarray(frames[:, :, 48 : 48 + LARGEST])
    for wide, cut in zip(run(backbone, frames), run(backbone, middle), strict=True):
        np.testing.assert_array_equal(wide, cut)


def test_pooling_is_mean_deviation_and_the_decile_at_the_worse_end(backbone: NssBackbone) -> None:
    pooled, temporal = run(backbone, probe_clip(COUNT, 64, 80, seed=1).frames)
    count = len(PER_BURST)
    np.testing.assert_allclose(pooled[:count], temporal.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pooled[count : 2 * count], temporal.std(0), rtol=1e-3, atol=1e-5)
    worst = [np.quantile(temporal[:, i], 0.9 if f.worse == "high" else 0.1) for i, f in enumerate(PER_BURST)]
    np.testing.assert_allclose(pooled[2 * count : 3 * count], worst, rtol=1e-5, atol=1e-5)
    assert len(pooled) == 3 * count + len(PER_CLIP)


def test_chunks_of_bursts_do_not_matter(backbone: NssBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = probe_clip(COUNT, 64, 80, seed=2).frames
    together = run(backbone, frames)
    monkeypatch.setattr(nss, "_CHUNK_PIXELS", 1)
    for one, other in zip(together, run(backbone, frames), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def clips() -> dict[str, NDArray[np.uint8]]:
    scene = probe_clip(COUNT, 241, 427, seed=3).frames
    return {
        "odd 241x427": scene,
        "small 32x32": probe_clip(COUNT, 32, 32, seed=4).frames,
        "under 31x33": probe_clip(COUNT, 31, 33, seed=5).frames,
        "flat 8x200": noise(8, 200),
        "one pixel": noise(1, 1),
        "portrait": probe_clip(COUNT, 360, 202, seed=6).frames,
        "wide": noise(40, LARGEST + 100),
        "noise": noise(120, 160),
        "black": np.zeros((COUNT, 90, 120, 3), np.uint8),
        "white": np.full((COUNT, 90, 120, 3), 255, np.uint8),
        "still": np.repeat(scene[:1, :120, :160], COUNT, 0),
    }


@pytest.mark.parametrize("kind", list(clips()))
def test_onnxruntime_agrees_within_1e_4_of_a_value_or_of_one(
    backbone: NssBackbone, model: OnnxModel, kind: str
) -> None:
    frames = clips()[kind]
    found = model.run({"frames": frames})
    for name, expected in zip(("pooled", "temporal"), run(backbone, frames), strict=True):
        assert np.isfinite(expected).all()
        scaled = np.abs(found[name] - expected) / np.maximum(1, np.abs(expected))
        assert scaled.max() <= 1e-4, (name, POOLED_NAMES[int(scaled.argmax())] if name == "pooled" else None)


def test_the_graph_loops_over_bursts_and_is_small(model: OnnxModel) -> None:
    import onnx

    graph = onnx.load(model.path).graph
    assert [node.op_type for node in graph.node].count("Loop") == 1
    assert model.path.stat().st_size < 2_000_000


def test_exporting_twice_gives_the_same_bytes(backbone: NssBackbone, model: OnnxModel, tmp_path: Path) -> None:
    names = [output.name for output in backbone.spec.outputs]
    again = export_module(
        backbone,
        backbone.onnx_example(),
        tmp_path / "again.onnx",
        input_names=["frames"],
        output_names=names,
        dynamic_axes=backbone.onnx_inputs(),
    )
    assert again.sha256 == model.sha256


def test_the_page_lists_every_feature_as_the_code_does(backbone: NssBackbone) -> None:
    rows = [
        tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| `\w+` \|", line)
    ]
    listed = [(f"`{f.name}`", f.formula.replace("|", "\\|"), f.source, f.range, f.worse) for f in PER_BURST + PER_CLIP]
    assert [row[:5] for row in rows] == listed
    pooled, temporal = run(backbone, np.full((COUNT, 64, 64, 3), 128, np.uint8))
    constant = np.concatenate([temporal[0], pooled[-len(PER_CLIP) :]])
    np.testing.assert_allclose([float(row[5]) for row in rows], constant, atol=0.006)


def test_the_page_names_the_sampling_and_the_size(backbone: NssBackbone) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert backbone.spec.sampling is not None
    assert f"{BURSTS} bursts of {BURST}" in text
    assert f"budget of {backbone.spec.sampling.decode_budget} frames" in text
    assert f"`pooled` ({len(POOLED_NAMES)},)" in text
    assert f"`temporal` ({BURSTS}, {len(TEMPORAL_NAMES)})" in text
    assert f"definition {backbone.spec.definition}" in text.lower()

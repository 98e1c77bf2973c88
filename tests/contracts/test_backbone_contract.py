"""What every video backbone in the registry must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from vqa_train.backbones import BACKBONES
from vqa_train.backbones.base import BackboneOptions, VideoBackbone
from vqa_train.backbones.batched import BatchedBackbone
from vqa_train.backbones.build import build_backbone
from vqa_train.core.errors import DependencyError
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.onnx.export import export_module
from vqa_train.onnx.probes import probe_clip
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.score.graphs import graph_inputs

SIZES = [(96, 128), (241, 427), (64, 48)]

# Networks too large to run here over and over; each is held by the contract of the one that it shares its code with.
SAME_CODE = (
    {"dover": "dover-mobile", "dover++": "dover-mobile"}
    | dict.fromkeys(
        ("vjepa2-vith-fpc64-256", "vjepa2-vitg-fpc64-256", "vjepa2-vitg-fpc64-384"), "vjepa2-vitl-fpc64-256"
    )
    | {"vjepa2-vitg-fpc64-384-ssv2": "vjepa2-vitl-fpc16-256-ssv2"}
)


def build(name: str) -> VideoBackbone:
    """The backbone with random weights where it has any, V-JEPA 2 with a small network of the same layers."""
    if name.startswith("vjepa2-"):
        from vqa_train.backbones.vjepa2 import SIZES as NETWORKS
        from vqa_train.backbones.vjepa2 import Vjepa2Backbone

        small = replace(NETWORKS[name], hidden=32, layers=2, heads=2, mlp=64, crop=32, frames=16)
        return Vjepa2Backbone(name, small, BackboneOptions(random_weights=1)).eval()
    return build_backbone(name, random_weights=None if name == "nss" else 1)


@pytest.fixture(scope="module", params=[name for name in BACKBONES.names() if name not in SAME_CODE])
def named(request: pytest.FixtureRequest) -> tuple[str, VideoBackbone]:
    try:
        return request.param, build(request.param)
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def backbone(named: tuple[str, VideoBackbone]) -> VideoBackbone:
    return named[1]


def clip_of(backbone: VideoBackbone, height: int = 96, width: int = 128, seed: int = 1) -> Clip:
    assert backbone.spec.sampling is not None
    clip = probe_clip(backbone.spec.sampling.num_frames, height, width, seed)
    return replace(clip, key=f"{seed:064x}")


def with_frames(clip: Clip, frames: np.ndarray) -> Clip:
    return replace(clip, frames=frames)


def extract(backbone: VideoBackbone, clip: Clip) -> dict[str, np.ndarray]:
    return backbone.extract([clip])[0]


def test_the_spec_has_the_registry_name_and_survives_json(named: tuple[str, VideoBackbone]) -> None:
    name, backbone = named
    spec = backbone.spec
    assert spec.backbone == name
    assert spec.modality == "video"
    assert spec.sampling is not None
    assert FeatureSpec.from_json(spec.to_json()).fingerprint == spec.fingerprint
    assert backbone.license.strip()


def test_the_fingerprint_is_the_same_in_every_instance(named: tuple[str, VideoBackbone]) -> None:
    assert build(named[0]).spec.fingerprint == named[1].spec.fingerprint


def test_names_are_unique_and_as_many_as_the_last_axis(backbone: VideoBackbone) -> None:
    assert len({output.name for output in backbone.spec.outputs}) == len(backbone.spec.outputs)
    for output in backbone.spec.outputs:
        if output.names is not None:
            assert len(set(output.names)) == len(output.names) == output.shape[-1]


def test_outputs_are_float32_of_the_shapes_in_the_spec(backbone: VideoBackbone) -> None:
    row = extract(backbone, clip_of(backbone))
    assert list(row) == [output.name for output in backbone.spec.outputs]
    for output in backbone.spec.outputs:
        assert row[output.name].dtype == np.float32
        assert row[output.name].shape == output.shape


@pytest.mark.parametrize("kind", ["black", "white", "grey", "noise", "one frame"])
def test_outputs_are_finite_on(backbone: VideoBackbone, kind: str) -> None:
    clip = clip_of(backbone)
    shape = clip.frames.shape
    frames = {
        "black": lambda: np.zeros(shape, np.uint8),
        "white": lambda: np.full(shape, 255, np.uint8),
        "grey": lambda: np.full(shape, 127, np.uint8),
        "noise": lambda: np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8),
        "one frame": lambda: np.repeat(clip.frames[:1], shape[0], axis=0),
    }[kind]()
    for values in extract(backbone, with_frames(clip, frames)).values():
        assert np.isfinite(values).all()


def test_different_clips_have_different_features(backbone: VideoBackbone) -> None:
    one, other = (extract(backbone, clip_of(backbone, seed=seed)) for seed in (1, 2))
    for name in one:
        assert np.abs(one[name] - other[name]).max() > 1e-3


def test_the_same_clip_twice_gives_the_same_bits(backbone: VideoBackbone) -> None:
    one, other = (extract(backbone, clip_of(backbone)) for _ in range(2))
    for name in one:
        assert one[name].tobytes() == other[name].tobytes()


def test_neighbours_in_a_batch_do_not_matter(backbone: VideoBackbone) -> None:
    clips = [clip_of(backbone, seed=1), clip_of(backbone, 70, 90, seed=2), clip_of(backbone, seed=3)]
    for alone, together in zip([extract(backbone, clip) for clip in clips], backbone.extract(clips), strict=True):
        for name in alone:
            np.testing.assert_allclose(together[name], alone[name], rtol=1e-5, atol=1e-5)


def test_the_number_of_threads_does_not_matter_beyond_1e_5(backbone: VideoBackbone) -> None:
    threads = torch.get_num_threads()
    try:
        rows = []
        for count in (1, 2):
            torch.set_num_threads(count)
            rows.append(extract(backbone, clip_of(backbone, 241, 427)))
    finally:
        torch.set_num_threads(threads)
    for name in rows[0]:
        np.testing.assert_allclose(rows[0][name], rows[1][name], rtol=1e-5, atol=1e-5)


def test_frames_are_not_changed(backbone: VideoBackbone) -> None:
    clip = clip_of(backbone)
    before = clip.frames.copy()
    extract(backbone, clip)
    np.testing.assert_array_equal(clip.frames, before)


@pytest.fixture(scope="module")
def model(backbone: VideoBackbone, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    path = tmp_path_factory.mktemp("onnx") / "backbone.onnx"
    export_module(
        backbone,
        backbone.onnx_example(),
        path,
        input_names=list(backbone.onnx_inputs()),
        output_names=[output.name for output in backbone.spec.outputs],
        dynamic_axes=backbone.onnx_inputs(),
    )
    return OnnxModel(path)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_onnxruntime_gives_what_torch_gives(backbone: VideoBackbone, model: OnnxModel, size: tuple[int, int]) -> None:
    clip = clip_of(backbone, *size)
    found = model.run(graph_inputs(model, clip))
    for output, expected in extract(backbone, clip).items():
        scaled = np.abs(found[output] - expected) / np.maximum(1, np.abs(expected))
        assert scaled.max() <= 1e-4


def test_the_graph_takes_the_frames_as_they_are(backbone: VideoBackbone) -> None:
    clip = clip_of(backbone)
    prepared = backbone.prepare(clip)
    np.testing.assert_array_equal(prepared[0].numpy(), clip.frames)
    assert len(prepared) == len(backbone.onnx_inputs()) == len(backbone.onnx_example()) == (2 if backbone.draws else 1)


def test_only_the_content_decides_what_is_random(backbone: VideoBackbone) -> None:
    clip = clip_of(backbone, 241, 427)
    one, other = extract(backbone, clip), extract(backbone, replace(clip, key="f" * 64))
    same = all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert same == (backbone.draws == 0)


def test_staged_clips_give_what_extract_gives(backbone: VideoBackbone) -> None:
    if not isinstance(backbone, BatchedBackbone):
        pytest.skip("not a batched backbone")
    clips = [clip_of(backbone, seed=1), clip_of(backbone, 70, 90, seed=2)]
    rows = backbone.run([backbone.stage(clip) for clip in clips])
    for row, expected in zip(rows, backbone.extract(clips), strict=True):
        for name in row:
            np.testing.assert_allclose(row[name], expected[name], rtol=1e-5, atol=1e-5)


def test_every_backbone_is_held_by_a_contract() -> None:
    assert set(SAME_CODE) <= set(BACKBONES.names())
    assert not set(SAME_CODE.values()) & set(SAME_CODE)

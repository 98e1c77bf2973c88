"""What every video backbone in the registry must hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vqa_train.backbones import BACKBONES
from vqa_train.backbones.base import VideoBackbone
from vqa_train.core.errors import DependencyError, WeightsError
from vqa_train.core.types import Clip, FeatureSpec
from vqa_train.onnx.export import export_module
from vqa_train.onnx.probes import probe_clip
from vqa_train.onnx.runtime import OnnxModel

SIZES = [(96, 128), (241, 427), (64, 48)]


@pytest.fixture(scope="module", params=BACKBONES.names())
def named(request: pytest.FixtureRequest) -> tuple[str, VideoBackbone]:
    try:
        return request.param, BACKBONES.get(request.param)().eval()
    except (WeightsError, DependencyError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def backbone(named: tuple[str, VideoBackbone]) -> VideoBackbone:
    return named[1]


def clip_of(backbone: VideoBackbone, height: int = 96, width: int = 128, seed: int = 1) -> Clip:
    assert backbone.spec.sampling is not None
    return probe_clip(backbone.spec.sampling.num_frames, height, width, seed)


def with_frames(clip: Clip, frames: np.ndarray) -> Clip:
    return Clip(**{**clip.__dict__, "frames": frames})


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
    assert BACKBONES.get(named[0])().spec.fingerprint == named[1].spec.fingerprint


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
    (name,) = backbone.onnx_inputs()
    found = model.run({name: backbone.prepare(clip).numpy()})
    for output, expected in extract(backbone, clip).items():
        scaled = np.abs(found[output] - expected) / np.maximum(1, np.abs(expected))
        assert scaled.max() <= 1e-4

"""Stored planes: converted on a device they are the pixels that the CPU path gives; what has none is read as RGB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from vqa_train.backbones.colour import planes_to_rgb
from vqa_train.core.types import Clip, Sampling, YuvFormat
from vqa_train.video.planes import pack, yuv_format
from vqa_train.video.probe import probe
from vqa_train.video.workers import DecodeJob, decode_many

Make = Callable[..., Path]
SAMPLING = Sampling(mode="uniform", n=6)
TAGS = {
    "untagged": ({}, YuvFormat(matrix="bt601", full_range=False)),
    "bt709": ({"colorspace": 1, "color_range": 1}, YuvFormat(matrix="bt709", full_range=False)),
    "bt709 full": ({"colorspace": 1, "color_range": 2}, YuvFormat(matrix="bt709", full_range=True)),
    "bt601": ({"colorspace": 6, "color_range": 1}, YuvFormat(matrix="bt601", full_range=False)),
    "bt2020": ({"colorspace": 9, "color_range": 1}, YuvFormat(matrix="bt2020", full_range=False)),
    "fcc full": ({"colorspace": 4, "color_range": 2}, YuvFormat(matrix="fcc", full_range=True)),
}


def colourful(count: int = 12, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Saturated colours next to one another, black and white among them."""
    rng = np.random.default_rng(3)
    blocks = rng.choice([0, 255, 30, 200, 128], (count, height // 8, width // 8, 3))
    return list(np.kron(blocks, np.ones((1, 8, 8, 1))).astype(np.uint8))


def read(path: Path, *, planar: bool, workers: int = 0) -> Clip:
    job = DecodeJob(key="0" * 64, path=path)
    [outcome] = decode_many([job], [SAMPLING], workers=workers, planar=planar)
    assert outcome.reason is None, outcome.message
    return outcome.clips[0][0]


@pytest.mark.parametrize("name", TAGS)
def test_converted_planes_are_the_pixels_of_the_cpu_path(tmp_path: Path, make_video: Make, name: str) -> None:
    tags, expected = TAGS[name]
    path = make_video(tmp_path / "clip.mp4", frames=colourful(), tags=tags)
    rgb, planes = read(path, planar=False), read(path, planar=True)
    assert rgb.yuv is None
    assert planes.yuv == expected
    assert planes.frames.shape == (6, 96 * 3 // 2, 128)
    np.testing.assert_array_equal(planes.indices, rgb.indices)
    found = planes_to_rgb(torch.from_numpy(planes.frames), expected).numpy()
    difference = np.abs(found.astype(int) - rgb.frames.astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.05


def test_another_matrix_or_range_is_told_apart(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=colourful())
    rgb, planes = read(path, planar=False), read(path, planar=True)
    for wrong in (YuvFormat(matrix="bt709", full_range=False), YuvFormat(matrix="bt601", full_range=True)):
        found = planes_to_rgb(torch.from_numpy(planes.frames), wrong).numpy()
        assert np.abs(found.astype(int) - rgb.frames.astype(int)).max() > 5


def test_workers_hand_on_the_same_planes(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=colourful())
    here, there = read(path, planar=True), read(path, planar=True, workers=1)
    assert there.yuv == here.yuv
    np.testing.assert_array_equal(there.frames, here.frames)


QUARTER = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("444.mp4", {"pix_fmt": "yuv444p"}),
        ("ten_bit.mp4", {"pix_fmt": "yuv420p10le"}),
        ("turned.mp4", {"matrix": QUARTER}),
        ("oblong.mp4", {"sar": "4/3"}),
        ("240m.mp4", {"tags": {"colorspace": 7, "color_range": 1}}),
        ("odd.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "size": (61, 83), "options": {}}),
    ],
)
def test_what_has_no_such_planes_is_read_as_rgb(
    tmp_path: Path, make_video: Make, name: str, how: dict[str, Any]
) -> None:
    path = make_video(tmp_path / name, **how)
    rgb, other = read(path, planar=False), read(path, planar=True)
    assert probe(path).yuv is None
    assert other.yuv is None
    np.testing.assert_array_equal(other.frames, rgb.frames)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_video_whose_tags_change_is_read_as_rgb(tmp_path: Path, make_video: Make, workers: int) -> None:
    parts = [
        make_video(tmp_path / f"{space}.h264", frames=colourful(6), tags={"colorspace": space, "color_range": 1})
        for space in (6, 1)
    ]
    # A raw stream may go on with another one, each with tags of its own.
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert probe(path).yuv == YuvFormat(matrix="bt601", full_range=False)
    rgb, other = read(path, planar=False), read(path, planar=True, workers=workers)
    assert other.yuv is None
    np.testing.assert_array_equal(other.frames, rgb.frames)


def test_interleaved_chroma_is_packed_like_planes(tmp_path: Path, make_video: Make) -> None:
    import av

    with av.open(str(make_video(tmp_path / "clip.mp4", frames=colourful()))) as container:
        frame = next(iter(container.decode(video=0)))
    packed = [np.empty((144, 128), np.uint8) for _ in range(2)]
    for stored, out in zip((frame, frame.reformat(format="nv12")), packed, strict=True):
        assert yuv_format(stored) == YuvFormat(matrix="bt601", full_range=False)
        pack(stored, out)
    np.testing.assert_array_equal(packed[1], packed[0])
    np.testing.assert_array_equal(packed[0], frame.to_ndarray(format="yuv420p"))


@pytest.fixture
def tiny_batched() -> ModuleType:
    import importlib

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "backbones")
        return importlib.import_module("tiny_batched")


def test_a_backbone_gives_the_same_features_for_planes(
    tmp_path: Path, make_video: Make, tiny_batched: ModuleType
) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=colourful())
    job = DecodeJob(key="0" * 64, path=path)
    backbone = tiny_batched.TinyBatched().eval()
    found = []
    for planar in (False, True):
        [outcome] = decode_many([job], [backbone.spec.sampling], workers=0, planar=planar)
        found.append(backbone.extract(outcome.clips[0])[0]["pooled"])
    np.testing.assert_allclose(found[1], found[0], atol=0.02)

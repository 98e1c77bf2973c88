"""What every decoder must do: the same pixels as PyAV's plain loop, or a refusal; never something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vqa_train.core.errors import DependencyError, MediaError, Reason
from vqa_train.video import DECODERS
from vqa_train.video.decode import Decoder, make_decoder
from vqa_train.video.probe import VideoInfo, probe

QUARTER = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]

# name -> how it is made; True where every decoder must read it, not merely refuse it.
MADE: dict[str, tuple[dict[str, Any], bool]] = {
    "plain.mp4": ({}, True),
    "plain.mkv": ({}, True),
    "several_gops.ts": ({"options": {"g": "12"}}, False),
    "bframes.avi": ({"options": {"g": "12", "bf": "3"}}, False),
    "long_gop.mp4": ({"options": {"g": "400"}}, True),
    "open_gop.mp4": ({"frames": 120, "options": {"g": "24", "x264-params": "open-gop=1:bframes=3"}}, True),
    "yuv444.mp4": ({"pix_fmt": "yuv444p"}, True),
    "odd.mp4": ({"pix_fmt": "yuv444p", "size": (61, 83)}, True),
    "odd420.avi": ({"codec": "mjpeg", "pix_fmt": "yuvj420p", "size": (61, 83)}, False),
    "ten_bit.mp4": ({"pix_fmt": "yuv420p10le"}, False),
    "bt709.mp4": ({"tags": {"colorspace": 1, "color_range": 1}}, True),
    "full_range.mp4": ({"tags": {"colorspace": 1, "color_range": 2}}, True),
    "bt2020.mp4": ({"tags": {"colorspace": 9, "color_range": 1}}, True),
    "turned.mp4": ({"matrix": QUARTER}, True),
    "oblong.mp4": ({"sar": "4/3"}, True),
    "turned_oblong.mp4": ({"sar": "4/3", "matrix": QUARTER}, True),
    "mirrored.mp4": ({"matrix": [-(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30]}, False),
    "one_frame.mp4": ({"frames": 1}, True),
    "hevc.mp4": ({"codec": "libx265", "options": {"x265-params": "log-level=none"}}, True),
    "vp9.webm": ({"codec": "libvpx-vp9", "options": {}}, True),
    "mpeg4.mp4": ({"codec": "mpeg4", "options": {}}, True),
    "mjpeg.mov": ({"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {}}, True),
    "av1.mp4": ({"codec": "libsvtav1", "options": {}}, False),
    "vfr.mp4": ({"gaps": True}, True),
}


def write(
    path: Path,
    *,
    frames: int = 40,
    size: tuple[int, int] = (60, 84),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: dict[str, int] | None = None,
    matrix: list[int] | None = None,
    sar: str | None = None,
    gaps: bool = False,
) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=24, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000) if gaps else Fraction(1, 24)
        if sar:
            stream.codec_context.sample_aspect_ratio = Fraction(sar)
        if matrix:
            stream.set_display_matrix(matrix)
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        ticks = np.cumsum(rng.integers(5, 90, frames)) if gaps else np.arange(frames)
        scene = np.kron(rng.uniform(0, 255, (12, 32, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[: size[0], i : i + size[1]]), format="rgb24")
            frame.pts, frame.time_base = int(ticks[i] - ticks[0]), stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def reference(path: Path, info: VideoInfo) -> np.ndarray:
    """All frames: PyAV's own loop, then the turn that the display matrix asks for. Not our code, but for the SAR."""
    with av.open(str(path)) as container:
        pictures = []
        for frame in container.decode(video=0):
            rgb = frame.reformat(format="rgb24")
            if info.sample_aspect_ratio != 1:
                rgb = rgb.reformat(width=round(rgb.width * info.sample_aspect_ratio), interpolation="BICUBIC")
            # The one mirrored file here is mirrored and not turned, which PyAV's `rotation` cannot tell.
            shown = rgb.to_ndarray()
            pictures.append(shown[:, ::-1] if info.mirrored else np.rot90(shown, frame.rotation // 90))
    return np.stack(pictures)


@pytest.fixture(params=DECODERS.names())
def decoder(request: pytest.FixtureRequest) -> Decoder:
    try:
        return make_decoder(request.param)
    except DependencyError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SVT_LOG", "0")

        def make(name: str) -> Path:
            path = folder / name
            return path if path.exists() else write(path, **MADE[name][0])

        yield make


@pytest.mark.parametrize("name", MADE)
def test_a_decoder_gives_the_reference_pixels_or_refuses(
    decoder: Decoder, made: Callable[[str], Path], name: str
) -> None:
    path = made(name)
    info = probe(path)
    rng = np.random.default_rng(1)
    everything = np.arange(info.num_frames)
    some = [np.sort(rng.choice(info.num_frames, min(7, info.num_frames), replace=False)) for _ in range(3)]
    must = MADE[name][1] or decoder.name == "pyav"
    for indices in (everything, *some):
        try:
            frames = decoder.read(path, info, indices.astype(np.int64), 2)
        except MediaError as error:
            assert not must, error
            assert error.reason is Reason.DECODE_ERROR
            assert "pyav" in str(error)  # the way out is named
            continue
        np.testing.assert_array_equal(frames, reference(path, info)[indices])


@pytest.mark.parametrize("clip", ["1724.mp4", "17734.mp4", "FEQ-gdkTN4Q_000008_000018.mp4"])
def test_the_shared_clips_are_pixel_identical(decoder: Decoder, shared: Path, clip: str) -> None:
    path = shared / "videos" / clip
    info = probe(path)
    with av.open(str(path)) as container:
        wanted = {0, 1, 32, 33, 34, 50, 97, info.num_frames - 1}
        expected = [f.to_ndarray(format="rgb24") for i, f in enumerate(container.decode(video=0)) if i in wanted]
    indices = np.array(sorted(wanted), np.int64)
    np.testing.assert_array_equal(decoder.read(path, info, indices, 2), np.stack(expected))


def test_frames_do_not_depend_on_the_threads(decoder: Decoder, made: Callable[[str], Path]) -> None:
    path = made("open_gop.mp4")
    info = probe(path)
    indices = np.arange(0, 40, 3)
    one, four = (decoder.read(path, info, indices, threads) for threads in (1, 4))
    np.testing.assert_array_equal(one, four)


def test_frames_go_into_the_buffer_that_is_given(decoder: Decoder, made: Callable[[str], Path]) -> None:
    path = made("plain.mp4")
    info = probe(path)
    buffer = np.zeros((2, info.height, info.width, 3), np.uint8)
    assert decoder.read(path, info, np.array([4, 30]), 1, buffer) is buffer
    np.testing.assert_array_equal(buffer, reference(path, info)[[4, 30]])


def test_no_frames_are_no_work(decoder: Decoder, made: Callable[[str], Path]) -> None:
    path = made("plain.mp4")
    assert decoder.read(path, probe(path), np.empty(0, np.int64), 1).shape == (0, 60, 84, 3)


def test_it_says_what_it_is(decoder: Decoder) -> None:
    assert decoder.name in DECODERS.names()
    assert decoder.version[0].isdigit()

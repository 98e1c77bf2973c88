"""Clips against PyAV's plain loop over all frames, and colours against the matrices of BT.601, BT.709 and BT.2020."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vqa_train.core.errors import MediaError, Reason, UsageError
from vqa_train.core.types import Sampling
from vqa_train.video import pyav
from vqa_train.video.decode import frames_buffer, read_clips
from vqa_train.video.probe import probe
from vqa_train.video.pyav import PyavDecoder, plan_runs
from vqa_train.video.sampling import decode_cost

Make = Callable[..., Path]
Every = Callable[..., np.ndarray]

MATRIX_COEFFICIENTS = {"601": (0.299, 0.114, 6), "709": (0.2126, 0.0722, 1), "2020": (0.2627, 0.0593, 9)}
PATCHES = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 130, 90], [30, 90, 160]])


def yuv444(rgb: np.ndarray, standard: str, full_range: bool, depth: int) -> av.VideoFrame:
    """A picture (H, W, 3) of R'G'B' 0-255 as 4:4:4 Y'CbCr by ITU-T H.273, equations 20 to 31."""
    kr, kb, _ = MATRIX_COEFFICIENTS[standard]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    pb, pr = (b - luma) / (2 * (1 - kb)), (r - luma) / (2 * (1 - kr))
    scale = 1 << (depth - 8)
    if full_range:
        top = (1 << depth) - 1
        planes = [top * luma, top * pb + 128 * scale, top * pr + 128 * scale]
    else:
        planes = [scale * (219 * luma + 16), scale * (224 * pb + 128), scale * (224 * pr + 128)]
    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, "yuv444p" if depth == 8 else "yuv444p10le")
    dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((height, plane.line_size // dtype.itemsize), dtype)
        rows[:, :width] = np.round(values).clip(0, (1 << depth) - 1)
        plane.update(rows.tobytes())
    return frame


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("standard", ["601", "709", "2020", "untagged"])
def test_colours_follow_the_tagged_matrix_and_range(
    tmp_path: Path, make_video: Make, standard: str, full_range: bool, depth: int
) -> None:
    patches = np.repeat(np.repeat(PATCHES[None], 32, 0), 16, 1)  # (32, 112, 3)
    # An untagged stream counts as BT.601.
    picture = yuv444(patches, "601" if standard == "untagged" else standard, full_range, depth)
    tags = {"color_range": 2 if full_range else 1}
    if standard != "untagged":
        tags["colorspace"] = MATRIX_COEFFICIENTS[standard][2]
    path = make_video(
        tmp_path / "patches.mp4",
        frames=[picture],
        size=(32, 112),
        pix_fmt=picture.format.name,
        options={"qp": "0"},
        tags=tags,
    )
    [[clip]] = read_clips(path, [Sampling(mode="uniform", n=1)])
    middles = clip.frames[0, 16, 8::16].astype(int)
    assert np.abs(middles - PATCHES).max() <= 3


def test_every_sampling_and_view_gets_its_frames_from_one_pass(
    tmp_path: Path, make_video: Make, every_frame: Every
) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=60)
    reference = every_frame(path)
    samplings = [
        Sampling(mode="uniform", n=6),
        Sampling(mode="uniform", n=3, burst=2, views=3),
        Sampling(mode="fps", rate=48, n=10),
        Sampling(mode="frame_step", step=7, n=12, short="circulant"),
    ]
    clips = read_clips(path, samplings)
    assert [len(views) for views in clips] == [1, 3, 1, 1]
    for views, sampling in zip(clips, samplings, strict=True):
        for clip in views:
            assert len(clip.indices) == sampling.num_frames
            np.testing.assert_array_equal(clip.frames, reference[clip.indices])
            np.testing.assert_allclose(clip.times, clip.indices / 24)
            assert (clip.num_frames, clip.codec, clip.width, clip.height) == (60, "h264", 128, 96)
            assert clip.decoder.startswith("pyav ")


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("closed.mp4", "libx264", {"g": "12", "bf": "3"}),
        ("open.mp4", "libx264", {"g": "24", "x264-params": "open-gop=1:bframes=3:scenecut=0"}),
        ("refresh.mp4", "libx264", {"g": "24", "intra-refresh": "1"}),
        ("one.mp4", "libx264", {"g": "400"}),
        ("hevc.mp4", "libx265", {"x265-params": "log-level=none:keyint=24:open-gop=1"}),
        ("vp9.webm", "libvpx-vp9", {"g": "24"}),
        ("mpeg4.mp4", "mpeg4", {"g": "12", "bf": "2"}),
        ("h264.mkv", "libx264", {"g": "12"}),
        ("h264.ts", "libx264", {"g": "12"}),
        ("h264.avi", "libx264", {"g": "12", "bf": "3"}),
        ("raw.h264", "libx264", {"g": "12", "bf": "3"}),
        ("mjpeg.mov", "mjpeg", {}),
    ],
)
def test_any_frames_of_any_stream_are_those_of_a_full_decode(
    tmp_path: Path,
    make_video: Make,
    every_frame: Every,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    codec: str,
    options: dict[str, str],
) -> None:
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_video(tmp_path / name, frames=240, size=(48, 64), codec=codec, options=options, pix_fmt=pix_fmt)
    reference = every_frame(path)
    info = probe(path)
    assert info.num_frames == len(reference) == 240
    passes = []
    reading = pyav._Reading.read
    monkeypatch.setattr(pyav._Reading, "read", lambda self, *args: (passes.append(1), reading(self, *args)))
    rng = np.random.default_rng(0)
    choices = [np.sort(rng.choice(240, count, replace=False)) for count in (1, 3, 20)]
    # Frames just before and after key frames: in open GOPs they are stored the other way round.
    choices += [np.clip(np.array([key - 2, key + 5]), 0, 239) for key in info.keyframes[1:4]]
    for seek_over in (0, 64, 10_000):
        monkeypatch.setattr(pyav, "_SEEK_OVER", seek_over)
        for indices in choices:
            passes.clear()
            np.testing.assert_array_equal(PyavDecoder().read(path, info, indices, 2), reference[indices])
            assert len(passes) == 1


@pytest.mark.parametrize("seek_over", [0, 10_000])
def test_no_more_is_decoded_than_the_budget_and_what_frames_refer_to(
    tmp_path: Path, make_video: Make, monkeypatch: pytest.MonkeyPatch, seek_over: int
) -> None:
    path = make_video(tmp_path / "long.mp4", frames=400, size=(48, 64), options={"g": "80", "bf": "3"})
    decoded = []
    take = pyav._Reading._take
    monkeypatch.setattr(pyav, "_SEEK_OVER", seek_over)
    monkeypatch.setattr(
        pyav._Reading, "_take", lambda self, frames, *args: (decoded.extend(frames), take(self, frames, *args))
    )
    sampling = Sampling(mode="uniform", n=4, burst=2, decode_budget=40)
    [[clip]] = read_clips(path, [sampling])
    cost = decode_cost(clip.indices, probe(path).keyframes)
    assert cost <= 40
    # B-frames refer to the one or two frames stored before them and shown after.
    assert cost <= len(decoded) <= cost + 4 * 2


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path: Path, every_frame: Every) -> None:
    path = tmp_path / "trimmed.mp4"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream: Any = container.add_stream("libx264", rate=24, options={"g": "12", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 24)
        for i in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 6 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i - 15, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    [[clip]] = read_clips(path, [Sampling(mode="uniform", n=25)])
    assert clip.num_frames == 25
    np.testing.assert_array_equal(clip.frames, every_frame(path))
    assert clip.frames[0, 0, 0, 0] == pytest.approx(6 * 15, abs=4)


def test_a_key_frame_that_is_none_costs_time_not_pixels(tmp_path: Path, make_video: Make, every_frame: Every) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=40, options={"g": "40"})
    info = dataclasses.replace(probe(path), keyframes=np.array([0, 17, 30]))
    indices = np.array([3, 20, 35])
    np.testing.assert_array_equal(PyavDecoder().read(path, info, indices, 1), every_frame(path)[indices])


def test_runs_skip_what_nobody_wants() -> None:
    runs = plan_runs(np.array([3, 5, 11, 12, 40, 41]), np.array([0, 6, 12, 30]))
    assert [(run.key, run.wanted.tolist()) for run in runs] == [(0, [3, 5, 11, 12]), (30, [40, 41])]
    runs = plan_runs(np.array([3, 20]), np.array([0, 6, 12, 18]))
    assert [(run.key, run.wanted.tolist()) for run in runs] == [(0, [3]), (18, [20])]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov"])
def test_damage_in_the_middle_is_an_error(tmp_path: Path, make_video: Make, name: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(48)]
    path = make_video(tmp_path / name, frames=noise, options={"g": "12"})
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = rng.integers(0, 255, 20_000).astype(np.uint8).tobytes()
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        read_clips(path, [Sampling(mode="frame_step", step=1, n=48)])
    assert caught.value.reason is Reason.DECODE_ERROR
    assert name in str(caught.value)


def test_a_packet_lost_on_the_way_is_an_error(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "clip.ts", frames=48, options={"g": "12", "crf": "0"})
    data = path.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    # Transport stream (ISO/IEC 13818-1, 2.4.3.2): bit 6 of byte 1 marks the packet in which a frame starts.
    middle = next(
        i for i in range(len(packets) // 2, len(packets)) if not any(p[1] & 64 for p in packets[i - 1 : i + 2])
    )
    path.write_bytes(b"".join(packets[:middle] + packets[middle + 1 :]))
    with pytest.raises(MediaError, match="is damaged") as caught:
        read_clips(path, [Sampling(mode="frame_step", step=1, n=48)])
    assert caught.value.reason is Reason.DECODE_ERROR


def test_a_packet_that_gives_no_frame_is_an_error(
    tmp_path: Path, make_video: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SVT_LOG", "0")
    path = make_video(tmp_path / "clip.mp4", codec="libsvtav1")
    with av.open(str(path)) as container:
        last = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][-1]
    position, size = last
    assert 5 <= size < 128
    data = bytearray(path.read_bytes())
    # A temporal delimiter and padding (AV1 specification, 5.3 and 5.8): valid, and nothing to show.
    data[position : position + size] = bytes([0x12, 0, 0x7A, size - 4]) + bytes(size - 4)
    path.write_bytes(data)
    with pytest.raises(MediaError, match="1 frames do not decode, the first is 23"):
        read_clips(path, [Sampling(mode="frame_step", step=1, n=24)])


def test_a_change_of_size_in_the_middle_is_an_error(tmp_path: Path, make_video: Make) -> None:
    small = make_video(tmp_path / "small.h264", frames=10, size=(48, 64))
    large = make_video(tmp_path / "large.h264", frames=10, size=(96, 128))
    path = tmp_path / "both.h264"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(MediaError, match="size changes to 128x96 at frame 10"):
        read_clips(path, [Sampling(mode="uniform", n=20)])


def test_a_file_too_short_for_the_sampling_is_named(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "short.mp4", frames=3)
    with pytest.raises(MediaError, match=r"short\.mp4.*3 frames") as caught:
        read_clips(path, [Sampling(mode="uniform", n=4, short="error")])
    assert caught.value.reason is Reason.TOO_SHORT


def test_clips_of_frames_that_lie_together_share_memory(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "clip.mp4")
    [[one], [two]] = read_clips(path, [Sampling(mode="uniform", n=4)] * 2)
    assert np.shares_memory(one.frames, two.frames)


def test_an_unknown_decoder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'pyav'"):
        read_clips(tmp_path / "any.mp4", [], decoder="pyaw")


def test_a_buffer_of_another_shape_is_refused(tmp_path: Path, make_video: Make) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=2)
    with pytest.raises(ValueError, match=r"\(1, 96, 128, 3\)"):
        frames_buffer(path, probe(path), np.array([0]), np.empty((1, 128, 96, 3), np.uint8))

"""Facts of videos against what they were made with, and files that hold less than they declare."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vqa_train.core.errors import MediaError, Reason
from vqa_train.video.probe import probe

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "known_as"),
    [
        ("h264.mp4", "libx264", "yuv420p", "h264"),
        ("h264.mkv", "libx264", "yuv420p", "h264"),
        ("h264.ts", "libx264", "yuv420p", "h264"),
        ("hevc.mp4", "libx265", "yuv420p10le", "hevc"),
        ("vp9.webm", "libvpx-vp9", "yuv420p", "vp9"),
        ("av1.mp4", "libsvtav1", "yuv420p", "av1"),
        ("mpeg4.avi", "mpeg4", "yuv420p", "mpeg4"),
        ("mjpeg.mov", "mjpeg", "yuvj420p", "mjpeg"),
        ("lossless.mkv", "ffv1", "yuv444p", "ffv1"),
    ],
)
def test_facts_of_every_codec(
    tmp_path: Path,
    make_video: Make,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    codec: str,
    pix_fmt: str,
    known_as: str,
) -> None:
    monkeypatch.setenv("SVT_LOG", "0")
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    info = probe(make_video(tmp_path / name, frames=30, fps=25, codec=codec, pix_fmt=pix_fmt, options=options))
    assert (info.codec, info.pix_fmt) == (known_as, pix_fmt)
    assert (info.width, info.height, info.num_frames) == (128, 96, 30)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration_s == pytest.approx(30 / 25, rel=1e-3)
    np.testing.assert_allclose(info.times, np.arange(30) / 25, atol=1e-3)
    assert info.keyframes[0] == 0


def test_a_stream_without_times_gets_even_ones(tmp_path: Path, make_video: Make) -> None:
    info = probe(make_video(tmp_path / "raw.h264", frames=30, fps=25))
    assert info.pts is None
    assert info.keyframes.tolist() == [0]
    np.testing.assert_allclose(info.times, np.arange(30) / 25)


def test_the_shared_clips(shared: Path) -> None:
    facts = {path.name: probe(path) for path in sorted((shared / "videos").glob("*.mp4"))}
    assert {name: (i.width, i.height, i.num_frames) for name, i in facts.items()} == {
        "1724.mp4": (406, 720, 243),
        "17734.mp4": (1280, 720, 234),
        "FEQ-gdkTN4Q_000008_000018.mp4": (192, 144, 98),
    }
    assert facts["FEQ-gdkTN4Q_000008_000018.mp4"].fps == pytest.approx(10.009)


def test_times_of_variable_frame_rate_are_exact(tmp_path: Path, make_video: Make) -> None:
    milliseconds = [0, 40, 50, 200, 210, 1000, 1033, 1066, 3000]
    info = probe(make_video(tmp_path / "vfr.mp4", frames=9, milliseconds=milliseconds))
    np.testing.assert_allclose(info.times, np.array(milliseconds) / 1000, atol=1e-9)
    assert info.duration_s == pytest.approx(3.0 * 9 / 8)
    assert info.fps == pytest.approx(9 / info.duration_s)


def test_key_frames_are_where_the_encoder_put_them(tmp_path: Path, make_video: Make) -> None:
    options = {"g": "10", "sc_threshold": "0", "bf": "3"}
    info = probe(make_video(tmp_path / "gop.mp4", frames=35, options=options))
    assert info.keyframes.tolist() == [0, 10, 20, 30]
    assert not info.open_gop


def test_open_gops_are_told(tmp_path: Path, make_video: Make) -> None:
    options = {"g": "10", "x264-params": "open-gop=1:bframes=3:b-adapt=0:scenecut=0"}
    assert probe(make_video(tmp_path / "open.mp4", frames=35, options=options)).open_gop


def test_one_frame(tmp_path: Path, make_video: Make) -> None:
    info = probe(make_video(tmp_path / "one.mp4", frames=1))
    assert info.times.tolist() == [0.0]
    assert info.duration_s == pytest.approx(1 / 24)
    assert info.fps == pytest.approx(24)


def test_odd_sizes(tmp_path: Path, make_video: Make) -> None:
    info = probe(make_video(tmp_path / "odd.mp4", frames=3, size=(427, 241), pix_fmt="yuv444p"))
    assert (info.width, info.height) == (241, 427)


def test_oblong_pixels_widen_the_picture(tmp_path: Path, make_video: Make) -> None:
    info = probe(make_video(tmp_path / "pal.mp4", sar="4/3"))
    assert info.sample_aspect_ratio == Fraction(4, 3)
    assert (info.coded_width, info.coded_height) == (128, 96)
    assert (info.width, info.height) == (171, 96)


def test_a_quarter_turn_swaps_the_sides_after_squaring_the_pixels(tmp_path: Path, make_video: Make) -> None:
    one = 1 << 16
    path = make_video(tmp_path / "phone.mp4", sar="4/3", matrix=[0, one, 0, -one, 0, 0, 0, 0, 1 << 30])
    info = probe(path)
    assert info.rotation == 90
    assert (info.width, info.height) == (96, 171)


def test_a_slanted_picture_is_refused(tmp_path: Path, make_video: Make) -> None:
    slanted = round(0.5**0.5 * (1 << 16))
    path = make_video(tmp_path / "slant.mp4", matrix=[slanted, slanted, 0, -slanted, slanted, 0, 0, 0, 1 << 30])
    with pytest.raises(MediaError, match="display matrix"):
        probe(path)


def test_sound_longer_than_the_pictures_is_no_truncation(tmp_path: Path, make_video: Make) -> None:
    for name in ("talk.mp4", "talk.mkv"):
        assert probe(make_video(tmp_path / name, frames=6, sound=True)).num_frames == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("faststart.mp4", {"movflags": "+faststart"}),
        ("fragmented.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("clip.mkv", {}),
        ("clip.avi", {}),
        ("clip.flv", {}),
    ],
)
def test_a_file_cut_anywhere_in_its_second_half_is_truncated(
    tmp_path: Path, make_video: Make, name: str, options: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(48)]
    whole = make_video(tmp_path / name, frames=noise, container_options=options)
    data = whole.read_bytes()
    assert probe(whole).num_frames == 48
    for share in (0.5, 0.6, 0.7, 0.8):
        cut = tmp_path / f"cut{whole.suffix}"
        cut.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(MediaError) as caught:
            probe(cut)
        assert caught.value.reason is Reason.TRUNCATED, share
        assert "cut" in str(caught.value)


def test_a_file_cut_between_two_frames_is_truncated(tmp_path: Path, make_video: Make) -> None:
    whole = make_video(tmp_path / "whole.mp4", frames=48, container_options={"movflags": "+faststart"})
    with av.open(str(whole)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: positions[30]])
    with pytest.raises(MediaError, match="holds 30 of the 48 frames") as caught:
        probe(cut)
    assert caught.value.reason is Reason.TRUNCATED

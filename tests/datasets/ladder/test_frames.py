from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from vqa_train.core.errors import MediaError
from vqa_train.datasets.ladder.frames import Frames, encode, encode_near_lossless, from_rgb, has_encoder, read_frames


def test_near_lossless_means_errors_that_nobody_sees(clips: dict[str, Frames]) -> None:
    for clip in clips.values():
        again = read_frames(encode_near_lossless(clip))
        error = again.luma.astype(float) - clip.luma
        assert 10 * np.log10(255**2 / np.mean(error**2)) > 42
        assert again.fps == clip.fps == 24
        assert len(again) == len(clip)


def test_grey_and_primary_colours_become_limited_range_bt601() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    pictures = [np.tile(colour, (16, 16, 1)) for colour in colours]
    frames = from_rgb(pictures, Fraction(24))
    # ITU-R BT.601, 8 bit: Y, Cb, Cr.
    expected = [(16, 128, 128), (235, 128, 128), (81, 90, 240), (41, 240, 110)]
    for t, (y, cb, cr) in enumerate(expected):
        assert abs(int(frames.luma[t, 8, 8]) - y) <= 1
        np.testing.assert_allclose(frames.chroma[t, :, 4, 4], (cb, cr), atol=1)


def test_an_odd_chroma_height_survives(clips: dict[str, Frames]) -> None:
    odd = Frames(clips["foliage-0"].luma[:, :70], clips["foliage-0"].chroma[:, :, :35], Fraction(24))
    again = read_frames(encode_near_lossless(odd))
    assert again.chroma.shape == odd.chroma.shape
    assert np.abs(again.chroma.astype(int) - odd.chroma).mean() < 2


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    with pytest.raises(MediaError, match=r"text\.mp4' cannot be decoded"):
        read_frames(text)


def test_an_encoder_that_refuses_its_options_is_an_error(clips: dict[str, Frames]) -> None:
    with pytest.raises(MediaError, match="encoder 'libx264' with"):
        encode(clips["foliage-0"], "libx264", {"preset": "no such preset"}, "mp4")


def test_encoders_are_known_by_name() -> None:
    assert has_encoder("libx264")
    assert not has_encoder("no_such_encoder")

"""A GIF cut anywhere is told from a whole one, which FFmpeg does not do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vqa_train.core.errors import MediaError, Reason
from vqa_train.video.gif import ends_with_trailer
from vqa_train.video.probe import probe

# By hand: header, screen of 1x1 with a table of two colours, a comment, one picture with a local table, trailer.
HEADER = b"GIF89a" + bytes([1, 0, 1, 0, 0x80, 0, 0]) + bytes(6)
COMMENT = b"\x21\xfe" + b"\x03;;;" + b"\x00"
PICTURE = b"\x2c" + bytes([0, 0, 0, 0, 1, 0, 1, 0, 0x80]) + bytes(6) + b"\x02" + b"\x02\x44\x01" + b"\x00"
WHOLE = HEADER + COMMENT + PICTURE + b"\x3b"


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "made.gif"
        path.write_bytes(data)
        return path

    return write


def test_whole_until_the_last_byte(written: Callable[[bytes], Path]) -> None:
    assert ends_with_trailer(written(WHOLE))
    assert ends_with_trailer(written(WHOLE + b"something behind it"))
    for cut in range(len(WHOLE)):
        assert not ends_with_trailer(written(WHOLE[:cut])), cut


def test_an_unknown_block_is_damage_and_no_cut(written: Callable[[bytes], Path]) -> None:
    assert ends_with_trailer(written(HEADER + b"\x99" + PICTURE))


def test_a_cut_gif_is_truncated_wherever_it_is_cut(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "whole.gif", frames=3, size=(24, 32), codec="gif", pix_fmt="rgb8")
    assert probe(path).num_frames == 3
    data = path.read_bytes()
    for cut in range(len(data) // 2, len(data), 97):
        path.write_bytes(data[:cut])
        with pytest.raises(MediaError) as caught:
            probe(path)
        assert caught.value.reason is Reason.TRUNCATED

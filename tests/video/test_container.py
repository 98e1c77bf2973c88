"""Files that are no videos, or no files: each gives its reason code and one line that names the file."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import FFmpegError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.types import Sampling
from vqa_train.video.container import check_file, open_video
from vqa_train.video.decode import read_clips
from vqa_train.video.probe import probe


def reason_and_line(path: Path) -> tuple[Reason | None, str]:
    with pytest.raises(MediaError) as caught:
        probe(path)
    line = str(caught.value)
    assert path.name in line
    assert "\n" not in line
    return caught.value.reason, line


def test_a_missing_file(tmp_path: Path) -> None:
    assert reason_and_line(tmp_path / "no such.mp4")[0] is Reason.MISSING_FILE


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert reason_and_line(tmp_path / "file" / "clip.mp4")[0] is Reason.MISSING_FILE


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert reason_and_line(path)[0] is Reason.EMPTY_FILE


def test_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder.mp4"
    path.mkdir()
    reason, line = reason_and_line(path)
    assert reason is Reason.UNREADABLE
    assert "folder" in line


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "fifo.mp4"
    os.mkfifo(path)
    assert reason_and_line(path)[0] is Reason.UNREADABLE


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
        assert reason_and_line(tmp_path / "socket.mp4")[0] is Reason.UNREADABLE


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads files of any mode")
def test_a_file_without_read_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason_and_line(path)[0] is Reason.UNREADABLE


def test_a_link_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "loop.mp4"
    path.symlink_to(path)
    assert reason_and_line(path)[0] is Reason.UNREADABLE


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    assert reason_and_line(tmp_path / ("long" * 100 + ".mp4"))[0] is Reason.UNREADABLE


def test_a_name_with_a_null_byte(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        check_file(tmp_path / "a\0b.mp4")
    assert caught.value.reason is Reason.UNREADABLE


def test_text_renamed_to_mp4(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("Dear diary, this is no video.\n" * 50)
    assert reason_and_line(path)[0] is Reason.DECODE_ERROR


def test_an_mp4_without_its_index_is_called_truncated(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    whole = make_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    reason, line = reason_and_line(path)
    assert reason is Reason.TRUNCATED
    assert "moov" in line


def test_an_mp4_cut_inside_its_index_is_called_truncated(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    whole = make_video(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: whole.index(b"moov") + 40])
    assert reason_and_line(path)[0] is Reason.TRUNCATED


def test_sound_without_pictures(tmp_path: Path) -> None:
    import av
    import numpy as np

    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert reason_and_line(path)[0] is Reason.NO_VIDEO_STREAM


def test_cover_art_is_no_video_stream(tmp_path: Path) -> None:
    import av
    import numpy as np
    from av.stream import Disposition

    path = tmp_path / "album.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=48000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.rate = 48000
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode())
        container.mux(audio.encode(frame))
        container.mux(audio.encode())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert reason_and_line(path)[0] is Reason.NO_VIDEO_STREAM


def test_a_playlist_opens_no_other_file(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "other.mp4")
    script = tmp_path / "script.mp4"
    script.write_text("ffconcat version 1.0\nfile other.mp4\n")
    assert reason_and_line(script)[0] is Reason.DECODE_ERROR
    make_video(tmp_path / "other.ts")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n")
    assert reason_and_line(playlist)[0] is Reason.DECODE_ERROR


def test_a_name_like_an_address_is_a_file_name(
    tmp_path: Path, make_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = make_video(tmp_path / "plain.mp4")
    path = Path("concat:plain.mp4")
    path.write_bytes(plain.read_bytes()[:100])
    with pytest.raises(MediaError), open_video(path):
        pass
    path.write_bytes(plain.read_bytes())
    with open_video(path) as (container, _):
        assert container.name.endswith("/concat:plain.mp4")


def test_a_name_with_spaces_and_other_alphabets(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = tmp_path / "Ünïcode 视频 %03d #1 'q'.mp4"
    plain = make_video(tmp_path / "plain.mp4")
    path.write_bytes(plain.read_bytes())
    assert probe(path).num_frames == 24


def test_a_picture_over_the_limit(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "clip.mp4")
    assert probe(path, max_pixels=96 * 128).width == 128
    with pytest.raises(MediaError, match="128x96 pixels, over the limit of 12287") as caught:
        probe(path, max_pixels=96 * 128 - 1)
    assert caught.value.reason is Reason.TOO_LARGE


def test_oblong_pixels_count_towards_the_limit(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    path = make_video(tmp_path / "wide.mp4", sar="4/3")
    with pytest.raises(MediaError, match="shown with 171x96") as caught:
        probe(path, max_pixels=100 * 128)
    assert caught.value.reason is Reason.TOO_LARGE


def huge_gif(path: Path, make_video: Callable[..., Path]) -> None:
    """A few hundred bytes whose screen is 12000 x 10000."""
    data = make_video(path, frames=2, size=(24, 32), codec="gif", pix_fmt="rgb8").read_bytes()
    path.write_bytes(data[:6] + struct.pack("<HH", 12000, 10000) + data[10:])


def huge_mjpeg(path: Path, make_video: Callable[..., Path]) -> None:
    """A picture whose JPEG header says 12000 x 10000; the container's does not. FFmpeg wants 470 kB for that size."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    options = {"qmin": "1", "qmax": "1"}
    data = make_video(
        path, frames=[noise], size=(1024, 1024), codec="mjpeg", pix_fmt="yuvj420p", options=options
    ).read_bytes()
    size = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 1024, 1024)
    assert (data.count(size), len(data) > 470_000) == (1, True)
    path.write_bytes(data.replace(size, size[:5] + struct.pack(">HH", 10000, 12000)))


def huge_y4m(path: Path, _: Callable[..., Path]) -> None:
    """A header without a picture."""
    path.write_bytes(b"YUV4MPEG2 W12000 H10000 F25:1 C420\nFRAME\n" + bytes(100))


@pytest.mark.parametrize(("make", "name"), [(huge_gif, "a.gif"), (huge_mjpeg, "a.avi"), (huge_y4m, "a.y4m")])
def test_a_small_file_that_claims_a_huge_picture_is_too_large(
    tmp_path: Path, make_video: Callable[..., Path], make: Callable[..., None], name: str
) -> None:
    make(tmp_path / name, make_video)
    reason, line = reason_and_line(tmp_path / name)
    assert (reason, "12000x10000 pixels, over the limit of 67108864" in line) == (Reason.TOO_LARGE, True), line


def test_damage_that_ffmpeg_reports_as_an_error_of_the_system_is_damage(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    path = tmp_path / "a.mkv"
    whole = make_video(path, frames=3).read_bytes()
    taken_for_the_system = 0
    for at in range(0, 400, 2):
        path.write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
        try:
            with av.open(str(path)):
                pass
        except FFmpegError as error:
            taken_for_the_system += isinstance(error, OSError)
        try:
            probe(path)
        except MediaError as error:
            assert error.reason is not Reason.UNREADABLE, (at, str(error))
    assert taken_for_the_system


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["mp4", "mkv", "avi", "ts"]), changes=st.dictionaries(st.floats(0, 1), st.binary(min_size=1))
)
def test_any_changed_bytes_give_clips_or_one_line(
    tmp_path: Path, make_video: Callable[..., Path], kind: str, changes: dict[float, bytes]
) -> None:
    whole = tmp_path / f"whole.{kind}"
    data = bytearray((whole if whole.exists() else make_video(whole)).read_bytes())
    for place, content in changes.items():
        at = int(place * len(data))
        data[at : at + len(content)] = content
    path = tmp_path / f"changed.{kind}"
    path.write_bytes(data)
    try:
        [[clip]] = read_clips(path, [Sampling(mode="uniform", n=3)], threads=1, max_pixels=1 << 20)
        assert clip.frames.shape == (3, clip.height, clip.width, 3)
    except MediaError as error:
        assert error.reason is not None
        assert "\n" not in str(error)

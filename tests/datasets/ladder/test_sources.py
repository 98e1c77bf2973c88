from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from vqa_train.core.errors import ManifestError, MediaError
from vqa_train.datasets.ladder import LadderConfig
from vqa_train.datasets.ladder.sources import Source, find_sources, read_source

WriteVideo = Callable[..., Path]
SMALL = LadderConfig(scenes=0, seconds=1.0, size=(128, 96))


def test_files_come_first_then_scenes_and_same_bytes_once(tmp_path: Path, write_video: WriteVideo) -> None:
    first = write_video(tmp_path / "a b.mp4")
    shutil.copy(first, tmp_path / "copy.mp4")
    write_video(tmp_path / "sub" / "a b.mp4", seed=1)
    (tmp_path / "README.md").write_text("not a clip")
    sources, refused = find_sources(tmp_path, LadderConfig(scenes=2))
    assert refused == {}
    assert [source.path.name if source.path else None for source in sources] == ["a b.mp4", "a b.mp4", None, None]
    assert len({source.id for source in sources}) == 4
    assert sources[0].id == f"a-b-{sources[0].sha256[:8]}"  # type: ignore[index]
    assert sources[2] == Source("foliage-0")


def test_no_source_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no source for a ladder"):
        find_sources(tmp_path, LadderConfig(scenes=0))


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        find_sources(tmp_path / "absent", LadderConfig())


def test_the_middle_is_taken_at_the_clip_s_own_rate(tmp_path: Path, write_video: WriteVideo) -> None:
    path = write_video(tmp_path / "v.mp4", frames=60, fps=20, options={"crf": "4", "g": "25"})
    clip = read_source(Source("v", path), SMALL)
    assert clip.fps == 20
    assert len(clip) == 20
    with av.open(str(path)) as container:
        luma = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    # 3 s at 20 fps; the middle second begins at frame 20. The test clip moves by a pixel a frame.
    for t in (0, 19):
        errors = [np.abs(frame.astype(float) - clip.luma[t] * 1.0).mean() for frame in luma]
        assert int(np.argmin(errors)) == 20 + t


def test_a_large_clip_is_scaled_down_to_fit_and_keeps_its_shape(tmp_path: Path, write_video: WriteVideo) -> None:
    wide = read_source(Source("w", write_video(tmp_path / "w.mp4", size=(144, 256))), SMALL)
    assert wide.luma.shape[1:] == (72, 128)
    upright = read_source(Source("u", write_video(tmp_path / "u.mp4", size=(256, 192))), SMALL)
    assert upright.luma.shape[1:] == (128, 96)


def test_a_small_clip_is_not_enlarged(tmp_path: Path, write_video: WriteVideo) -> None:
    clip = read_source(Source("s", write_video(tmp_path / "s.mp4", size=(72, 84))), SMALL)
    assert clip.luma.shape[1:] == (72, 84)


def test_a_clip_shorter_than_asked_for_is_taken_whole(tmp_path: Path, write_video: WriteVideo) -> None:
    assert len(read_source(Source("s", write_video(tmp_path / "s.mp4", frames=10)), SMALL)) == 10


@pytest.mark.parametrize(
    ("frames", "size", "message"), [(2, (96, 128), "fewer than four frames"), (24, (48, 48), "under 64")]
)
def test_a_clip_too_short_or_too_small_is_refused(
    tmp_path: Path, write_video: WriteVideo, frames: int, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(MediaError, match=message):
        read_source(Source("s", write_video(tmp_path / "s.mp4", frames=frames, size=size)), SMALL)


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("not a video")
    with pytest.raises(MediaError, match=r"text\.mp4' cannot be decoded"):
        read_source(Source("t", path), SMALL)


def test_ten_bit_444_and_gaps_in_time_are_taken(tmp_path: Path, write_video: WriteVideo) -> None:
    path = write_video(
        tmp_path / "ten.mp4", codec="libx265", pix_fmt="yuv444p10le", options={"x265-params": "log-level=none"}
    )
    clip = read_source(Source("ten", path), SMALL)
    assert clip.luma.dtype == np.uint8
    assert clip.luma.shape == (24, 96, 128)


def test_the_real_clips_become_sources(shared: Path) -> None:
    sources, _ = find_sources(shared / "videos", LadderConfig(scenes=0, seconds=0.5, size=(320, 180)))
    shapes = [read_source(source, LadderConfig(seconds=0.5, size=(320, 180))).luma.shape for source in sources]
    # Upright 406x720, 1280x720, and 192x144 at 10 fps.
    assert shapes == [(15, 320, 180), (15, 180, 320), (5, 144, 192)]

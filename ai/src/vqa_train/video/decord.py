"""Decoder on decord 0.6.0 (2021, FFmpeg 4): gives the pixels that PyAV gives or refuses, never differs silently."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import DependencyError, MediaError, Reason
from vqa_train.video.container import named
from vqa_train.video.decode import frames_buffer
from vqa_train.video.display import to_display
from vqa_train.video.probe import VideoInfo

# Formats that decord's swscale turns into the same RGB as today's; it differs where chroma must be interpolated.
_SAME_RGB = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "gray8", "bgr0"}
_EVEN_HEIGHT = {"yuv420p", "yuvj420p"}
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
_SAME_TIME_S = 2e-3
_CHUNK_BYTES = 64 * 1024 * 1024


class DecordDecoder:
    """See `vqa_train.video.decode.Decoder`."""

    name = "decord"

    def __init__(self) -> None:
        try:
            self.version = version("decord")
        except PackageNotFoundError as error:
            raise DependencyError(
                "decoder 'decord' needs the package 'decord', which is not installed",
                hint="pip install 'vqa-train[backbones]', or use the decoder 'pyav'",
            ) from error

    def read(
        self,
        path: Path,
        info: VideoInfo,
        indices: NDArray[np.int64],
        threads: int,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """See `Decoder.read`; what decord would get wrong is refused with DECODE_ERROR."""
        _refuse_what_differs(path, info)
        frames = frames_buffer(path, info, indices, out)
        if len(indices) == 0:
            return frames
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(path.absolute()), num_threads=threads)
            _check_times(path, info, reader)
            if info.open_gop:
                _read_in_order(reader, info, indices, frames)
            else:
                _read_batches(reader, info, indices, frames)
        except decord.DECORDError as error:
            # Its messages begin with times and source lines of its own build.
            problem = re.sub(r"(\[[\d:]+\] \S+:\d+: )+", "", (str(error).splitlines() or [""])[0])
            raise MediaError(
                f"{named(path)}: decord cannot decode it: {problem[:200]}",
                hint="the decoder 'pyav' may",
                reason=Reason.DECODE_ERROR,
            ) from error
        return frames


def _refuse_what_differs(path: Path, info: VideoInfo) -> None:
    problem = None
    if info.container not in _CONTAINERS:
        problem = f"{info.container} containers, where it may drop frames"
    elif info.video_streams > 1:
        problem = "files with several video streams, of which it may pick another"
    elif info.pix_fmt not in _SAME_RGB or (info.pix_fmt in _EVEN_HEIGHT and info.coded_height % 2):
        problem = f"{info.pix_fmt} of height {info.coded_height}, which it converts to other colours"
    elif info.mirrored or (info.rotation and not info.container.startswith("mov")):
        problem = "a mirrored picture, or a rotation outside MP4"
    elif info.pts is None:
        problem = "streams without times"
    if problem is not None:
        raise _refusal(path, problem)


def _check_times(path: Path, info: VideoInfo, reader: Any) -> None:
    if len(reader) != info.num_frames:
        raise _refusal(path, f"this file, of whose {info.num_frames} frames it finds {len(reader)}")
    times = np.asarray(reader.get_frame_timestamp(list(range(len(reader)))))[:, 0].astype(np.float64)
    if not np.allclose(times - times[0], info.times, rtol=0, atol=_SAME_TIME_S):
        raise _refusal(path, "this file, whose frame times it misreads")


def _refusal(path: Path, problem: str) -> MediaError:
    return MediaError(
        f"{named(path)}: decord cannot be trusted with {problem}",
        hint="use the decoder 'pyav'",
        reason=Reason.DECODE_ERROR,
    )


def _read_batches(reader: Any, info: VideoInfo, indices: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
    # get_batch holds all its frames at once, so ask for a few at a time.
    size = max(1, _CHUNK_BYTES // (info.coded_width * info.coded_height * 3))
    for begin in range(0, len(indices), size):
        chunk = indices[begin : begin + size].tolist()
        for slot, picture in enumerate(reader.get_batch(chunk).asnumpy(), begin):
            frames[slot] = _shown(picture, info)


def _read_in_order(reader: Any, info: VideoInfo, indices: NDArray[np.int64], frames: NDArray[np.uint8]) -> None:
    """Every frame from the first on: in open GOPs decord's seek and skip_frames give wrong ones."""
    slots = {int(index): slot for slot, index in enumerate(indices)}
    for index in range(int(indices[-1]) + 1):
        picture = reader.next()
        if index in slots:
            frames[slots[index]] = _shown(picture.asnumpy(), info)


def _shown(picture: NDArray[np.uint8], info: VideoInfo) -> NDArray[np.uint8]:
    """decord turns pictures but keeps oblong pixels: turn back, then treat them as every decoder does."""
    if info.rotation == 0 and info.sample_aspect_ratio == 1:
        return picture
    stored = np.ascontiguousarray(np.rot90(picture, info.rotation // 90))
    return to_display(av.VideoFrame.from_ndarray(stored, format="rgb24"), info)

"""Frames of a clip as planar 4:2:0 arrays, and their way from and to video files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.codec
import av.codec.context
import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, Reason

Plane = NDArray[np.uint8]


@dataclass(frozen=True)
class Frames:
    """A decoded clip.

    Attributes:
        luma: uint8 (T, H, W), limited range 16-235; H and W are even.
        chroma: uint8 (T, 2, H / 2, W / 2), Cb and Cr, 128 is grey.
        fps: frames per second, constant.
    """

    luma: Plane
    chroma: Plane
    fps: Fraction

    def __len__(self) -> int:
        return len(self.luma)


def read_frames(file: Path | bytes) -> Frames:
    """Every frame of a file that `encode` made, in presentation order; the file itself or its bytes.

    Raises:
        MediaError: it cannot be decoded or holds no frame.
    """
    name = "encoded clip" if isinstance(file, bytes) else repr(str(file))
    try:
        with av.open(io.BytesIO(file) if isinstance(file, bytes) else str(file), "r") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            packed = [frame.to_ndarray(format="yuv420p") for frame in container.decode(stream)]
    except (av.FFmpegError, IndexError) as error:
        raise MediaError(f"{name} cannot be decoded: {error}", reason=Reason.DECODE_ERROR) from error
    if not packed:
        raise MediaError(f"{name} holds no frame", reason=Reason.TOO_SHORT)
    return unpack(packed, Fraction(rate))


def from_rgb(pictures: Iterable[Plane], fps: Fraction) -> Frames:
    """Frames from RGB pictures, uint8 (H, W, 3), by the BT.601 matrix in limited range."""
    frames = (av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures)
    return unpack((frame.reformat(format="yuv420p", threads=1).to_ndarray() for frame in frames), fps)


def unpack(packed: Iterable[NDArray[Any]], fps: Fraction) -> Frames:
    """Frames from PyAV's yuv420p arrays, each uint8 (H * 3 / 2, W)."""
    stack = np.stack(list(packed))
    count, rows, width = stack.shape
    height = rows * 2 // 3
    chroma = stack[:, height:].reshape(count, 2, height // 2, width // 2)
    return Frames(np.ascontiguousarray(stack[:, :height]), np.ascontiguousarray(chroma), fps)


def to_video_frame(frames: Frames, index: int) -> av.VideoFrame:
    """Frame `index` as PyAV's yuv420p."""
    height, width = frames.luma.shape[1:]
    packed = np.concatenate([frames.luma[index], frames.chroma[index].reshape(height // 2, width)])
    return av.VideoFrame.from_ndarray(packed, format="yuv420p")


def encode(frames: Frames, codec: str, options: Mapping[str, str], container: str) -> bytes:
    """The bytes of a video file; the same frames and options give the same bytes.

    Args:
        codec: FFmpeg's encoder name; `options` are its private options.
        container: "mp4" or "webm".

    Raises:
        MediaError: the encoder refuses.
    """
    buffer = io.BytesIO()
    height, width = frames.luma.shape[1:]
    try:
        # bitexact: no random track ids and no library version in the file.
        with av.open(buffer, "w", format=container, container_options={"fflags": "+bitexact"}) as output:
            stream = output.add_stream(codec, rate=frames.fps, options={"threads": "1", **options})
            if not isinstance(stream, av.VideoStream):
                raise MediaError(f"encoder {codec!r} is not for video")
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.flags |= av.codec.context.Flags.bitexact
            for index in range(len(frames)):
                frame = to_video_frame(frames, index)
                frame.pts, frame.time_base = index, 1 / frames.fps
                output.mux(stream.encode(frame))
            output.mux(stream.encode())
    except av.FFmpegError as error:
        raise MediaError(f"encoder {codec!r} with {dict(options)} failed: {error}") from error
    return buffer.getvalue()


def has_encoder(codec: str) -> bool:
    """Whether this FFmpeg was built with the encoder."""
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


PRISTINE_CODEC = "libx264"
PRISTINE_OPTIONS: Mapping[str, str] = {"crf": "12", "preset": "veryfast", "mbtree": "0"}


def encode_near_lossless(frames: Frames) -> bytes:
    """An mp4 whose own loss is invisible: x264 at CRF 12."""
    return encode(frames, PRISTINE_CODEC, PRISTINE_OPTIONS, "mp4")

"""What a video is, read by demuxing: exact frame times, key frames, size as displayed. One frame is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.types import YuvFormat
from vqa_train.video.container import DEFAULT_MAX_PIXELS, check_size, named, open_video, read_packets
from vqa_train.video.display import displayed_size, orientation
from vqa_train.video.gif import ends_with_trailer
from vqa_train.video.planes import yuv_format

_TOLERANCE_S = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """Facts of one video.

    Attributes:
        width, height: pixels as displayed: square pixels, after rotation.
        coded_width, coded_height: pixels as stored.
        fps: average frames per second, num_frames / duration_s.
        num_frames: frames that a player shows, in presentation order.
        duration_s: seconds from the first frame to the end of the last, which is taken to last as long as
            the mean frame.
        codec: FFmpeg's name of the codec, e.g. "h264".
        pix_fmt: FFmpeg's name of the stored pixel format, e.g. "yuv420p10le".
        rotation: degrees clockwise (0, 90, 180, 270) that a player turns the stored picture.
        mirrored: whether a player mirrors it left-right before turning.
        sample_aspect_ratio: width / height of a stored pixel.
        times: float64 (N,), seconds from the first frame, ascending.
        keyframes: int64 (K,), indices in presentation order from which decoding can start; the first is 0.
        pts: int64 (N,), presentation times in the stream's time base; None where the container has none that
            tell frames apart (raw streams, AVI with B-frames): decoding then starts at frame 0 and counts.
        open_gop: some frame shown before a later key frame is stored after it.
        container: FFmpeg's name of the container format.
        video_streams: video streams in the file, cover art included.
        yuv: what the stored planes mean, where they can be handed on as they are: 8-bit 4:2:0, upright, square pixels.
    """

    width: int
    height: int
    coded_width: int
    coded_height: int
    fps: float
    num_frames: int
    duration_s: float
    codec: str
    pix_fmt: str
    rotation: int
    mirrored: bool
    sample_aspect_ratio: Fraction
    times: NDArray[np.float64]
    keyframes: NDArray[np.int64]
    pts: NDArray[np.int64] | None
    open_gop: bool
    container: str
    video_streams: int
    yuv: YuvFormat | None


@dataclass
class _Packets:
    """Packets of the video stream in storage order; per stream, the earliest start and the latest end of a packet."""

    pts: list[int | None]
    keys: list[bool]
    shown: list[bool]
    last_duration: int
    last_corrupt: bool
    spans: dict[int, tuple[int, int]]
    frame: av.VideoFrame | None


def probe(path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> VideoInfo:
    """Facts of the video at `path`.

    Args:
        path: a local file.
        max_pixels: pictures with more pixels, as stored or as displayed, are refused.

    Raises:
        MediaError: MISSING_FILE, UNREADABLE, EMPTY_FILE, NO_VIDEO_STREAM, TOO_LARGE, TRUNCATED, DECODE_ERROR.
    """
    with open_video(path, max_pixels) as (container, stream):
        expected = len(stream.index_entries) if container.format.name.startswith("mov") else 0
        packets = _demux(path, container, stream)
        _check_whole(path, container, stream, packets, expected)
        if packets.frame is None:
            check_size(path, max_pixels)
            raise MediaError(f"{named(path)} has no frame that FFmpeg can decode", reason=Reason.DECODE_ERROR)
        return _info(path, container, stream, packets, packets.frame, max_pixels)


def _demux(path: Path, container: InputContainer, stream: VideoStream) -> _Packets:
    found = _Packets([], [], [], 0, False, {}, None)
    # One thread: a frame comes out as soon as its packets are in, so little more than one frame is decoded.
    stream.codec_context.thread_count = 1
    for packet in _read(path, container):
        index, pts = packet.stream_index, packet.pts
        time = pts if pts is not None else packet.dts
        if time is not None:
            start, end = found.spans.get(index, (time, time))
            found.spans[index] = min(start, time), max(end, time + (packet.duration or 0))
        if index != stream.index:
            continue
        if found.frame is None:
            found.frame = _first_frame(stream, packet)
        found.pts.append(pts)
        found.keys.append(packet.is_keyframe)
        found.shown.append(not packet.is_discard)
        found.last_corrupt = packet.is_corrupt
        found.last_duration = packet.duration or 0
    if found.frame is None:
        found.frame = _first_frame(stream, None)
    return found


def _read(path: Path, container: InputContainer) -> Iterator[Packet[Any]]:
    try:
        yield from read_packets(container)
    except FFmpegError as error:
        raise MediaError(
            f"{named(path)} stops being readable part of the way: FFmpeg says {error.strerror!r}",
            hint="copy or download it again",
            reason=Reason.TRUNCATED,
        ) from error


def _first_frame(stream: VideoStream, packet: Packet[Any] | None) -> av.VideoFrame | None:
    """The first frame that comes out when `packet` goes in; None stands for the end of the stream."""
    try:
        frames = stream.codec_context.decode(packet)
    except FFmpegError as error:
        if isinstance(error, MemoryError):
            raise
        # Damage is reported when the frames are read; here a later packet may still give the facts.
        return None
    return frames[0] if frames else None


def _check_whole(path: Path, container: InputContainer, stream: VideoStream, packets: _Packets, expected: int) -> None:
    """Refuse a file that holds less than its header declares."""
    found = len(packets.pts)
    if found < expected:
        lack = f"holds {found} of the {expected} frames in its index"
    elif packets.last_corrupt:
        lack = f"ends inside its last frame (number {found})"
    elif container.format.name == "gif" and not ends_with_trailer(path):
        lack = f"ends after {found} frames without the mark that ends a GIF"
    else:
        span = _seconds(container, packets)
        declared = _declared_seconds(container, stream)
        if span >= declared - max(_TOLERANCE_S, 0.02 * declared):
            return
        lack = f"holds {span:.2f} of the {declared:.2f} seconds that its header declares"
    raise MediaError(f"{named(path)} is cut short: it {lack}", hint="copy it again", reason=Reason.TRUNCATED)


def _seconds(container: InputContainer, packets: _Packets) -> float:
    """From the start of the first packet of any stream to the end of the last."""
    bases = {stream.index: float(stream.time_base or 0) for stream in container.streams}
    starts = [start * bases.get(index, 0.0) for index, (start, _) in packets.spans.items()]
    ends = [end * bases.get(index, 0.0) for index, (_, end) in packets.spans.items()]
    return max(ends) - min(starts) if ends else 0.0


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Seconds that the header itself declares; 0 where FFmpeg only estimates them from the packets."""
    if container.format.name == "matroska,webm" and container.duration:
        return container.duration / av.time_base
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    return 0.0


def _info(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    packets: _Packets,
    frame: av.VideoFrame,
    max_pixels: int,
) -> VideoInfo:
    turn = orientation(frame)
    if turn is None:
        raise MediaError(
            f"{named(path)} has a display matrix that is no turn by 90, 180 or 270 degrees",
            hint="re-encode it upright",
            reason=Reason.DECODE_ERROR,
        )
    sar = Fraction(stream.sample_aspect_ratio or 1)
    sar = sar if sar > 0 else Fraction(1)
    width, height = displayed_size(frame.width, frame.height, sar, turn[0])
    if width * height > max_pixels:
        raise MediaError(
            f"{named(path)} is shown with {width}x{height} pixels, over the limit of {max_pixels}",
            reason=Reason.TOO_LARGE,
        )
    pts, keyframes, open_gop = _presentation_order(packets)
    if len(pts) == 0:
        raise MediaError(f"{named(path)} has no frame that a player shows", reason=Reason.DECODE_ERROR)
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    ticks: NDArray[np.int64] | None = None
    times = np.arange(len(pts)) / rate
    if stream.time_base is not None and None not in pts:
        ticks = np.array(pts, np.int64)
        times = (ticks - ticks[0]) * stream.time_base.numerator / stream.time_base.denominator
    # AVI stores no presentation times: with B-frames, what FFmpeg makes up for them is in storage order.
    reordered = container.format.name == "avi" and stream.codec_context.has_b_frames
    if reordered or len(set(pts)) < len(pts) or ticks is None:
        ticks, keyframes = None, [0]
    if len(times) > 1:
        duration = float(times[-1]) * len(times) / (len(times) - 1)
    else:
        duration = float(packets.last_duration * (stream.time_base or 0)) or 1 / rate
    if duration <= 0:
        raise MediaError(f"{named(path)} shows all its frames at one time", reason=Reason.DECODE_ERROR)
    return VideoInfo(
        width=width,
        height=height,
        coded_width=frame.width,
        coded_height=frame.height,
        fps=len(times) / duration,
        num_frames=len(times),
        duration_s=duration,
        codec=stream.codec_context.codec.canonical_name,
        pix_fmt=frame.format.name,
        rotation=turn[0],
        mirrored=turn[1],
        sample_aspect_ratio=sar,
        times=times,
        keyframes=np.array(keyframes, np.int64),
        pts=ticks,
        open_gop=open_gop,
        container=container.format.name,
        video_streams=len(container.streams.video),
        yuv=yuv_format(frame) if turn == (0, False) and width == frame.width else None,
    )


def _presentation_order(packets: _Packets) -> tuple[list[int | None], list[int], bool]:
    """(times of the shown frames in order, indices of key frames, whether a GOP is open).

    What precedes the first key frame, in storage or on screen, cannot be decoded and does not count.
    """
    first = packets.keys.index(True) if True in packets.keys else 0
    start = packets.pts[first]
    rows = [
        (pts, key)
        for pts, key, shown in zip(packets.pts[first:], packets.keys[first:], packets.shown[first:], strict=True)
        if shown and not (pts is not None and start is not None and pts < start)
    ]
    if any(pts is None for pts, _ in rows):
        return [pts for pts, _ in rows], [0], True
    open_gop, key_pts = False, start
    for pts, key in rows:
        if key:
            key_pts = pts
        elif pts is not None and key_pts is not None and pts < key_pts:
            open_gop = True
    rows.sort(key=lambda row: row[0] or 0)
    keyframes = [i for i, (_, key) in enumerate(rows) if key or i == 0]
    return [pts for pts, _ in rows], keyframes, open_gop

"""Decoder on PyAV, whose wheels carry a current FFmpeg: decodes from the nearest key frame, checks every frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, Reason
from vqa_train.video.container import DEFAULT_MAX_PIXELS, named, open_video, read_packets
from vqa_train.video.decode import PlanesChangeError, frames_buffer
from vqa_train.video.display import to_display
from vqa_train.video.planes import pack, yuv_format
from vqa_train.video.probe import VideoInfo

# Seeking costs about as much as demuxing this many packets.
_SEEK_OVER = 64
# Containers with an index of key frames; elsewhere FFmpeg searches by time and may land behind the one asked for.
_INDEXED = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


@dataclass(frozen=True)
class Run:
    """Frames decoded in one go: from key frame `key` (0: from the start of the stream) to the last of `wanted`."""

    key: int
    wanted: NDArray[np.int64]


def plan_runs(indices: NDArray[np.int64], keyframes: NDArray[np.int64]) -> list[Run]:
    """Split ascending `indices` so that no frame is decoded between one wanted frame and a later key frame."""
    keys = keyframes[np.searchsorted(keyframes, indices, "right") - 1]
    runs: list[Run] = []
    for key in np.unique(keys):
        wanted = indices[keys == key]
        if runs and key <= runs[-1].wanted[-1] + 1:
            runs[-1] = Run(runs[-1].key, np.concatenate([runs[-1].wanted, wanted]))
        else:
            runs.append(Run(int(key), wanted))
    return runs


class PyavDecoder:
    """See `vqa_train.video.decode.Decoder`."""

    name = "pyav"
    hwaccel: HWAccel | None = None

    def __init__(self) -> None:
        self.version = f"{av.__version__} (FFmpeg {av.ffmpeg_version_info})"

    def read(
        self,
        path: Path,
        info: VideoInfo,
        indices: NDArray[np.int64],
        threads: int,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """See `Decoder.read`."""
        frames = frames_buffer(path, info, indices, out)
        self._read(_RgbReading, path, info, indices, threads, frames)
        return frames

    def read_planes(
        self, path: Path, info: VideoInfo, indices: NDArray[np.int64], threads: int, out: NDArray[np.uint8]
    ) -> None:
        """See `PlaneDecoder.read_planes`."""
        self._read(_PlaneReading, path, info, indices, threads, out)

    def _read(
        self,
        kind: type[_Reading],
        path: Path,
        info: VideoInfo,
        indices: NDArray[np.int64],
        threads: int,
        frames: NDArray[np.uint8],
    ) -> None:
        if len(indices) == 0:
            return
        runs = plan_runs(indices, info.keyframes)
        try:
            kind(path, info, indices, frames, self.hwaccel).read(runs, threads)
        except MediaError:
            whole = [Run(0, indices)]
            if [run.key for run in runs] == [0]:
                raise
            # Some files mark frames as key frames that are none; only decoding from the start tells that from damage.
            kind(path, info, indices, frames, self.hwaccel).read(whole, threads)


class _Reading(ABC):
    """One pass over a file."""

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        indices: NDArray[np.int64],
        frames: NDArray[np.uint8],
        hwaccel: HWAccel | None,
    ) -> None:
        self.path = path
        self.info = info
        self.hwaccel = hwaccel
        self.frames = frames
        self.slots = {int(index): slot for slot, index in enumerate(indices)}
        self.pts: list[int] = info.pts.tolist() if info.pts is not None else []
        self.order: dict[int | None, int] = {pts: i for i, pts in enumerate(self.pts)}
        self.keys_read: set[int] = set()  # an open GOP's key frame is read before the end of the GOP before it
        self.latest = 0
        self.reformatter = VideoReformatter()

    def read(self, runs: list[Run], threads: int) -> None:
        max_pixels = max(DEFAULT_MAX_PIXELS, 2 * self.info.coded_width * self.info.coded_height)
        with open_video(self.path, max_pixels, self.hwaccel) as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads if self.hwaccel is None else 1
            if not self.pts:
                self._read_in_order(container, stream)
                return
            position = 0
            packets: Iterator[Packet[Any]] = read_packets(container, stream)
            for run in runs:
                begin: list[Packet[Any]] = []
                if run.key > 0:
                    far = run.key - position > _SEEK_OVER and self.info.container in _INDEXED
                    if far or self.pts[run.key] in self.keys_read:
                        container.seek(self.pts[run.key], stream=stream)
                        packets = read_packets(container, stream)
                    begin = [self._find_key(packets, run.key)]
                self._read_run(run, chain(begin, packets), stream)
                position = int(run.wanted[-1])
                stream.codec_context.flush_buffers()

    def _find_key(self, packets: Iterator[Packet[Any]], key: int) -> Packet[Any]:
        """The packet of key frame `key`; those before it are not decoded."""
        target = self.pts[key]
        for packet in packets:
            if packet.is_keyframe and packet.pts is not None:
                if packet.pts == target:
                    return packet
                if packet.pts > target:
                    break
        raise self._damaged(f"key frame {key} is not where its index says")

    def _read_run(self, run: Run, packets: Iterator[Packet[Any]], stream: VideoStream) -> None:
        """Decode one run and check that every packet that went in came out as a frame."""
        missing: set[int | None] = {self.pts[i] for i in run.wanted}
        expected: set[int] = set()
        seen: set[int] = set()
        for packet in packets:
            self._take(packet.decode(), run.key, seen)
            pts = packet.pts
            if pts in self.order and self.order[pts] >= run.key:
                expected.add(self.order[pts])
            if packet.is_keyframe and pts is not None:
                self.keys_read.add(pts)
            missing.discard(pts)
            if not missing:
                break
        self._take(stream.codec_context.decode(None), run.key, seen)
        lost = sorted(expected - seen)
        if lost or missing:
            lost += [i for pts, i in self.order.items() if pts in missing]
            raise self._damaged(f"{len(lost)} frames do not decode, the first is {min(lost)}")

    def _take(self, decoded: list[av.VideoFrame], key: int, seen: set[int]) -> None:
        for frame in decoded:
            index = self.order.get(frame.pts)
            if index is None or index < key:
                # Shown before the first key frame or before this run's, or outside the edit list.
                continue
            if seen and index < self.latest:
                raise self._damaged(f"frame {index} comes after frame {self.latest}: its times contradict its order")
            self.latest = index
            seen.add(index)
            self._keep(frame, index)

    def _read_in_order(self, container: InputContainer, stream: VideoStream) -> None:
        """Streams without times: the i-th frame that comes out is frame i."""
        last = max(self.slots)
        found = 0
        for frame in _all_frames(container, stream):
            self._keep(frame, found)
            found += 1
            if found > last:
                return
        raise self._damaged(f"{found} frames decode of {self.info.num_frames}")

    def _keep(self, frame: av.VideoFrame, index: int) -> None:
        if frame.is_corrupt:
            raise self._damaged(f"frame {index} is damaged")
        slot = self.slots.get(index)
        if slot is None:
            return
        if (frame.width, frame.height) != (self.info.coded_width, self.info.coded_height):
            raise self._damaged(
                f"the picture size changes to {frame.width}x{frame.height} at frame {index}, "
                f"expected {self.info.coded_width}x{self.info.coded_height}"
            )
        self._store(frame, slot)

    @abstractmethod
    def _store(self, frame: av.VideoFrame, slot: int) -> None:
        """Put a frame into its place."""

    def _damaged(self, problem: str) -> MediaError:
        return MediaError(f"{named(self.path)}: {problem}", reason=Reason.DECODE_ERROR)


class _RgbReading(_Reading):
    """Frames as shown, RGB."""

    def _store(self, frame: av.VideoFrame, slot: int) -> None:
        try:
            # swscale's default: the matrix and range the frame is tagged with, BT.601 limited where it has no tag.
            if frame.format.name == "nv12":
                # As planes first, which changes no sample: swscale's other ways from NV12 to RGB round differently.
                frame = frame.reformat(format="yuv420p")
            rgb = self.reformatter.reformat(frame, format="rgb24", threads=1)
        except FFmpegError as error:
            raise self._damaged(f"no conversion from {frame.format.name} to RGB") from error
        self.frames[slot] = to_display(rgb, self.info)


class _PlaneReading(_Reading):
    """Stored planes."""

    def _store(self, frame: av.VideoFrame, slot: int) -> None:
        if yuv_format(frame) != self.info.yuv:
            raise PlanesChangeError
        pack(frame, self.frames[slot])


def _all_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for packet in read_packets(container, stream):
        yield from packet.decode()
    yield from stream.codec_context.decode(None)

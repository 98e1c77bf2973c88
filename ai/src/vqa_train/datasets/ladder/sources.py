"""Pristine sources: procedural scenes, and the middle of real clips scaled down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray

from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.hashcache import HashCache
from vqa_train.datasets.ladder.camera import first_crf, scene_size
from vqa_train.datasets.ladder.config import SMALLEST, LadderConfig
from vqa_train.datasets.ladder.frames import PRISTINE_CODEC, PRISTINE_OPTIONS, Frames, encode, from_rgb, read_frames
from vqa_train.datasets.ladder.scenes import render_scene, scene_name
from vqa_train.datasets.walk import list_videos

_MAX_FPS = 60


@dataclass(frozen=True)
class Source:
    """Where a pristine clip comes from: a file with its hash, or (path None) the procedural scene called `id`."""

    id: str
    path: Path | None = None
    sha256: str | None = None


def find_sources(folder: Path | None, config: LadderConfig) -> tuple[list[Source], dict[str, str]]:
    """The sources of a ladder in order, and what was refused (name -> why).

    Files with the same bytes are one source. A file's id is its name and the start of its hash, so that two files of
    one name stay apart.

    Raises:
        ManifestError: the folder does not exist or cannot be read.
        MediaError: there is no source at all.
    """
    found: dict[str, Source] = {}
    refused: dict[str, str] = {}
    if folder is not None:
        walk = list_videos(folder)
        refused = {failure.path: failure.message for failure in walk.failed}
        with HashCache() as hashes:
            for name in walk.paths:
                path = folder / name
                try:
                    sha256 = hashes.sha256(path)
                except OSError as error:
                    refused[name] = f"cannot be read: {error.strerror}"
                    continue
                plain = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem).strip("-")[:40]
                found.setdefault(sha256, Source(f"{plain or 'clip'}-{sha256[:8]}", path, sha256))
    sources = [*found.values(), *(Source(scene_name(index)) for index in range(config.scenes))]
    if not sources:
        raise MediaError(
            f"no source for a ladder: no video in {str(folder)!r} and scenes is 0",
            hint="give a folder of clips, or some procedural scenes",
        )
    return sources, refused


def read_source(source: Source, config: LadderConfig) -> Frames:
    """The pristine frames of a source.

    Raises:
        MediaError: the file cannot be decoded, is shorter than four frames or smaller than 64 pixels.
    """
    if source.path is None:
        return _film(source.id, config)
    try:
        with av.open(str(source.path)) as container:
            if not container.streams.video:
                raise MediaError(f"{str(source.path)!r} has no video stream", reason=Reason.NO_VIDEO_STREAM)
            start, stop = _middle(container, config.seconds)
            rate = container.streams.video[0].average_rate or Fraction(25)
        fps = min(Fraction(rate).limit_denominator(10_000), Fraction(_MAX_FPS))
        with av.open(str(source.path)) as container:
            return from_rgb(_on_grid(container, start, stop, fps, config), fps)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{str(source.path)!r} cannot be decoded: {error}", reason=Reason.DECODE_ERROR) from error


def _film(scene: str, config: LadderConfig) -> Frames:
    """A procedural scene as its camera delivers it."""
    width, height = scene_size(scene, config.size)
    count = round(config.seconds * config.fps)
    pictures = render_scene(scene, width=width, height=height, frames=count, fps=config.fps)
    frames, crf = from_rgb(pictures, Fraction(config.fps)), first_crf(scene)
    if crf is None:
        return frames
    return read_frames(encode(frames, PRISTINE_CODEC, {**PRISTINE_OPTIONS, "crf": str(crf)}, "mp4"))


def _middle(container: av.container.InputContainer, seconds: float) -> tuple[float, float]:
    """Start and stop, in seconds of the file's own clock, of the middle part; from the packets, without decoding."""
    stream = container.streams.video[0]
    base = float(stream.time_base or 0)
    times = sorted(packet.pts * base for packet in container.demux(stream) if packet.pts is not None and packet.size)
    if len(times) < 4:
        raise MediaError("fewer than four frames", reason=Reason.TOO_SHORT)
    frame = (times[-1] - times[0]) / (len(times) - 1)
    slack = max(0.0, times[-1] + frame - times[0] - seconds)
    start = times[0] + slack / 2
    return start, min(start + seconds, times[-1] + frame)


def _on_grid(
    container: av.container.InputContainer, start: float, stop: float, fps: Fraction, config: LadderConfig
) -> Iterator[NDArray[np.uint8]]:
    """RGB frames at a constant rate from start to stop: at each tick the frame that is shown then."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    container.seek(int(start / float(stream.time_base or 1)), stream=stream)
    half = 0.5 / float(fps)
    tick, count = 0, max(4, round((stop - start) * float(fps)))
    shown: NDArray[np.uint8] | None = None
    for frame in container.decode(stream):
        time = frame.time
        while shown is not None and tick < count and start + tick / float(fps) + half < time:
            yield shown
            tick += 1
        if tick >= count:
            return
        # Frames before the first tick's are only passed on the way from the key frame.
        if shown is not None or time > start - 1.5 / float(fps):
            shown = _upright(frame, stream, config)
    if shown is None:
        raise MediaError("no frame could be decoded", reason=Reason.DECODE_ERROR)
    for _ in range(count - tick):
        yield shown


def _upright(frame: av.VideoFrame, stream: av.video.stream.VideoStream, config: LadderConfig) -> NDArray[np.uint8]:
    """RGB with square pixels, turned as the file says, scaled down to fit the ladder's size; even sides."""
    quarter_turns = round(frame.rotation / 90) % 4
    aspect = float(stream.sample_aspect_ratio or 1) or 1.0
    width, height = frame.width * aspect, float(frame.height)
    box = config.size if (width >= height) != bool(quarter_turns % 2) else (config.size[1], config.size[0])
    fit_width, fit_height = box if quarter_turns % 2 == 0 else (box[1], box[0])
    scale = min(1.0, fit_width / width, fit_height / height)
    new_width, new_height = (int(side * scale / 2 + 0.5) * 2 for side in (width, height))
    if min(new_width, new_height) < SMALLEST:
        raise MediaError(f"{frame.width}x{frame.height} is {new_width}x{new_height} in the ladder, under {SMALLEST}")
    full = frame.color_range == ColorRange.JPEG
    rgb = frame.reformat(
        width=new_width,
        height=new_height,
        format="rgb24",
        interpolation=Interpolation.AREA if scale < 1 else Interpolation.BICUBIC,
        src_color_range=ColorRange.JPEG if full else None,
        threads=1,
    )
    return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarter_turns))

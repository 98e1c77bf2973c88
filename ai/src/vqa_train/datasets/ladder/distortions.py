"""The kinds of distortion and their parameter at each level; level 1 is barely visible, the last one is bad.

Codec kinds are an encoder at rising CRF. The others change the decoded frames, which are then encoded near-losslessly.
Amounts in pixels are for a frame 270 pixels high and scale with the height. What is random (noise, which frames drop,
the course of a flicker) is drawn once per source, so that a level adds to the one below it instead of drawing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import av
import av.filter
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from vqa_train.datasets.ladder import frames as media
from vqa_train.datasets.ladder.fields import Array, wander
from vqa_train.datasets.ladder.frames import Frames, Plane

LEVELS = 5

Apply = Callable[[Frames, float, np.random.Generator], Frames]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of distortion.

    Attributes:
        parameter: what the numbers are, with unit.
        values: one per level, from mild to severe.
        apply: changes frames; None for a codec kind.
        codec: FFmpeg's encoder name, for a codec kind.
        options: of that encoder, besides its CRF.
        rate_options: the options that take the parameter.
        container: file format.
    """

    parameter: str
    values: tuple[float, float, float, float, float]
    apply: Apply | None = None
    codec: str = media.PRISTINE_CODEC
    options: Mapping[str, str] = field(default_factory=dict)
    rate_options: tuple[str, ...] = ("crf",)
    container: str = "mp4"

    def render(self, pristine: Frames, level: int, rng: np.random.Generator) -> bytes:
        """The file of `pristine` distorted at `level` (1 to LEVELS).

        Raises:
            MediaError: the encoder refuses.
        """
        value = self.values[level - 1]
        if self.apply is not None:
            return media.encode_near_lossless(self.apply(pristine, value, rng))
        rate = dict.fromkeys(self.rate_options, f"{value:g}")
        return media.encode(pristine, self.codec, {**self.options, **rate}, self.container)


def rescale(frames: Frames, factor: float, rng: np.random.Generator) -> Frames:
    """Bicubic reduction by `factor` and bicubic enlargement back."""
    height, width = frames.luma.shape[1:]
    small = (max(8, round(height / factor / 2) * 2), max(8, round(width / factor / 2) * 2))
    packed = []
    for index in range(len(frames)):
        frame = media.to_video_frame(frames, index)
        reduced = frame.reformat(height=small[0], width=small[1], interpolation=Interpolation.BICUBIC, threads=1)
        restored = reduced.reformat(height=height, width=width, interpolation=Interpolation.BICUBIC, threads=1)
        packed.append(restored.to_ndarray())
    return media.unpack(packed, frames.fps)


def blur(frames: Frames, sigma: float, rng: np.random.Generator) -> Frames:
    """Gaussian blur with a standard deviation of `sigma` pixels."""
    height, width = frames.luma.shape[1:]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("yuv420p"), time_base=1 / frames.fps)
    # `sigma` is for luma; gblur uses the same number of samples in the half-size chroma planes, hence two passes.
    luma = graph.add("gblur", f"sigma={sigma * height / 270:.4f}:steps=6:planes=1")
    chroma = graph.add("gblur", f"sigma={sigma * height / 540:.4f}:steps=6:planes=6")
    sink = graph.add("buffersink")
    graph.link_nodes(source, luma, chroma, sink).configure()
    packed = []
    for index in range(len(frames)):
        frame = media.to_video_frame(frames, index)
        frame.pts, frame.time_base = index, 1 / frames.fps
        graph.push(frame)
        filtered: Any = graph.pull()
        packed.append(filtered.to_ndarray())
    return media.unpack(packed, frames.fps)


def noise(frames: Frames, sigma: float, rng: np.random.Generator) -> Frames:
    """White Gaussian noise, new in every frame: `sigma` grey levels in luma, half of that in chroma."""
    luma = np.empty_like(frames.luma)
    chroma = np.empty_like(frames.chroma)
    for index in range(len(frames)):
        grain = rng.standard_normal(frames.luma.shape[1:], dtype=np.float32)
        luma[index] = _to_plane(frames.luma[index] + np.float32(sigma) * grain, 235)
        grain = rng.standard_normal(frames.chroma.shape[1:], dtype=np.float32)
        chroma[index] = _to_plane(frames.chroma[index] + np.float32(sigma / 2) * grain, 240)
    return Frames(luma, chroma, frames.fps)


def banding(frames: Frames, step: float, rng: np.random.Generator) -> Frames:
    """Luma rounded to multiples of `step` grey levels (8-bit video has 1), chroma to half of that, without dither."""
    values = np.arange(256, dtype=np.float32)
    luma = _to_plane(16 + np.rint((values - 16) / step) * step, 235)
    chroma = _to_plane(128 + np.rint((values - 128) / (step / 2)) * (step / 2), 240)
    return Frames(luma[frames.luma], chroma[frames.chroma], frames.fps)


def freeze(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """The picture stands still twice, for `share` of the time in all, and then jumps on to where it should be."""
    count = len(frames)
    shown = np.arange(count)
    longest = max(1, round(share * count / 2))
    for begin in (0.06, 0.53):
        start = round((begin + 0.02 * rng.random()) * count)
        shown[start : start + longest + 1] = start
    return _rearranged(frames, shown)


def drop(frames: Frames, share: float, rng: np.random.Generator) -> Frames:
    """`share` of the frames, at random, are lost; the last good one is shown in their place."""
    lost = rng.permutation(len(frames) - 1)[: round(share * (len(frames) - 1))] + 1
    shown = np.arange(len(frames))
    shown[lost] = 0
    return _rearranged(frames, np.maximum.accumulate(shown))


def flicker(frames: Frames, amplitude: float, rng: np.random.Generator) -> Frames:
    """Exposure that wavers at random, with energy up to about 5 Hz: luma times 1 +- `amplitude`."""
    course = np.clip(wander(rng, len(frames), float(frames.fps), 5.0) / 1.5, -1, 1)
    gain = (1 + np.float32(amplitude) * course)[:, None, None]
    return Frames(_to_plane(16 + (frames.luma - np.float32(16)) * gain, 235), frames.chroma, frames.fps)


def _rearranged(frames: Frames, shown: NDArray[np.int64]) -> Frames:
    return Frames(frames.luma[shown], frames.chroma[shown], frames.fps)


def _to_plane(values: Array, highest: int) -> Plane:
    return np.clip(np.rint(values), 16, highest).astype(np.uint8)


# mbtree reads uninitialised memory in x264, so two runs would differ; one thread each for the same reason.
_X264 = {"preset": "veryfast", "mbtree": "0"}
_X265 = {"preset": "superfast", "x265-params": "log-level=none:pools=none:frame-threads=1"}
_VP9 = {"b": "0", "deadline": "realtime", "cpu-used": "8"}

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "x264": Kind(parameter="CRF", values=(26, 31, 36, 41, 47), codec="libx264", options=_X264),
        "x265": Kind(parameter="CRF", values=(27, 32, 37, 42, 48), codec="libx265", options=_X265),
        "vp9": Kind(
            parameter="CRF",
            values=(34, 43, 50, 57, 63),
            codec="libvpx-vp9",
            options=_VP9,
            # Without the bounds libvpx spends more than the CRF asks for, and CRF 63 still looks fair.
            rate_options=("crf", "qmin", "qmax"),
            container="webm",
        ),
        "rescale": Kind(parameter="reduction factor", values=(2, 2.7, 3.6, 5, 8), apply=rescale),
        "blur": Kind(parameter="sigma in pixels at height 270", values=(0.9, 1.4, 2.0, 3.0, 5.0), apply=blur),
        "noise": Kind(parameter="sigma in grey levels", values=(4, 7, 12, 20, 34), apply=noise),
        "banding": Kind(parameter="grey levels per step", values=(8, 13, 20, 30, 44), apply=banding),
        "freeze": Kind(parameter="share of the time", values=(0.05, 0.13, 0.26, 0.45, 0.75), apply=freeze),
        "drop": Kind(parameter="share of the frames", values=(0.06, 0.18, 0.38, 0.62, 0.88), apply=drop),
        "flicker": Kind(parameter="relative amplitude", values=(0.015, 0.035, 0.075, 0.16, 0.35), apply=flicker),
    }
)


def available_kinds() -> tuple[str, ...]:
    """Kinds that this FFmpeg can render, in order."""
    return tuple(name for name, kind in KINDS.items() if media.has_encoder(kind.codec))

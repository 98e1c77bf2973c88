"""From a file to clips: every frame that any sampling wants is decoded once, then dealt out per sampling and view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import numpy as np

from vqa_train import video
from vqa_train.core.errors import MediaError, Reason
from vqa_train.core.types import Clip, Sampling, YuvFormat
from vqa_train.video.container import DEFAULT_MAX_PIXELS, named
from vqa_train.video.probe import VideoInfo, probe
from vqa_train.video.sampling import select_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Decoder(Protocol):
    """Reads frames; every implementation gives the same pixels or refuses (tests/contracts/test_decoder_contract.py).

    Attributes:
        name: registry name.
        version: of the library behind it; recorded with every feature.
    """

    name: str
    version: str

    def read(
        self,
        path: Path,
        info: VideoInfo,
        indices: NDArray[np.int64],
        threads: int,
        out: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """Frames as shown: upright, square pixels, RGB by the stream's own matrix and range.

        Args:
            path: the file that `info` was probed from.
            info: its facts.
            indices: int64 (T,), strictly ascending, in [0, info.num_frames).
            threads: decoding threads; 0 is one per core.
            out: uint8 (T, info.height, info.width, 3) to fill; None makes one.

        Returns:
            `out`.

        Raises:
            MediaError: DECODE_ERROR or TRUNCATED for a damaged file, OUT_OF_MEMORY; DECODE_ERROR for what this
                decoder would get wrong.
        """
        ...


class PlanesChangeError(Exception):
    """Some frame's planes mean something else than the first one's, so the video must be read as RGB."""


@runtime_checkable
class PlaneDecoder(Decoder, Protocol):
    """A decoder that can hand on the stored planes of a video whose `info.yuv` is set."""

    def read_planes(
        self, path: Path, info: VideoInfo, indices: NDArray[np.int64], threads: int, out: NDArray[np.uint8]
    ) -> None:
        """Fill `out`, uint8 (T, 3 * H / 2, W), with packed planes (`vqa_train.video.planes.pack`).

        Raises:
            MediaError: as `read`.
            PlanesChangeError: see there.
        """
        ...


@dataclass(frozen=True)
class Plan:
    """Frames to decode and who gets them.

    Attributes:
        union: int64 (T,), strictly ascending frame indices.
        views: per sampling, per view: int64 (num_frames,) frame indices, all in `union`.
    """

    union: NDArray[np.int64]
    views: list[list[NDArray[np.int64]]]

    def shape(self, info: VideoInfo) -> tuple[int, int, int, int]:
        """(T, H, W, 3) of the decoded union."""
        return len(self.union), info.height, info.width, 3

    def packed_shape(self, info: VideoInfo) -> tuple[int, int, int]:
        """(T, 3 * H / 2, W) of the decoded union as planes."""
        return len(self.union), info.height * 3 // 2, info.width


def make_decoder(name: str) -> Decoder:
    """A decoder by its registry name.

    Raises:
        UsageError, DependencyError: unknown, or its package is not installed.
    """
    return cast(Decoder, video.DECODERS.get(name)())


def make_plan(path: Path, info: VideoInfo, samplings: Sequence[Sampling], key: str = "") -> Plan:
    """The frames that `samplings` want of one video, `key` being the sha256 of its bytes.

    Raises:
        MediaError: TOO_SHORT for a sampling that accepts no short video.
        UsageError: a sampling with jitter "content", and no key.
    """
    try:
        views = [select_frames(sampling, info.times, info.keyframes, key) for sampling in samplings]
    except MediaError as error:
        raise MediaError(f"{named(path)}: {error.message}", hint=error.hint, reason=error.reason) from error
    wanted = [view for per_sampling in views for view in per_sampling]
    union = np.unique(np.concatenate(wanted)) if wanted else np.empty(0, np.int64)
    return Plan(union, views)


def clip_facts(info: VideoInfo, decoder: Decoder) -> dict[str, Any]:
    """The fields of a Clip that are the same in every clip of one video, as JSON values."""
    return {
        "fps": info.fps,
        "num_frames": info.num_frames,
        "duration_s": info.duration_s,
        "width": info.width,
        "height": info.height,
        "codec": info.codec,
        "decoder": f"{decoder.name} {decoder.version}",
    }


def make_clips(
    frames: NDArray[np.uint8],
    times: NDArray[np.float64],
    plan: Plan,
    facts: dict[str, Any],
    key: str,
    yuv: YuvFormat | None = None,
) -> list[list[Clip]]:
    """Clips per sampling and view from the decoded union.

    Args:
        frames: uint8 (T, H, W, 3), frames `plan.union`; with `yuv` their planes (T, 3 * H / 2, W).
        times: float64 (T,), their times in seconds.
        plan: who gets what.
        facts: from `clip_facts`.
        key: sha256 of the video's bytes, "" when not known.
        yuv: what the planes mean; None for RGB.

    A clip whose frames lie together in the union shares its memory; others are copies.
    """

    def clip(view: int, indices: NDArray[np.int64]) -> Clip:
        places = np.searchsorted(plan.union, indices)
        together = bool((np.diff(places) == 1).all())
        chosen: Any = slice(int(places[0]), int(places[-1]) + 1) if together else places
        return Clip(frames=frames[chosen], times=times[chosen], indices=indices, key=key, view=view, yuv=yuv, **facts)

    return [[clip(view, indices) for view, indices in enumerate(per_sampling)] for per_sampling in plan.views]


def read_clips(
    path: Path,
    samplings: Sequence[Sampling],
    *,
    decoder: str = video.DEFAULT_DECODER,
    threads: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    key: str = "",
) -> list[list[Clip]]:
    """Clips of one video in this process: outer list per sampling, inner per view. The file is decoded once.

    Args:
        path: a local file.
        samplings: which frames.
        decoder: registry name.
        threads: decoding threads; 0 is one per core.
        max_pixels: a video with larger pictures is refused.
        key: sha256 of the file's bytes, which samplings with jitter "content" need; the clips carry it.

    Raises:
        MediaError: the file cannot be read; `reason` says why.
        UsageError, DependencyError: the decoder is unknown or not installed; a sampling needs a key.
    """
    reader = make_decoder(decoder)
    info = probe(path, max_pixels=max_pixels)
    plan = make_plan(path, info, samplings, key)
    frames = reader.read(path, info, plan.union, threads)
    return make_clips(frames, info.times[plan.union], plan, clip_facts(info, reader), key)


def frames_buffer(
    path: Path, info: VideoInfo, indices: NDArray[np.int64], out: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """`out`, or a new array of the right shape, for a decoder to fill.

    Raises:
        MediaError: OUT_OF_MEMORY.
    """
    shape = (len(indices), info.height, info.width, 3)
    if out is not None:
        if out.shape != shape or out.dtype != np.uint8:
            raise ValueError(f"out must be uint8 {shape}, got {out.dtype} {out.shape}")
        return out
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise MediaError(
            f"{named(path)}: no memory for {len(indices)} frames of {info.width}x{info.height}",
            reason=Reason.OUT_OF_MEMORY,
        ) from error

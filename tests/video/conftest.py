"""Videos with the traits that decoders get wrong: times, turns, pixel shapes, colour tags, sound, damage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest


def numbered_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """Smooth RGB pictures, each with a grey level of its own, so that any two frames differ."""
    ramp = np.linspace(0, 60, width)[None, :] + np.linspace(0, 60, height)[:, None]
    return [np.repeat((ramp + 120 * i / count)[..., None], 3, 2).astype(np.uint8) for i in range(count)]


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """`make_video(path, frames=24, size=(96, 128), ...)`; RGB arrays or made frames may be given as `frames`."""

    def make(
        path: Path,
        *,
        frames: int | Sequence[np.ndarray | av.VideoFrame] = 24,
        size: tuple[int, int] = (96, 128),
        fps: int = 24,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        container_options: dict[str, str] | None = None,
        milliseconds: Sequence[int] | None = None,
        matrix: Sequence[int] | None = None,
        sar: str | None = None,
        tags: dict[str, int] | None = None,
        sound: bool = False,
    ) -> Path:
        arrays = numbered_frames(frames, *size) if isinstance(frames, int) else frames
        default = {"crf": "18", "g": "12"} if codec == "libx264" else {}
        with av.open(str(path), "w", options=container_options or {}) as container:
            stream: Any = container.add_stream(codec, rate=fps, options=default if options is None else options)
            stream.height, stream.width = size
            stream.pix_fmt = pix_fmt
            if sar:
                stream.codec_context.sample_aspect_ratio = Fraction(sar)
            for name, value in (tags or {}).items():
                setattr(stream.codec_context, name, value)
            if matrix:
                stream.set_display_matrix(matrix)
            if milliseconds:
                stream.codec_context.time_base = Fraction(1, 1000)
            audio: Any = container.add_stream("aac", rate=48000) if sound else None
            for i, array in enumerate(arrays):
                made = isinstance(array, av.VideoFrame)
                frame = array if made else av.VideoFrame.from_ndarray(array, format="rgb24")
                for name, value in (tags or {}).items():
                    setattr(frame, name, value)
                if milliseconds:
                    frame.pts, frame.time_base = milliseconds[i], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if audio is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
                silence.rate = 48000
                container.mux(audio.encode(silence))
                container.mux(audio.encode())
        return path

    return make


def every_frame(path: Path, **options: Any) -> np.ndarray:
    """The reference: PyAV's own loop over all frames, as stored, uint8 (N, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24", **options) for f in container.decode(video=0)])


@pytest.fixture(name="every_frame")
def every_frame_fixture() -> Callable[..., np.ndarray]:
    """`every_frame(path)`: see the function."""
    return every_frame

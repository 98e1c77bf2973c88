"""Small made videos for benchmarks: a panning 1/f texture, encoded with x264."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """RGB uint8 (height, width, 3) with the 1/f amplitude spectrum of natural images (Field 1987)."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = 1.0 / np.maximum(np.hypot(fy, fx), 1.0 / max(height, width))
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
        planes.append(np.fft.irfft2(amplitude * phase, s=(height, width)))
    luma, red, blue = planes
    rgb = np.stack([luma + 0.3 * red, luma, luma + 0.3 * blue], axis=-1)
    rgb = (rgb - rgb.mean()) / rgb.std()
    return np.clip(118 + 48 * rgb, 0, 255).astype(np.uint8)


def write_made_video(
    path: Path, *, seconds: float, size: tuple[int, int] = (1280, 720), fps: int = 30, crf: int = 23, seed: int = 0
) -> Path:
    """A texture that pans two pixels a frame and turns around at its edge; `size` is (width, height)."""
    width, height = size
    margin = 256
    canvas = texture(height, width + margin, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(round(seconds * fps)):
            offset = abs((2 * i) % (2 * margin) - margin)
            frame = np.ascontiguousarray(canvas[:, offset : offset + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path

"""Made inputs that look like the real thing, to compare a backbone's graph with its module on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.types import Clip

_FPS = 24.0

SENTENCES = (
    "A dog.",
    "a red fox runs through fresh snow at dawn, slow motion, cinematic lighting",
    "Two astronauts play chess on the Moon while the Earth rises behind them; handheld camera, 35 mm film grain.",
    "Time-lapse of a crowded street crossing in the rain at night: neon signs reflect in puddles, umbrellas move in "
    "every direction, and a single child in a yellow coat stands still and looks straight into the camera.",
    "Ein Zug fährt über eine Brücke — naïve façade, 東京, 100% → déjà vu!",
    "word " * 600,
)
"""Prompts: short, long, cut by every encoder, with other scripts and punctuation."""


def probe_clip(count: int, height: int, width: int, seed: int) -> Clip:
    """A clip of `count` frames: textured scenery that pans, a moving bright disc, noise; decided by `seed`."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 8 + 2, (width + 2 * count) // 8 + 2, 3))
    scenery = np.kron(coarse, np.ones((8, 8, 1)))[:height, : width + 2 * count]
    scenery += np.linspace(-40, 40, height)[:, None, None]
    rows, columns = np.mgrid[:height, :width]
    frames = np.empty((count, height, width, 3), dtype=np.uint8)
    for i in range(count):
        frame = scenery[:, 2 * i : 2 * i + width] + rng.normal(0, 4, (height, width, 3))
        centre = (height * (0.3 + 0.4 * i / count), width * (0.2 + 0.6 * i / count))
        disc = np.hypot(rows - centre[0], columns - centre[1]) < min(height, width) / 6
        frame[disc] += rng.uniform(30, 60)
        frames[i] = np.clip(frame, 0, 255).astype(np.uint8)
    return _clip(frames)


def _clip(frames: NDArray[np.uint8]) -> Clip:
    count, height, width, _ = frames.shape
    return Clip(
        frames=frames,
        times=np.arange(count) / _FPS,
        indices=np.arange(count, dtype=np.int64),
        fps=_FPS,
        num_frames=count,
        duration_s=count / _FPS,
        width=width,
        height=height,
        codec="none",
        decoder="probe",
    )

"""Tiny pristine clips, made once."""

from __future__ import annotations

from fractions import Fraction

import pytest

from vqa_train.datasets.ladder.frames import Frames, encode_near_lossless, from_rgb, read_frames
from vqa_train.datasets.ladder.scenes import render_scene


def made_clip(name: str, *, width: int = 160, height: int = 90, frames: int = 48, fps: int = 24) -> Frames:
    """A procedural scene after its near-lossless encoding."""
    pictures = render_scene(name, width=width, height=height, frames=frames, fps=fps)
    return read_frames(encode_near_lossless(from_rgb(pictures, Fraction(fps))))


@pytest.fixture(scope="session")
def clips() -> dict[str, Frames]:
    """Pristine clips by scene: textured and fast, smooth and slow."""
    return {name: made_clip(name) for name in ("foliage-0", "clouds-0")}

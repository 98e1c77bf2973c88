"""The camera of a procedural scene: format, lens, exposure, grain, first compression; drawn once, by the scene's name.

Real footage that counts as pristine differs in all of these. A model that has only seen sharp, full-size,
never-compressed scenes takes a soft lens for blur and a small format for a bad one, so a ladder has them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from, unit_interval
from vqa_train.datasets.ladder.config import SMALLEST
from vqa_train.datasets.ladder.fields import Array

# Share of scenes, then width and height as shares of the ladder's: full, two thirds, upright, small 4:3.
_FORMATS: tuple[tuple[float, Callable[[int, int], tuple[float, float]]], ...] = (
    (0.5, lambda w, h: (w, h)),
    (0.7, lambda w, h: (w * 2 / 3, h * 2 / 3)),
    (0.85, lambda w, h: (h, w)),
    (1.0, lambda w, h: (h * 0.7, h * 0.525)),
)
_SOFT_LENS = 0.3
_LETTERBOX = 0.15
_COMPRESSED = 0.5
_CRF = (18, 27)


def scene_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the scene called `name` in a ladder of `size`; even, at least 64 each."""
    draw = unit_interval("vqa-train/ladder/format", name)
    shape = next(shape for share, shape in _FORMATS if draw < share)
    width, height = (max(SMALLEST, round(side / 2) * 2) for side in shape(*size))
    return width, height


def first_crf(name: str) -> int | None:
    """CRF at which the scene's camera compressed it before it became a source; None for a camera that did not."""
    draw = unit_interval("vqa-train/ladder/first-generation", name)
    low, high = _CRF
    return low + int(draw / _COMPRESSED * (high - low + 1)) if draw < _COMPRESSED else None


class Camera:
    """Turns linear pictures of a scene into RGB frames."""

    def __init__(self, name: str) -> None:
        rng = np.random.default_rng(seed_from("vqa-train/ladder/camera", name))
        self._rng = rng
        self._gamma = rng.uniform(0.75, 1.4)
        self._contrast = rng.uniform(0.6, 1.12)
        self._offset = np.float32(rng.uniform(-0.12, 0.06))
        self._saturation = rng.uniform(0.3, 1.15)
        # A soft lens is the same small kernel several times over: about a Gaussian of 0.7 pixel per root of the count.
        soft = rng.random() < _SOFT_LENS
        self._lens = np.float32(0.25 if soft else rng.uniform(0.05, 0.22))
        self._passes = int(rng.integers(1, 5)) if soft else 1
        self._vignette = rng.uniform(0.0, 0.25)
        self._grain = np.float32(np.exp(rng.uniform(np.log(0.001), np.log(0.015))))
        self._bars = rng.uniform(0.08, 0.2) if rng.random() < _LETTERBOX else 0.0
        self._bars_axis = int(rng.integers(0, 2))

    def develop(self, frame: Array) -> NDArray[np.uint8]:
        """Linear float32 (H, W, 3) about 0-1 -> RGB uint8."""
        height, width = frame.shape[:2]
        image = np.clip(frame, 0, 1) ** np.float32(self._gamma)
        for _ in range(self._passes):
            image = self._blur(image)
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image = grey[..., None] + (image - grey[..., None]) * np.float32(self._saturation)
        image = (image - 0.45) * np.float32(self._contrast) + 0.45 + self._offset
        y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
        image = image * (1 - np.float32(self._vignette) * (y * y + x * x) / 2)[..., None]
        image = image + self._rng.standard_normal((height, width, 1), dtype=np.float32) * self._grain
        bar = round(self._bars * frame.shape[self._bars_axis])
        if bar:
            pictures = image if self._bars_axis == 0 else image.swapaxes(0, 1)
            pictures[:bar] = pictures[-bar:] = 0
        return np.asarray(np.clip(np.rint(image * 255), 0, 255), np.uint8)

    def _blur(self, image: Array) -> Array:
        for axis in (0, 1):
            padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
            count = image.shape[axis]
            sides = padded.take(range(count), axis) + padded.take(range(2, count + 2), axis)
            image = image * (1 - 2 * self._lens) + sides * self._lens
        return image

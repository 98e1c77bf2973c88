"""The procedural scenes by name, and the camera that gives each its own exposure, colour, sharpness and grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from
from vqa_train.datasets.ladder import scenes_built, scenes_nature
from vqa_train.datasets.ladder.fields import Array

Scene = Callable[[np.random.Generator, int, int, int, float], Iterator[Array]]

SCENES: Mapping[str, Scene] = MappingProxyType(
    {
        "foliage": scenes_nature.foliage,
        "city": scenes_built.city,
        "water": scenes_nature.water,
        "wall": scenes_built.wall,
        "clouds": scenes_nature.clouds,
        "objects": scenes_built.objects,
        "terrain": scenes_nature.terrain,
        "room": scenes_built.room,
        "zoom": scenes_built.zoom,
        "rain": scenes_nature.rain,
    }
)


def scene_name(index: int) -> str:
    """Name of the `index`-th scene: the kinds in turn, then again with another seed ("foliage-0", ..., "foliage-1")."""
    kinds = list(SCENES)
    return f"{kinds[index % len(kinds)]}-{index // len(kinds)}"


def render_scene(name: str, *, width: int, height: int, frames: int, fps: float) -> Iterator[NDArray[np.uint8]]:
    """The frames of a scene, RGB uint8 (H, W, 3); the same name and geometry always give the same frames.

    `name` is "<kind>-<variant>" with a kind of `SCENES`.
    """
    kind = name.rpartition("-")[0]
    rng = np.random.default_rng(seed_from("vqa-train/ladder/scene", name))
    camera = _Camera(np.random.default_rng(seed_from("vqa-train/ladder/camera", name)))
    for frame in SCENES[kind](rng, height, width, frames, fps):
        yield camera.develop(frame)


class _Camera:
    """Exposure, contrast, saturation, lens blur, vignette and sensor grain, drawn once per scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._gamma = rng.uniform(0.85, 1.2)
        self._contrast = rng.uniform(0.85, 1.12)
        self._saturation = rng.uniform(0.65, 1.15)
        self._lens = np.float32(rng.uniform(0.05, 0.22))
        self._vignette = rng.uniform(0.0, 0.25)
        self._grain = np.float32(rng.uniform(0.002, 0.008))

    def develop(self, frame: Array) -> NDArray[np.uint8]:
        """Linear float32 (H, W, 3) about 0-1 -> RGB uint8."""
        height, width = frame.shape[:2]
        image = np.clip(frame, 0, 1) ** np.float32(self._gamma)
        for axis in (0, 1):
            padded = np.concatenate([image.take([0], axis), image, image.take([-1], axis)], axis)
            before, after = (
                padded.take(range(0, image.shape[axis]), axis),
                padded.take(range(2, image.shape[axis] + 2), axis),
            )
            image = image * (1 - 2 * self._lens) + (before + after) * self._lens
        grey = image @ np.array([0.299, 0.587, 0.114], np.float32)
        image = grey[..., None] + (image - grey[..., None]) * np.float32(self._saturation)
        image = (image - 0.45) * np.float32(self._contrast) + 0.45
        y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
        image = image * (1 - np.float32(self._vignette) * (y * y + x * x) / 2)[..., None]
        image = image + self._rng.standard_normal((height, width, 1), dtype=np.float32) * self._grain
        return np.asarray(np.clip(np.rint(image * 255), 0, 255), np.uint8)

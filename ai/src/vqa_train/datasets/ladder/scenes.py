"""The procedural scenes by name; `camera` gives each its own format, exposure, colour, sharpness and grain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from
from vqa_train.datasets.ladder import scenes_built, scenes_nature
from vqa_train.datasets.ladder.camera import Camera
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


PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "foliage": "leaves moving in the wind",
        "city": "lit windows of city blocks at night, seen from a passing camera",
        "water": "waves and ripples glinting at sunset",
        "wall": "a sunlit brick wall filmed from the hand",
        "clouds": "clouds drifting over a wooded ridge",
        "objects": "textured balls rolling over a soft background",
        "terrain": "a flight over mountains, woods and a lake",
        "room": "a slow pan through a dim room",
        "zoom": "a zoom into a heap of coloured leaves",
        "rain": "rain falling through mist",
    }
)
"""What each kind of scene shows, as the prompt of a text-to-video model would say it."""


def scene_prompt(source: str) -> str | None:
    """What the procedural scene called `source` shows; None for a clip of the user's."""
    kind, _, number = source.rpartition("-")
    # The id of a clip ends in eight digits of its hash.
    return PROMPTS.get(kind) if number.isdecimal() and len(number) < 8 else None


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
    camera = Camera(name)
    for frame in SCENES[kind](rng, height, width, frames, fps):
        yield camera.develop(frame)

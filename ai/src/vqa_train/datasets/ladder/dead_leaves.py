"""Dead-leaves images: random shapes that hide each other, the model that explains natural image statistics.

Shapes with radii drawn from r^-3 fall at random places; what is on top hides what is below. The images have the
scale invariance, the edges and the heavy-tailed filter responses of photographs (Ruderman 1997; Lee, Mumford and
Huang 2001, "Occlusion models for natural images", IJCV 41).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from vqa_train.datasets.ladder.fields import Array, Colour, fractal, ramp

Shape = Literal["disc", "leaf", "box"]


def dead_leaves(
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    radii: tuple[float, float],
    colours: Sequence[Colour],
    shape: Shape = "disc",
    coverage: float = 3.0,
    texture: float = 0.12,
    slope: float = 0.9,
    opaque: bool = True,
) -> Array:
    """A dead-leaves image, float32 RGBA (H, W, 4) with colours about 0-1 and alpha 0-1.

    Args:
        radii: smallest and largest radius in pixels; density r^-3 between them.
        colours: ramp from which each leaf takes its colour at random.
        shape: "disc" (ellipses), "leaf" (pointed ovals with a rib) or "box" (rotated rectangles).
        coverage: total leaf area over the canvas area; 3 hides nearly all of the ground.
        texture: contrast of the 1/f^slope texture on the leaves.
        opaque: False leaves the ground transparent (a layer to put over another one).
    """
    grain = fractal(rng, 512, 512, slope)
    low, high = radii
    mean_area = 2 * np.pi * np.log(high / low) / (low**-2 - high**-2)
    count = int(coverage * height * width / mean_area)
    radius = (low**-2 + rng.random(count) * (high**-2 - low**-2)) ** -0.5
    centre = rng.random((count, 2)) * (height, width)
    angle = rng.random(count) * (0.5 if shape == "box" else 2) * np.pi * (rng.random(count) < 0.6)
    aspect = rng.uniform(0.45, 0.95, count)
    tint = ramp(rng.random(count), colours) * rng.uniform(0.75, 1.2, (count, 1))
    tilt = rng.uniform(-1, 1, (count, 2)) * 0.22
    origin = rng.integers(0, 512, (count, 2))

    canvas = np.zeros((height, width, 4), np.float32)
    if opaque:
        ground = 0.5 + 0.25 * fractal(rng, height, width, 1.2)
        canvas[..., :3] = ramp(np.clip(ground, 0, 1), colours) * 0.8
        canvas[..., 3] = 1
    for i in range(count):
        r = float(radius[i])
        reach = r * (1.45 if shape == "box" else 1.05) + 1
        cy, cx = centre[i]
        y0, y1 = max(0, int(cy - reach)), min(height, int(cy + reach) + 2)
        x0, x1 = max(0, int(cx - reach)), min(width, int(cx + reach) + 2)
        if y0 >= y1 or x0 >= x1:
            continue
        dy = np.arange(y0 - cy, y1 - cy, dtype=np.float32)[: y1 - y0, None] / np.float32(r)
        dx = np.arange(x0 - cx, x1 - cx, dtype=np.float32)[None, : x1 - x0] / np.float32(r)
        cos, sin = np.float32(np.cos(angle[i])), np.float32(np.sin(angle[i]))
        u, v = dx * cos + dy * sin, (dy * cos - dx * sin) / np.float32(aspect[i])
        alpha, rib = _cover(u, v, shape, r)
        rows = (np.arange(y1 - y0) + origin[i, 0]) % 512
        columns = (np.arange(x1 - x0) + origin[i, 1]) % 512
        light = (
            1 + np.float32(tilt[i, 0]) * u + np.float32(tilt[i, 1]) * v + np.float32(texture) * grain[rows][:, columns]
        )
        light = light + rib
        part = canvas[y0:y1, x0:x1]
        paint = tint[i].astype(np.float32) * light[..., None]
        part[..., :3] += alpha[..., None] * (paint - part[..., :3])
        part[..., 3] += alpha * (1 - part[..., 3])
    return canvas


def _cover(u: Array, v: Array, shape: Shape, radius: float) -> tuple[Array, Array | float]:
    """Anti-aliased coverage of a leaf in its own coordinates, and its rib's brightness."""
    if shape == "box":
        inside = 1 - np.maximum(np.abs(u), np.abs(v))
        return np.clip(inside * radius + 0.5, 0, 1), 0.0
    if shape == "leaf":
        inside = 1 - np.abs(u) ** 1.6 - np.abs(v) * 1.9
        rib = np.exp(-((v * 9) ** 2)) * 0.25
        return np.clip(inside * radius * 0.7 + 0.5, 0, 1), rib
    inside = 1 - np.sqrt(u * u + v * v)
    return np.clip(inside * radius + 0.5, 0, 1), 0.0

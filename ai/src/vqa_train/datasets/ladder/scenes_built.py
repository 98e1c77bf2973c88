"""Procedural scenes of made things: a city at night, moving objects, a zoom, a hand-held wall, a dim room.

Same contract as scenes_nature: float32 RGB frames (H, W, 3), about 0-1, lengths in units of height / 270.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqa_train.datasets.ladder.dead_leaves import dead_leaves
from vqa_train.datasets.ladder.fields import (
    Array,
    Colour,
    fractal,
    grid,
    halve,
    ramp,
    sample,
    smooth,
    wander,
    window,
)

_EARTH: list[Colour] = [(0.20, 0.15, 0.12), (0.45, 0.36, 0.28), (0.66, 0.58, 0.47), (0.82, 0.80, 0.75)]
_MARKET: list[Colour] = [
    (0.55, 0.15, 0.12),
    (0.78, 0.55, 0.18),
    (0.30, 0.42, 0.22),
    (0.20, 0.32, 0.50),
    (0.80, 0.76, 0.70),
]


def city(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Lit blocks at night in three depths of parallax, a glowing sky, traffic lights that pass below."""
    unit = height / 270
    y, x = grid(height, width)
    air = fractal(rng, 512, 1024, 1.7)
    sky = ramp(np.clip(y / (0.75 * height), 0, 1), [(0.03, 0.04, 0.09), (0.09, 0.10, 0.19), (0.38, 0.25, 0.20)])
    speed = rng.uniform(14, 30) / fps * unit
    travel = round(frames * speed * 1.8) + 8
    blocks = [_blocks(rng, height, width + travel, unit, depth) for depth in range(3)]
    road = np.clip((y - 0.86 * height) / (0.14 * height), 0, 1)[..., None]
    asphalt = 0.11 + 0.035 * window(fractal(rng, 512, 1024, 0.9), 0, 0, height, width)[..., None]
    cars = [(rng.random() * 2 * width, rng.choice([-1, 1]) * rng.uniform(50, 120) / fps * unit) for _ in range(9)]
    for t in range(frames):
        frame = sky * (1 + 0.12 * window(air, 0, t * speed * 0.2, height, width)[..., None])
        for depth, layer in enumerate(blocks):
            part = window(layer, 0, t * speed * (0.4 + 0.7 * depth), height, width)
            alpha = np.clip(part[..., 3:], 0, 1)
            frame = frame * (1 - alpha) + part[..., :3]
        frame = frame + road * (asphalt - frame)
        for i, (start, velocity) in enumerate(cars):
            at = (start + t * velocity) % (2 * width) - width / 2
            lane = height * (0.91 if velocity > 0 else 0.95) + (i % 3) * 1.5 * unit
            glow = np.exp(-((x - at) ** 2 + ((y - lane) * 1.2) ** 2) / (7 * unit) ** 2)
            mirror = np.exp(-(((x - at) / (5 * unit)) ** 2) - ((y - lane - 12 * unit) / (12 * unit)) ** 2) * 0.3
            lamp = np.array([1.0, 0.92, 0.7] if velocity > 0 else [0.9, 0.12, 0.08], np.float32)
            frame = frame + (glow + mirror)[..., None] * lamp
        yield frame


def _blocks(rng: np.random.Generator, height: int, width: int, unit: float, depth: int) -> Array:
    """One row of buildings with windows; premultiplied RGBA (height, width, 4), drawn at twice the size."""
    h, w = height * 2, width * 2
    canvas = np.zeros((h, w, 4), np.float32)
    grain = fractal(rng, 512, 512, 0.9)
    left = -int(rng.uniform(0, 40) * unit)
    while left < w:
        wide = int(rng.uniform(50, 130) * unit * (0.7 + 0.4 * depth))
        top = int(h * (rng.uniform(0.18, 0.55) + 0.12 * depth))
        x0, x1 = max(0, left), min(w, left + wide)
        left += wide + int(rng.exponential(14) * unit * (1 + depth))
        if x1 <= x0 or top >= h:
            continue
        facade = ramp(rng.random(), [(0.09, 0.10, 0.14), (0.17, 0.15, 0.17), (0.22, 0.17, 0.13)]) * (1.35 - 0.3 * depth)
        wall = (
            facade
            * (1 + 0.2 * grain.take(range(top, h), 0, mode="wrap").take(range(x0, x1), 1, mode="wrap"))[..., None]
        )
        pitch_y, pitch_x = (
            rng.uniform(9, 15) * unit * (0.8 + 0.35 * depth),
            rng.uniform(7, 14) * unit * (0.8 + 0.35 * depth),
        )
        rows, columns = (np.arange(h - top) / pitch_y), (np.arange(x1 - x0) / pitch_x)
        pane = ((rows % 1 > 0.3) & (rows % 1 < 0.85))[:, None] & ((columns % 1 > 0.25) & (columns % 1 < 0.8))[None, :]
        lit = rng.random((int(rows[-1]) + 1, int(columns[-1]) + 1))
        warmth = rng.random(lit.shape)
        glow = np.where(lit < rng.uniform(0.15, 0.45), rng.uniform(0.35, 1.0, lit.shape), 0.03)
        tone = ramp(warmth, [(1.0, 0.72, 0.38), (1.0, 0.85, 0.60), (0.75, 0.85, 1.0)]) * glow[..., None]
        panes = tone[rows.astype(int)][:, columns.astype(int)] * (0.8 + 0.2 * np.cos(rows * 6.28))[:, None, None]
        canvas[top:, x0:x1, :3] = np.where(pane[..., None], panes * (0.55 + 0.2 * depth), wall)
        canvas[top:, x0:x1, 3] = 1
    layer = halve(canvas)
    layer[..., :3] += 1.2 * smooth(np.maximum(layer[..., :3] - 0.25, 0), 3.5 * unit)
    return layer


def objects(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Textured balls with shadows that move and turn over a still, slightly defocused background."""
    unit = height / 270
    y, x = grid(height, width)
    radii = (4 * unit, 120 * unit)
    back = dead_leaves(rng, height * 2, width * 2, radii=radii, colours=_EARTH, shape="box")[..., :3]
    back = smooth(halve(back), 0.9 * unit) * (1.15 - 0.35 * y / height)[..., None]
    size = np.array([height, width])
    balls = []
    for _ in range(5):
        skin = fractal(rng, 256, 512, 1.2)
        stops = [tuple(rng.uniform(0.1, 0.95, 3)) for _ in range(3)]
        colour = ramp(np.clip(0.5 + 0.28 * skin, 0, 1), [(s[0], s[1], s[2]) for s in stops])
        colour *= 1 + 0.1 * fractal(rng, 256, 512, 0.6)[..., None]
        path = (rng.uniform(0.1, 0.9, 2) * size, rng.normal(0, 48, 2) * unit / fps, rng.uniform(-3, 3) / fps)
        balls.append((colour, float(rng.uniform(20, 52) * unit), path))
    for t in range(frames):
        frame = back.copy()
        for colour, r, (start, velocity, spin) in balls:
            # Bounce off the frame's edges: a triangle wave.
            at = np.abs((start + velocity * t + size) % (2 * size) - size)
            dy, dx = (y - at[0]) / r, (x - at[1]) / r
            shadow = np.exp(-np.maximum(np.hypot(dy - 0.35, dx - 0.3) - 0.75, 0) * 3.5) * 0.5
            frame *= (1 - shadow)[..., None]
            box = np.s_[
                max(0, int(at[0] - r) - 1) : int(at[0] + r) + 2, max(0, int(at[1] - r) - 1) : int(at[1] + r) + 2
            ]
            if frame[box].size == 0:
                continue
            frame[box] = _ball(frame[box], colour, dy[box], dx[box], r, spin * t)
        yield frame


def _ball(behind: Array, skin: Array, dy: Array, dx: Array, radius: float, turn: float) -> Array:
    """A lit sphere, texture `skin` turned by `turn` radians, drawn over `behind` (h, w, 3)."""
    distance = np.hypot(dy, dx)
    alpha = np.clip((1 - distance) * radius + 0.5, 0, 1)[..., None]
    dz = np.sqrt(np.maximum(1 - distance**2, 0))
    longitude, latitude = np.arctan2(dx, dz + 1e-3) + turn, np.arcsin(np.clip(dy, -1, 1))
    paint = sample(skin, (latitude / np.pi + 0.5) * 200, longitude / (2 * np.pi) * 512)
    light = np.clip(-0.55 * dx - 0.6 * dy + 0.6 * dz, 0, 1) * 0.95 + 0.18
    shine = np.clip(-0.4 * dx - 0.5 * dy + 0.77 * dz, 0, 1) ** 40 * 0.6
    return np.asarray(behind + alpha * (paint * light[..., None] + shine[..., None] - behind), np.float32)


def zoom(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """A zoom into a colourful dead-leaves picture."""
    unit = height / 270
    full = dead_leaves(
        rng, height * 3, width * 3, radii=(3.5 * unit, 260 * unit), colours=_MARKET, shape="disc", coverage=2.5
    )
    levels = [full[..., :3], halve(full[..., :3])]
    y, x = grid(height, width)
    cx, cy = (x - width / 2), (y - height / 2)
    rate = rng.uniform(0.16, 0.26) / fps
    for t in range(frames):
        zoomed = 2.4 * np.exp(-rate * t)
        turn = 0.02 * np.sin(t / fps)
        gx, gy = (cx * np.cos(turn) - cy * np.sin(turn)) * zoomed, (cx * np.sin(turn) + cy * np.cos(turn)) * zoomed
        # Two mip levels, mixed by the footprint of an output pixel.
        mix = np.float32(np.clip(np.log2(zoomed), 0, 1))
        fine = sample(levels[0], gy + 1.5 * height, gx + 1.5 * width)
        coarse = sample(levels[1], gy / 2 + 0.75 * height - 0.25, gx / 2 + 0.75 * width - 0.25)
        yield fine * (1 - mix) + coarse * mix


def wall(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """A sunlit brick wall filmed by hand: shake, a slight turn and the motion blur of a 180-degree shutter."""
    unit = height / 270
    size_y, size_x = round(height * 2.4), round(width * 2.4)
    y, x = grid(size_y, size_x)
    course = round(size_y / (40 * unit))
    tall, long = size_y / course, size_x / round(size_x / (96 * unit))
    row = np.floor(y / tall)
    along = (x + (row % 2) * long / 2) / long
    edge = np.minimum(np.minimum(y / tall % 1, 1 - y / tall % 1) * tall, np.minimum(along % 1, 1 - along % 1) * long)
    rough = fractal(rng, size_y, size_x, 0.95)
    joint = np.clip((edge + rough * 1.1 * unit - 3.4 * unit) / (1.5 * unit), 0, 1)[..., None]
    tint = rng.random((course + 1, 64))[row.astype(int), np.floor(along).astype(int) % 64]
    brick = ramp(tint, [(0.42, 0.17, 0.12), (0.55, 0.26, 0.17), (0.64, 0.36, 0.24), (0.36, 0.24, 0.20)])
    mortar = np.array([0.60, 0.57, 0.52], np.float32) * (1 + 0.08 * rough[..., None])
    stains = fractal(rng, size_y, size_x, 1.6)[..., None]
    picture = (mortar + joint * (brick * (1 + 0.16 * rough[..., None]) - mortar)) * (0.95 + 0.13 * stains)
    picture = picture * (0.75 + 0.5 * x / size_x)[..., None]
    shake_x, shake_y = (wander(rng, frames * 2, fps * 2, 2.2) * a * unit for a in (9.0, 7.0))
    roll = wander(rng, frames * 2, fps * 2, 1.0) * 0.012
    y, x = grid(height, width)
    cx, cy = (x - width / 2) * 1.6, (y - height / 2) * 1.6
    for t in range(frames):
        frame = np.zeros((height, width, 3), np.float32)
        for half in (2 * t, 2 * t + 1):
            cos, sin = np.cos(roll[half]), np.sin(roll[half])
            gx = cx * cos - cy * sin + size_x / 2 + 2 * shake_x[half] + 1.2 * unit * t * 24 / fps
            gy = cx * sin + cy * cos + size_y / 2 + 2 * shake_y[half]
            frame += 0.5 * sample(picture, gy, gx)
        yield frame


def room(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """A dim room where a lamp moves slowly; a sensor at high gain adds shot and read noise to the pristine video."""
    unit = height / 270
    size = (height * 2, (width + round(60 * unit)) * 2)
    radii = (5 * unit, 240 * unit)
    still = dead_leaves(rng, *size, radii=radii, colours=_EARTH + _MARKET[2:4], shape="box", coverage=2.0, texture=0.06)
    still = halve(still[..., :3])
    y, x = grid(height, width)
    lamp = (rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.6) * height)
    path = wander(rng, frames, fps, 0.4) * 30 * unit, wander(rng, frames, fps, 0.4) * 14 * unit
    pan = rng.uniform(4, 10) / fps * unit
    for t in range(frames):
        away = ((x - lamp[0] - path[0][t]) ** 2 + (y - lamp[1] - path[1][t]) ** 2) / (150 * unit) ** 2
        light = 0.10 + 0.75 / (1 + 1.6 * away)
        frame = window(still, 0, t * pan, height, width) * light[..., None]
        frame = frame * np.array([1.08, 0.96, 0.78], np.float32)
        noise = rng.standard_normal(frame.shape, dtype=np.float32)
        yield frame + noise * np.sqrt(0.00012 + 0.0011 * np.maximum(frame, 0))

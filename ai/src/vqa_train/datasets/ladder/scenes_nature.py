"""Procedural outdoor scenes: clouds, terrain from the air, water, foliage, rain.

Every scene is a function of a generator and the frame geometry that yields float32 RGB frames (H, W, 3), about 0-1.
Lengths are in units of `unit` = height / 270, so a scene looks the same at every size.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqa_train.datasets.ladder.dead_leaves import dead_leaves
from vqa_train.datasets.ladder.fields import (
    Array,
    fractal,
    grid,
    halve,
    ramp,
    sample,
    shade,
    smooth,
    step,
    wander,
    window,
)


def clouds(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """A sheet of cumulus in perspective that drifts and changes shape, thin high clouds behind it, hills below."""
    unit = height / 270
    y, x = grid(height, width)
    horizon = height * rng.uniform(0.72, 0.8)
    depth = np.maximum(horizon - y, 2.0 * unit) / height
    far = np.clip(0.12 / depth, 0, 3)
    ground_x, ground_y = (x - width / 2) / height * far * 520, far * 640
    body, detail, thin = fractal(rng, 512, 512, 1.75), fractal(rng, 512, 512, 1.5), fractal(rng, 512, 1024, 1.4)
    sky = ramp(y / horizon, [(0.16, 0.33, 0.68), (0.36, 0.56, 0.84), (0.80, 0.86, 0.90)])
    hill_line = horizon - (0.05 + 0.025 * window(thin, 40, 0, 1, width)[0]) * height
    hill_tone = 0.6 + 0.25 * window(fractal(rng, 512, 512, 1.0), 0, 0, height, width)[..., None]
    hills = ramp(np.clip((y - hill_line) / (0.3 * height), 0, 1), [(0.28, 0.38, 0.42), (0.16, 0.22, 0.10)]) * hill_tone
    below = np.clip(y - hill_line + 0.5, 0, 1)[..., None]
    haze = np.clip(np.exp(-far * 1.1), 0.0, 1)
    speed, change = rng.uniform(25, 60) / fps, rng.uniform(10, 20) / fps
    for t in range(frames):
        high = step(window(thin, 0, t * speed * 0.15 * unit, height, width), 0.2, 2.6)[..., None] * 0.5
        frame = sky + high * (0.95 - sky)
        gx, gy = ground_x + t * speed, ground_y - t * speed * 0.6
        density = 0.75 * sample(body, gy, gx) + 0.5 * sample(detail, gy * 1.7 + t * change, gx * 1.7)
        lit = density - (
            0.75 * sample(body, gy + 7, gx + 5) + 0.5 * sample(detail, gy * 1.7 + t * change + 7, gx * 1.7)
        )
        cover = (step(density, 0.05, 0.8) * haze)[..., None]
        white = ramp(
            np.clip(0.62 + 0.5 * lit - 0.10 * density, 0, 1), [(0.46, 0.50, 0.58), (0.78, 0.80, 0.84), (1, 0.99, 0.96)]
        )
        frame = frame + cover * (white - frame)
        yield frame + below * (hills - frame)


def terrain(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Mountains, woods and a lake seen from an aircraft that flies on and slowly turns."""
    size = 1024
    heights = fractal(rng, size, size, 1.7)
    heights = heights - 0.35 * np.abs(fractal(rng, size, size, 1.5))
    woods = fractal(rng, size, size, 0.7)
    palette = [(0.24, 0.33, 0.15), (0.34, 0.37, 0.17), (0.50, 0.44, 0.26), (0.52, 0.46, 0.38), (0.9, 0.9, 0.92)]
    colour = ramp(np.clip((heights + 1.1) / 3.2, 0, 1), palette)
    colour *= shade(heights, rng.uniform(0, 6.3), 9.0)[..., None] * (1 + 0.13 * woods[..., None])
    lake = step(-heights, 0.95, 1.0)[..., None]
    colour += lake * ((np.array([0.07, 0.17, 0.26], np.float32) * (1 + 0.02 * woods[..., None])) - colour)
    ground = smooth(colour, 0.6)
    y, x = grid(height, width)
    # A camera that looks down at a slant: rows further up are further away.
    tilt = 1.15 - 0.35 * y / height
    scale = 270 / height * 1.15
    cx, cy = (x - width / 2) * scale * tilt, (y - height / 2) * scale * tilt
    speed, turn = rng.uniform(30, 55) / fps, rng.uniform(-0.06, 0.06) / fps
    for t in range(frames):
        a = 0.4 + turn * t
        gx = cx * np.cos(a) - cy * np.sin(a) + t * speed * np.sin(a)
        gy = cx * np.sin(a) + cy * np.cos(a) - t * speed * np.cos(a)
        yield sample(ground, gy, gx)


def water(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Open water in the evening: gravity waves, ripples, reflected sky and the sun's glints."""
    y, x = grid(height, width)
    horizon = 0.26 * height
    depth = np.maximum(y - horizon, 0.4) / height
    distance = 0.55 / (depth + 0.06)
    gx, gz = (x - width / 2) / height * distance, distance * 2.2
    waves = [(rng.normal(0, 0.5), k, rng.uniform(0, 6.3)) for k in np.geomspace(2.0, 34.0, 11)]
    ripples, cirrus = fractal(rng, 512, 512, 1.1), fractal(rng, 512, 1024, 1.5)
    sky_stops = [(0.22, 0.30, 0.48), (0.55, 0.52, 0.60), (0.95, 0.72, 0.48)]
    streaks = window(cirrus, 0, 0, height, width)[..., None]
    sky = ramp(np.clip(y / horizon, 0, 1), sky_stops) * (1 + 0.06 * streaks)
    sun_x = width * rng.uniform(0.3, 0.7)
    sun = np.exp(-(((x - sun_x) / height) ** 2 + ((y - horizon * 0.7) / height) ** 2) / 0.004)[..., None]
    sky = sky + sun * np.array([0.9, 0.75, 0.5], np.float32)
    shore = step(y, horizon - 0.6, horizon + 0.6)[..., None]
    toward_sun = np.exp(-(((x - sun_x) / height) ** 2) / (0.012 + 0.05 * depth))
    for t in range(frames):
        time = t / fps
        slope_x, slope_z = np.zeros_like(x), np.zeros_like(x)
        for heading, k, phase in waves:
            kx, kz = k * np.sin(heading), k * np.cos(heading)
            swell = np.cos(kx * gx + kz * gz - np.sqrt(9.8 * k) * time * 0.55 + phase)
            # Waves shorter than about two pixels would alias.
            swell *= np.exp(-((k * distance / height * 2.6) ** 2)) / k**0.12
            slope_x, slope_z = slope_x + swell * np.sin(heading), slope_z + swell * np.cos(heading)
        near = np.exp(-distance * 0.5)
        bump = sample(ripples, gz * 90 - time * 40, gx * 90 + time * 16) * near
        bump = bump + sample(ripples, gz * 60 + time * 20, gx * 60 - time * 26) * near
        facing = np.clip(0.42 + 0.085 * slope_z + 0.035 * bump + 0.25 * (1 - depth), 0, 1)
        sea = ramp(facing, [(0.03, 0.09, 0.12), (0.12, 0.24, 0.29), (0.46, 0.44, 0.47), (0.88, 0.70, 0.52)])
        glint = np.exp(-((slope_x * 0.6 + bump * 0.8 - 1.1) ** 2) * 2.2) * toward_sun
        sea = sea + (glint * 0.85)[..., None] * np.array([1.0, 0.86, 0.62], np.float32)
        yield sky + shore * (sea - sky)


def foliage(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Layers of leaves that sway in the wind, each at its own pace; sun flecks between them."""
    unit = height / 270
    margin = round(30 * unit)
    canvas_h, canvas_w = height + 2 * margin, width + 2 * margin
    green = [(0.05, 0.14, 0.04), (0.13, 0.30, 0.07), (0.28, 0.45, 0.12), (0.55, 0.62, 0.22)]
    layers = []
    for depth, (low, high, cover) in enumerate([(2.5, 14, 3.0), (4, 26, 1.1), (7, 52, 0.42)]):
        tones = [tuple(c * (0.55 + 0.3 * depth) for c in stop) for stop in green]
        layer = dead_leaves(
            rng,
            canvas_h * 2,
            canvas_w * 2,
            radii=(low * 2 * unit, high * 2 * unit),
            colours=[(t[0], t[1], t[2]) for t in tones],
            shape="leaf",
            coverage=cover * 1.6,
            opaque=depth == 0,
        )
        layer[..., :3] *= layer[..., 3:]
        layers.append(halve(layer))
    light = fractal(rng, 512, 512, 1.6)
    sway_x = [wander(rng, frames, fps, 0.7 + 0.3 * i) * (2 + 4.0 * i) * unit for i in range(3)]
    sway_y = [wander(rng, frames, fps, 0.9 + 0.3 * i) * (1 + 1.5 * i) * unit for i in range(3)]
    for t in range(frames):
        frame: Array = np.zeros((height, width, 3), np.float32)
        for layer, dx, dy in zip(layers, sway_x, sway_y, strict=True):
            part = window(layer, margin + float(dy[t]), margin + float(dx[t]), height, width)
            frame = frame * (1 - part[..., 3:]) + part[..., :3]
        flecks = 0.95 + 0.35 * window(light, t * 0.5 * unit, t * 0.8 * unit, height, width)
        yield frame * np.clip(flecks, 0.3, 2)[..., None]


def rain(rng: np.random.Generator, height: int, width: int, frames: int, fps: float) -> Iterator[Array]:
    """Rain at three depths over a soft, wet, moving street background."""
    unit = height / 270
    colours = [(0.16, 0.18, 0.20), (0.30, 0.32, 0.33), (0.40, 0.33, 0.28), (0.55, 0.56, 0.58)]
    size = (height * 2, width * 2)
    scene = dead_leaves(rng, *size, radii=(6 * unit, 150 * unit), colours=colours, shape="box")[..., :3]
    scene = smooth(halve(scene), 1.3 * unit)
    mist = fractal(rng, 512, 512, 1.8)
    sheets = []
    for i, (length, thickness, density) in enumerate([(7, 0.45, 9e-4), (14, 0.6, 4e-4), (30, 0.9, 9e-5)]):
        drops = (rng.random((512, 1024)) < density / unit) * rng.uniform(0.5, 1.0, (512, 1024))
        sheets.append((_streak(drops.astype(np.float32), length * unit, thickness * unit, 0.12), (11 + 9 * i) * unit))
    drift = rng.uniform(8, 20) / fps * unit
    for t in range(frames):
        frame = window(scene, 0, 20 + t * drift, height, width)
        fog = np.clip(0.28 + 0.12 * window(mist, t * 0.3, t * 1.5 * unit, height, width), 0, 0.8)[..., None]
        frame = frame + fog * (0.55 - frame)
        for sheet, speed in sheets:
            fall = t * speed * 24 / fps
            frame = frame + 0.35 * window(sheet, -fall, fall * 0.12, height, width)[..., None]
        yield frame


def _streak(points: Array, length: float, thickness: float, lean: float) -> Array:
    """Points drawn out into leaning lines of `length` pixels, peak brightness about 1."""
    fy = np.fft.fftfreq(points.shape[0])[:, None]
    fx = np.fft.rfftfreq(points.shape[1])[None, :]
    along = np.sinc((fy - lean * fx) * length)
    across = np.exp(-2 * (np.pi * thickness) ** 2 * (fx + lean * fy) ** 2)
    drawn = np.fft.irfft2(np.fft.rfft2(points) * along * across, s=points.shape)
    return np.clip(drawn / np.quantile(drawn, 0.999), 0, 1.3).astype(np.float32)

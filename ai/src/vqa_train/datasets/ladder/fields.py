"""Numpy building blocks of the procedural scenes: 1/f textures, sampling at sub-pixel places, colour ramps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]


def fractal(rng: np.random.Generator, height: int, width: int, slope: float = 1.0) -> Array:
    """Periodic Gaussian texture whose amplitude spectrum falls as 1/f^slope; float32 (H, W), zero mean, unit std.

    slope = 1 (power 1/f^2) is the average of natural images (Field 1987, "Relations between the statistics of
    natural images and the response properties of cortical cells").
    """
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * radius**-slope
    spectrum[0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray(field / field.std(), np.float32)


def window(texture: Array, y: float, x: float, height: int, width: int) -> Array:
    """The (height, width) part of a periodic texture (H, W[, C]) at a fractional offset, by Catmull-Rom splines."""
    rows, row_weights = _spline(y)
    columns, column_weights = _spline(x)
    taken = texture.take(np.arange(rows, rows + height + 3), axis=0, mode="wrap")
    taken = taken.take(np.arange(columns, columns + width + 3), axis=1, mode="wrap")
    across = sum(w * taken[:, i : i + width] for i, w in enumerate(column_weights))
    return np.asarray(sum(w * across[i : i + height] for i, w in enumerate(row_weights)), np.float32)


def _spline(offset: float) -> tuple[int, Array]:
    whole = int(np.floor(offset))
    t = offset - whole
    weights = (
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    )
    return whole - 1, np.array(weights, np.float32)


def sample(texture: Array, y: Array, x: Array) -> Array:
    """A periodic texture (H, W[, C]) at any places, bilinear; the result has the shape of `y` (and C)."""
    height, width = texture.shape[:2]
    y0, x0 = np.floor(y), np.floor(x)
    fy, fx = y - y0, x - x0
    if texture.ndim == 3:
        fy, fx = fy[..., None], fx[..., None]
    top = y0.astype(np.int64) % height
    left = x0.astype(np.int64) % width
    bottom, right = (top + 1) % height, (left + 1) % width
    flat = texture.reshape(height * width, *texture.shape[2:])
    upper = flat.take(top * width + left, axis=0) * (1 - fx) + flat.take(top * width + right, axis=0) * fx
    lower = flat.take(bottom * width + left, axis=0) * (1 - fx) + flat.take(bottom * width + right, axis=0) * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def halve(image: Array) -> Array:
    """Mean of 2 x 2 blocks; (H, W[, C]) -> (H // 2, W // 2[, C])."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    image = image[:height, :width]
    return np.asarray(
        (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) * 0.25, np.float32
    )


def smooth(image: Array, sigma: float) -> Array:
    """Periodic Gaussian blur of (H, W[, C]) with `sigma` in pixels."""
    fy = np.fft.fftfreq(image.shape[0])[:, None]
    fx = np.fft.rfftfreq(image.shape[1])[None, :]
    gain = np.exp(-2 * (np.pi * sigma) ** 2 * (fy**2 + fx**2))
    if image.ndim == 3:
        gain = gain[..., None]
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * gain
    return np.fft.irfft2(spectrum, s=image.shape[:2], axes=(0, 1)).astype(np.float32)


def ramp(value: Array | float, stops: Sequence[Colour]) -> Array:
    """`value` in 0-1 as a colour on evenly spaced stops; adds a last axis of 3."""
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(value, places, [stop[c] for stop in stops]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def step(value: Array, low: float, high: float) -> Array:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel coordinates (y, x), each float32 (H, W)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return y, x


def shade(heights: Array, direction: float, strength: float) -> Array:
    """Hill shading around 1 of a periodic height map (H, W), lit from `direction` in radians."""
    slope = (np.roll(heights, -1, 1) - np.roll(heights, 1, 1)) * np.cos(direction)
    slope = slope + (np.roll(heights, -1, 0) - np.roll(heights, 1, 0)) * np.sin(direction)
    return np.asarray(1 + np.tanh(slope * strength) * 0.8, np.float32)


def wander(rng: np.random.Generator, frames: int, fps: float, hertz: float) -> Array:
    """A smooth random path, float32 (frames,), about unit std over long times, with little above `hertz`."""
    count = max(frames, round(fps * 8))
    frequencies = np.fft.rfftfreq(count, 1 / fps)
    spectrum = np.fft.rfft(rng.standard_normal(count)) * np.exp(-((frequencies / hertz) ** 2))
    spectrum[0] = 0
    path = np.fft.irfft(spectrum, n=count)
    return np.asarray((path / path.std())[:frames], np.float32)

"""What every metric shares: which rows count, what a constant is, and weighted moments over resamples."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Scores that differ by less than this share of their size differ by rounding only.
_ROUNDING = 1e-13


def finite_pairs(predicted: ArrayLike, target: ArrayLike) -> tuple[Floats, Floats]:
    """The rows where both are finite, as float64 (n,).

    Raises:
        ValueError: not one-dimensional, or of different lengths.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"predicted and target must be two vectors of one length, got {x.shape} and {y.shape}")
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def is_constant(values: Floats) -> bool:
    """True when the values (n,) are all the same up to rounding, or fewer than two."""
    if len(values) < 2:
        return True
    low, high = values.min(), values.max()
    return bool(high / 2 - low / 2 <= _ROUNDING * max(abs(low), abs(high)))


def unit_scale(values: Floats) -> Floats:
    """The values (n,) mapped linearly to 0..1, so that no later square over- or underflows; a constant gives zeros."""
    if is_constant(values):
        return np.zeros_like(values)
    low, high = values.min(), values.max()
    return np.asarray((values / 2 - low / 2) / (high / 2 - low / 2), dtype=np.float64)


def count_equal(values: Floats, counts: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """How often each distinct value occurs in each resample.

    Args:
        values: (n,) finite.
        counts: (R, n), how often each row occurs in each resample.

    Returns:
        (R, U) occurrences of the U distinct values in rising order, and (n,) which of them each row is.
    """
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    return np.add.reduceat(counts[:, order], starts, axis=1), place


def weighted_pearson(x: Floats, y: Floats, counts: Floats) -> Floats:
    """Pearson correlation of x with y where row i occurs counts[r, i] times.

    Args:
        x, y: (n,) shared by all resamples, or (R, n).
        counts: (R, n), how often each row occurs in each resample.

    Returns:
        (R,), in [-1, 1]; NaN where a resample is constant in x or y.
    """
    total = counts.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        dx = x - (counts * x).sum(axis=1, keepdims=True) / total
        dy = y - (counts * y).sum(axis=1, keepdims=True) / total
        xx, yy = (counts * dx * dx).sum(axis=1), (counts * dy * dy).sum(axis=1)
        ratio = (counts * dx * dy).sum(axis=1) / np.sqrt(xx * yy)
    size = total[:, 0] * _ROUNDING**2
    constant = (xx <= size * np.max(x * x)) | (yy <= size * np.max(y * y))
    return np.where(constant, np.nan, np.clip(ratio, -1.0, 1.0))

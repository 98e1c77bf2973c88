"""RMSE: root of the mean squared difference between predictions and opinion scores, in units of the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, finite_pairs


def rmse(predicted: ArrayLike, target: ArrayLike) -> float:
    """Root mean squared error on the scale of the labels.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Returns:
        At least 0; NaN when no row is left. A constant prediction has an error like any other.

    Raises:
        ValueError: shapes differ.
    """
    x, y = finite_pairs(predicted, target)
    if len(x) == 0:
        return float("nan")
    return float(rmse_resampled(x, y, np.ones((1, len(x))))[0])


def rmse_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """RMSE of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,)."""
    difference = predicted - target
    # Scaled so that the square of a huge or tiny difference stays a number.
    scale = float(np.abs(difference).max()) or 1.0
    squares = (difference / scale) ** 2
    return np.asarray(scale * np.sqrt(counts @ squares / counts.sum(axis=1)), dtype=np.float64)


RMSE = Metric(name="rmse", compute=rmse, resampled=rmse_resampled, mapped=True, higher_is_better=False)

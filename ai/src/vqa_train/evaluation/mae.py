"""MAE: mean absolute difference between predictions and opinion scores, in units of the score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, finite_pairs


def mae(predicted: ArrayLike, target: ArrayLike) -> float:
    """Mean absolute error on the scale of the labels.

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
    return float(mae_resampled(x, y, np.ones((1, len(x))))[0])


def mae_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """MAE of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,)."""
    return np.asarray(counts @ np.abs(predicted - target) / counts.sum(axis=1), dtype=np.float64)


MAE = Metric(name="mae", compute=mae, resampled=mae_resampled, mapped=True, higher_is_better=False)

"""PLCC: Pearson's linear correlation of predictions and opinion scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, finite_pairs, is_constant, unit_scale, weighted_pearson


def plcc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Pearson's r.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Returns:
        In [-1, 1]; NaN (never 0) when either is constant or fewer than two rows are left.

    Raises:
        ValueError: shapes differ.
    """
    x, y = finite_pairs(predicted, target)
    if is_constant(x) or is_constant(y):
        return float("nan")
    return float(plcc_resampled(x, y, np.ones((1, len(x))))[0])


def plcc_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """Pearson's r of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,)."""
    return weighted_pearson(unit_scale(predicted), unit_scale(target), counts)


PLCC = Metric(name="plcc", compute=plcc, resampled=plcc_resampled, mapped=True)

"""SROCC: Spearman's rank correlation, the order agreement of predictions and opinion scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, count_equal, finite_pairs, is_constant, weighted_pearson


def srocc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Spearman's rho: Pearson correlation of the ranks, ties sharing their mean rank.

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
    return float(srocc_resampled(x, y, np.ones((1, len(x))))[0])


def srocc_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """Spearman's rho of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,)."""
    return weighted_pearson(_ranks(predicted, counts), _ranks(target, counts), counts)


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Rank of each row within each resample, ties sharing their mean: (R, n). One sort serves all resamples."""
    equal, place = count_equal(values, counts)
    below = np.cumsum(equal, axis=1) - equal
    return np.asarray((below + (equal + 1.0) / 2.0)[:, place], dtype=np.float64)


SROCC = Metric(name="srocc", compute=srocc, resampled=srocc_resampled)

"""KROCC: Kendall's tau-b, the share of pairs of videos put in the right order."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, count_equal, finite_pairs, is_constant

_BLOCK = 256


def krocc(predicted: ArrayLike, target: ArrayLike) -> float:
    """Kendall's tau-b (corrected for ties), in O(N log N).

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
    return float(kendalltau(x, y, variant="b").statistic)


def krocc_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """Tau-b of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,).

    All resamples share the (n, n) matrix of pair agreements, so this costs O(R n²), in blocks of bounded memory.
    Copies of one row are ties in both vectors. NaN where a resample is constant.
    """
    # Places in the order, signs and counts are small integers: float32 holds them and their row sums exactly.
    x, y = (np.unique(v, return_inverse=True)[1].astype(np.float32) for v in (predicted, target))
    agreement = np.zeros(len(counts))
    drawn = np.ascontiguousarray(counts.T, dtype=np.float32)
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        signs = np.subtract.outer(x[rows], x)
        np.sign(signs, out=signs)
        other = np.subtract.outer(y[rows], y)
        signs *= np.sign(other, out=other)
        agreement += np.einsum("rb,br->r", counts[:, rows], signs @ drawn)
    untied = np.sqrt(_untied(predicted, counts) * _untied(target, counts))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(untied > 0, agreement / untied, np.nan)


def _untied(values: Floats, counts: Floats) -> Floats:
    """Ordered pairs of a resample whose values differ: (R,)."""
    equal, _ = count_equal(values, counts)
    return np.asarray(counts.sum(axis=1) ** 2 - (equal * equal).sum(axis=1), dtype=np.float64)


KROCC = Metric(name="krocc", compute=krocc, resampled=krocc_resampled, pairwise=True)

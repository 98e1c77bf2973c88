"""What features share with one another and tell about the labels: CKA, mutual information, rank correlations."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NEIGHBOURS = 3
_BLOCK = 1024
_COLLINEAR = 1e-8


def standardised(x: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
    """Columns (n, D) with mean 0 and deviation 1 over their finite values, 0 in place of others; which of them vary."""
    values = x.astype(np.float64)
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, values, 0).sum(axis=0) / count
    centred = np.where(finite, values - mean, 0.0)
    std = np.sqrt((centred**2).sum(axis=0) / count)
    # A deviation of a few float32 roundings of the mean is none.
    varies = std > 4 * np.finfo(np.float32).eps * np.abs(mean)
    return np.where(varies, centred / np.where(varies, std, 1), 0.0), varies


def linear_cka(a: Floats, b: Floats) -> float:
    """Centred kernel alignment of two sets of columns over the same rows, with linear kernels, debiased.

    Kornblith et al. 2019 ("Similarity of neural network representations revisited") with the unbiased estimator of
    HSIC of Song et al. 2012 (equation 4): about 0 for unrelated sets however wide they are, 1 for sets equal up to
    rotation and scale.

    Args:
        a, b: (n, D) and (n, E), standardised.

    Returns:
        At most 1, slightly below 0 at times; NaN for fewer than four rows or a set without variation.
    """
    if len(a) < 4:
        return math.nan
    ka, kb = _kernel(a), _kernel(b)
    scale = _hsic(ka, ka) * _hsic(kb, kb)
    return _hsic(ka, kb) / math.sqrt(scale) if scale > 0 else math.nan


def _kernel(a: Floats) -> Floats:
    """a a' without its diagonal, scaled so that its size does not matter."""
    kernel = a @ a.T / max(a.shape[1], 1)
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel, dtype=np.float64)


def _hsic(k: Floats, m: Floats) -> float:
    """Unbiased estimate of HSIC from kernel matrices (n, n) with zero diagonals."""
    n = len(k)
    total = float((k * m).sum())
    sums = float(k.sum()) * float(m.sum()) / ((n - 1) * (n - 2))
    rows = float(k.sum(axis=0) @ m.sum(axis=0)) * 2 / (n - 2)
    return (total + sums - rows) / (n * (n - 3))


def mutual_information(x: Floats, labels: Floats, seed: int) -> Floats:
    """Mutual information of each column with the label in nats, (D,); at least 0.

    The nearest-neighbour estimator of Kraskov et al. 2004 with three neighbours, as scikit-learn has it; NaN for all
    columns where fewer than five labels are known or they do not vary.

    Args:
        x: (n, D).
        labels: (n,), NaN where missing.
        seed: of the tiny noise that parts ties.
    """
    from sklearn.feature_selection import mutual_info_regression

    known = np.isfinite(labels)
    if known.sum() < _NEIGHBOURS + 2 or np.unique(labels[known]).size < 2:
        return np.full(x.shape[1], np.nan)
    found = mutual_info_regression(
        x[known], labels[known], n_neighbors=_NEIGHBOURS, random_state=seed % (1 << 32), discrete_features=False
    )
    return np.asarray(found, dtype=np.float64)


def ranks(x: Floats) -> Floats:
    """Ranks of each column (n, D) with mean 0 and length 1; ties share theirs, NaN have the mean; 0 where none vary."""
    from scipy.stats import rankdata

    found = rankdata(x, axis=0, nan_policy="omit")
    found = found - np.nanmean(found, axis=0)
    found = np.where(np.isfinite(found), found, 0.0)
    length = np.sqrt((found**2).sum(axis=0))
    return np.asarray(found / np.where(length > 0, length, 1), dtype=np.float64)


def rank_correlation(ranked: Floats) -> Floats:
    """SROCC of each pair of columns, (D, D), from `ranks`; NaN for a column that does not vary."""
    varies = (ranked != 0).any(axis=0)
    found = np.clip(ranked.T @ ranked, -1, 1)
    found[~varies] = np.nan
    found[:, ~varies] = np.nan
    return np.asarray(found, dtype=np.float64)


def nearest(ranked: Floats) -> tuple[NDArray[np.int64], Floats]:
    """For each column the other one with the largest absolute SROCC, (D,), and that SROCC; NaN where there is none."""
    width = ranked.shape[1]
    varies = (ranked != 0).any(axis=0)
    other, value = np.zeros(width, dtype=np.int64), np.full(width, np.nan)
    if varies.sum() < 2:
        return other, value
    for start in range(0, width, _BLOCK):
        part = np.arange(start, min(start + _BLOCK, width))
        found = np.clip(ranked[:, part].T @ ranked, -1, 1)
        size = np.where(varies, np.abs(found), -1)
        size[np.arange(len(part)), part] = -1
        other[part] = size.argmax(axis=1)
        value[part] = np.where(varies[part], found[np.arange(len(part)), other[part]], np.nan)
    return other, value


def stepwise(x: Floats, y: Floats, count: int) -> NDArray[np.int64]:
    """Columns in the order of forward stepwise regression: at each step the one that lowers the squared error most.

    Orthogonal least squares (Chen, Billings and Luo 1989); several labels count alike. Columns that are combinations
    of those taken come last, by number.

    Args:
        x: (n, D), columns with mean 0.
        y: (n, K), columns with mean 0.
        count: how many of them.
    """
    columns, rest = x.copy(), y.copy()
    whole = (columns**2).sum(axis=0)
    taken: list[int] = []
    free = np.ones(x.shape[1], dtype=np.bool_)
    while len(taken) < count:
        energy = (columns**2).sum(axis=0)
        usable = free & (energy > _COLLINEAR * whole)
        if not usable.any():
            taken += np.flatnonzero(free)[: count - len(taken)].tolist()
            break
        gain = ((columns.T @ rest) ** 2).sum(axis=1)
        best = int(np.where(usable, gain / np.where(usable, energy, 1), -1).argmax())
        taken.append(best)
        free[best] = False
        direction = columns[:, best] / math.sqrt(energy[best])
        rest -= np.outer(direction, direction @ rest)
        columns -= np.outer(direction, direction @ columns)
    return np.asarray(taken, dtype=np.int64)

"""The rows of VqaRegressor: checked, in float32, equal ones joined, with the weights that the trainer understands."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa_train.core.hashing import sha256_bytes


def finite_labels(y: NDArray[Any]) -> NDArray[np.float64]:
    """(n, K)."""
    labels = np.asarray(y, dtype=np.float64)
    labels = labels[:, None] if labels.ndim == 1 else labels
    if not np.isfinite(labels).all():
        raise ValueError("y contains NaN or infinity; leave those rows out")
    return labels


def weights(sample_weight: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    """(n,)."""
    weight = np.asarray(1.0 if sample_weight is None else sample_weight, dtype=np.float64)
    weight = np.full(rows, float(weight)) if weight.ndim == 0 else weight
    if weight.shape != (rows,) or not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError(f"sample_weight needs {rows} finite numbers of at least 0, got shape {weight.shape}")
    return weight


def float32(X: NDArray[Any]) -> NDArray[np.float32]:
    """An own copy; a float64 beyond the range of float32 becomes infinite, which the head takes for missing."""
    with np.errstate(over="ignore"):
        return np.array(X, dtype=np.float32, order="C")


def distinct(
    X: NDArray[Any], labels: NDArray[np.float64], weight: NDArray[np.float64], groups: NDArray[np.str_] | None
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64], list[str], list[str]]:
    """Rows of weight above 0 that differ from one another: features, labels, weight (the largest is 1), key, group."""
    features = float32(X)
    found: dict[str, int] = {}
    total: list[float] = []
    rows: list[int] = []
    for row in np.flatnonzero(weight > 0).tolist():
        owner = "" if groups is None else str(groups[row])
        content = features[row].tobytes() + labels[row].tobytes() + owner.encode()
        key = sha256_bytes(content)
        if key not in found:
            found[key] = len(rows)
            rows.append(row)
            total.append(0.0)
        total[found[key]] += float(weight[row])
    if not rows:
        raise ValueError("sample_weight is zero for every row")
    sums = np.asarray(total)
    keys = list(found)
    owners = keys if groups is None else [str(groups[row]) for row in rows]
    return features[rows], labels[rows], sums / sums.max(), keys, owners


def std_of(weight: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Deviations of the opinions (n, K) under which the trainer gives each row its weight w.

    It weighs a label whose opinions deviate by s by 1 / (1 + (s / deviation of the training labels)^2).
    """
    return np.asarray(np.sqrt(1 / weight - 1)[:, None] * labels.std(axis=0), dtype=np.float32)

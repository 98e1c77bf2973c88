"""The rows that a head is trained on: checked, in canonical order, with the statistics that scale them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError, LabelError
from vqa_train.core.hashing import sha256_bytes, sha256_json
from vqa_train.heads.base import ScalingStatistics

# A column whose deviation is a few float32 roundings of its mean is constant.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)
_COLUMNS = 256


@dataclass(frozen=True, kw_only=True)
class TrainingTable:
    """Features and labels of N rows.

    Attributes:
        features: name -> float32 (N, D).
        targets: float32 (N, K), NaN where a label is missing.
        target_names: (K,).
        groups: (N,).
        order: int64 (N,), row of the caller's arrays that each row was.
        identity: hash of the input names and lengths, target names and keys (of the labels where there are no keys).
    """

    features: dict[str, NDArray[np.float32]]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    groups: tuple[str, ...]
    order: NDArray[np.int64]
    identity: str


def build_table(
    features: Mapping[str, NDArray[np.float32]],
    targets: NDArray[np.float32],
    target_names: Sequence[str],
    groups: Sequence[str],
    keys: Sequence[str] | None,
) -> TrainingTable:
    """Checked copies of the arrays, sorted by key where there are keys.

    Raises:
        ConfigError: no rows, no features, shapes or lengths that differ, or a key that occurs twice.
        LabelError: an infinite label.
    """
    rows = len(targets)
    if targets.ndim != 2 or targets.shape[1] != len(target_names) or rows == 0:
        raise ConfigError(f"targets have shape {targets.shape}, expected (N, {len(target_names)}) with N above 0")
    if not features:
        raise ConfigError("no features to train on", hint="name at least one input in the recipe")
    for name, matrix in features.items():
        if matrix.ndim != 2 or len(matrix) != rows or matrix.shape[1] == 0:
            raise ConfigError(f"features {name!r} have shape {matrix.shape}, expected ({rows}, D) with D above 0")
    for what, values in (("groups", groups), ("keys", keys)):
        if values is not None and len(values) != rows:
            raise ConfigError(f"{len(values)} {what} for {rows} rows")
    if np.isinf(targets).any():
        row, column = np.argwhere(np.isinf(targets))[0]
        raise LabelError(f"label {target_names[column]!r} of row {row} is infinite", hint="mark a missing label as NaN")
    order = _canonical_order(keys, rows)
    labels = np.ascontiguousarray(targets[order], dtype=np.float32)
    content = sorted(keys) if keys is not None else sha256_bytes(labels.tobytes())
    dims = [[name, matrix.shape[1]] for name, matrix in features.items()]
    return TrainingTable(
        features={name: np.ascontiguousarray(_float32(matrix)[order]) for name, matrix in features.items()},
        targets=labels,
        target_names=tuple(target_names),
        groups=tuple(groups[i] for i in order),
        order=order,
        identity=sha256_json({"inputs": dims, "targets": list(target_names), "rows": content}),
    )


def scaling_statistics(table: TrainingTable, rows: NDArray[np.bool_]) -> ScalingStatistics:
    """Means and standard deviations over the given rows, in float64; NaN and infinite inputs are left out."""
    means, stds, varies = [], [], []
    for matrix in table.features.values():
        # In blocks of columns, so that a wide matrix is not copied to float64 whole.
        for start in range(0, matrix.shape[1], _COLUMNS):
            mean, std = _moments(matrix[rows, start : start + _COLUMNS])
            moving = std > np.maximum(_ROUNDING * np.abs(mean), _TINY)
            means.append(mean)
            stds.append(np.where(moving, std, 1.0))
            varies.append(moving)
    labels = table.targets[rows]
    mean, std = _moments(labels)
    return ScalingStatistics(
        input_mean=np.concatenate(means).astype(np.float32),
        input_std=np.concatenate(stds).astype(np.float32),
        input_varies=np.concatenate(varies),
        target_mean=mean.astype(np.float32),
        target_std=std.astype(np.float32),
        target_min=np.nanmin(labels, axis=0),
        target_max=np.nanmax(labels, axis=0),
    )


def _canonical_order(keys: Sequence[str] | None, rows: int) -> NDArray[np.int64]:
    if keys is None:
        return np.arange(rows)
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"key {key!r} names {count} rows", hint="give every row a key of its own")
    return np.asarray(sorted(range(rows), key=lambda i: keys[i]), dtype=np.int64)


def _float32(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    # A float64 beyond the range of float32 becomes infinite, is counted and then masked like one.
    with np.errstate(over="ignore"):
        return matrix.astype(np.float32, copy=False)


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of the finite values of each column; 0 where there are none."""
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=0), 1)
    exact = np.where(finite, values, 0).astype(np.float64)
    mean = exact.sum(axis=0) / count
    deviation = np.where(finite, exact - mean, 0.0)
    return mean, np.sqrt((deviation * deviation).sum(axis=0) / count)

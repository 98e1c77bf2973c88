"""The rows that a head is trained on: checked, in canonical order, with the statistics that scale them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError, LabelError
from vqa_train.core.hashing import sha256_bytes, sha256_json
from vqa_train.heads.base import ScalingStatistics
from vqa_train.heads.order import window_rows
from vqa_train.heads.source import FeatureRows, MappedRows, single

# A column whose deviation is a few float32 roundings of its mean is constant.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)
_TILE_ROWS, _TILE_COLUMNS = 512, 256


@dataclass(frozen=True, kw_only=True)
class TrainingTable:
    """Features and labels of N rows.

    Attributes:
        features: name -> float32 or float16 (N, D) or (N, T, D), or rows in a file.
        targets: float32 (N, K), NaN where a label is missing.
        target_names: (K,).
        groups: (N,).
        order: int64 (N,), row of the caller's arrays that each row was.
        identity: hash of the input names and shapes, target names and keys (of the labels where there are no keys).
        target_std: float32 (N, K), standard deviation of the opinions behind each label, NaN where unknown; or None.
        dataset: int64 (N,), number of each row's dataset.
        dataset_names: (D,); the first one's scale is the shared one.
    """

    features: dict[str, NDArray[Any] | MappedRows]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    groups: tuple[str, ...]
    order: NDArray[np.int64]
    identity: str
    target_std: NDArray[np.float32] | None
    dataset: NDArray[np.int64]
    dataset_names: tuple[str, ...]

    @cached_property
    def rows(self) -> FeatureRows:
        """The features side by side."""
        return FeatureRows(self.features)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Input name -> shape of one row."""
        return {name: tuple(part.shape[1:]) for name, part in self.features.items()}

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """int64 (N,), row of this table that each of the caller's rows is."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(self.order))
        return place


def build_table(
    features: Mapping[str, NDArray[Any] | MappedRows],
    targets: NDArray[np.float32],
    target_names: Sequence[str],
    groups: Sequence[str],
    keys: Sequence[str] | None,
    *,
    datasets: Sequence[str] | None = None,
    target_std: NDArray[np.float32] | None = None,
) -> TrainingTable:
    """Checked copies of the arrays, sorted by key where there are keys.

    Args:
        features: name -> (N, D) or (N, T, D); rows in a file are not copied, and then keys must be sorted already.
        targets: (N, K), NaN where a label is missing.
        groups, keys: (N,).
        datasets: (N,) name of each row's dataset; the first name that occurs is the reference. None: one dataset.
        target_std: (N, K) standard deviation of the opinions, NaN where unknown.

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
        if len(matrix.shape) not in (2, 3) or matrix.shape[0] != rows or 0 in matrix.shape:
            raise ConfigError(f"features {name!r} have shape {matrix.shape}, expected ({rows}, D) with D above 0")
    for what, values in (("groups", groups), ("keys", keys), ("datasets", datasets)):
        if values is not None and len(values) != rows:
            raise ConfigError(f"{len(values)} {what} for {rows} rows")
    if target_std is not None and target_std.shape != targets.shape:
        raise ConfigError(f"target_std has shape {target_std.shape}, expected {targets.shape}")
    if np.isinf(targets).any():
        row, column = np.argwhere(np.isinf(targets))[0]
        raise LabelError(f"label {target_names[column]!r} of row {row} is infinite", hint="mark a missing label as NaN")
    order = _canonical_order(keys, rows)
    labels = np.ascontiguousarray(targets[order], dtype=np.float32)
    content = sorted(keys) if keys is not None else sha256_bytes(labels.tobytes())
    dims = [[name, *matrix.shape[1:]] for name, matrix in features.items()]
    names = tuple(dict.fromkeys(datasets)) if datasets is not None else ("",)
    number = {name: i for i, name in enumerate(names)}
    return TrainingTable(
        features={name: _sorted(name, matrix, order) for name, matrix in features.items()},
        targets=labels,
        target_names=tuple(target_names),
        groups=tuple(groups[i] for i in order),
        order=order,
        identity=sha256_json({"inputs": dims, "targets": list(target_names), "rows": content}),
        target_std=None if target_std is None else np.ascontiguousarray(target_std[order], dtype=np.float32),
        dataset=np.asarray([number[datasets[i]] for i in order] if datasets is not None else [0] * rows),
        dataset_names=names,
    )


def table_rows(table: TrainingTable, rows: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """Rows of the table that some of the caller's rows are, in the same order.

    Raises:
        ConfigError: not a vector of whole numbers from 0 to N - 1; names `what`.
    """
    count = len(table.targets)
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ConfigError(
            f"{what}: expected row numbers, a vector of integers, got {numbers.dtype} of shape {numbers.shape}",
            hint="np.flatnonzero makes row numbers of a mask",
        )
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < count:
        wrong = int(numbers.min()) if numbers.min() < 0 else int(numbers.max())
        raise ConfigError(f"{what}: row {wrong} of a table of {count} rows")
    return table.place[numbers.astype(np.int64)]


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What one head standardises with, of its training rows alone.

    Attributes:
        statistics: what its graph keeps; the labels' are those of each target's reference dataset.
        label_mean, label_std: float32 (D, K) of each dataset's labels; 0 and 1 where there are none, and a deviation
            of 1 where they are constant.
        reference: int64 (K,), number of the dataset whose scale each target's predictions have: the first with at
            least two different labels.
    """

    statistics: ScalingStatistics
    label_mean: NDArray[np.float32]
    label_std: NDArray[np.float32]
    reference: NDArray[np.int64]


def scalings(table: TrainingTable, parts: Sequence[NDArray[np.int64]]) -> list[Scaling]:
    """Means and standard deviations over each of several sets of rows, in float64, in one pass over the features.

    NaN and infinite inputs are left out. The steps of an input of shape (T, D) share the statistics of D.

    Args:
        parts: sorted rows of the table, among which every target has two different labels of one dataset.
    """
    totals = [_Moments(table.rows.columns) for _ in parts]
    step = window_rows(table.rows.columns)
    for start in range(0, table.rows.rows, step):
        stop = min(start + step, table.rows.rows)
        edges = [np.searchsorted(rows, (start, stop)) for rows in parts]
        if any(last > first for first, last in edges):
            block = table.rows.block(start, stop)
            for total, rows, (first, last) in zip(totals, parts, edges, strict=True):
                total.add(block[rows[first:last] - start])
    return [_scaling(table, rows, total) for rows, total in zip(parts, totals, strict=True)]


def scaling_statistics(table: TrainingTable, rows: NDArray[np.int64]) -> ScalingStatistics:
    """`scalings` of one set of sorted rows: what a head's graph keeps."""
    return scalings(table, [rows])[0].statistics


def _scaling(table: TrainingTable, rows: NDArray[np.int64], total: _Moments) -> Scaling:
    mean, std = _shared_over_time(table, total)
    moving = std > np.maximum(_ROUNDING * np.abs(mean), _TINY)
    labels, dataset = table.targets[rows], table.dataset[rows]
    number, columns = len(table.dataset_names), len(table.target_names)
    label_mean, label_std = np.zeros((number, columns)), np.ones((number, columns))
    different = np.zeros((number, columns), dtype=np.bool_)
    for i in np.unique(dataset).tolist():
        own = labels[dataset == i]
        label_mean[i], deviation = _moments(own)
        label_std[i] = np.where(deviation > np.maximum(_ROUNDING * np.abs(label_mean[i]), _TINY), deviation, 1.0)
        different[i] = [len(np.unique(values[~np.isnan(values)])) > 1 for values in own.T]
    reference = different.argmax(axis=0)
    shared = [labels[dataset == i, column] for column, i in enumerate(reference)]
    every = np.arange(columns)
    return Scaling(
        statistics=ScalingStatistics(
            input_mean=mean.astype(np.float32),
            input_std=np.where(moving, std, 1.0).astype(np.float32),
            input_varies=moving,
            target_mean=label_mean[reference, every].astype(np.float32),
            target_std=label_std[reference, every].astype(np.float32),
            target_min=np.asarray([np.nanmin(values) for values in shared], dtype=np.float32),
            target_max=np.asarray([np.nanmax(values) for values in shared], dtype=np.float32),
        ),
        label_mean=label_mean.astype(np.float32),
        label_std=label_std.astype(np.float32),
        reference=reference,
    )


class _Moments:
    """Count, mean and sum of squared deviations per column of the finite values, in blocks (Chan et al. 1979)."""

    def __init__(self, columns: int) -> None:
        self.count = np.zeros(columns)
        self.mean = np.zeros(columns)
        self.square = np.zeros(columns)

    def add(self, block: NDArray[Any]) -> None:
        # In tiles that stay in the cache: a whole block in float64 would take four times its memory.
        for first in range(0, len(block), _TILE_ROWS):
            rows = block[first : first + _TILE_ROWS]
            for start in range(0, block.shape[1], _TILE_COLUMNS):
                part = slice(start, start + _TILE_COLUMNS)
                self._add(single(rows[:, part]), part)

    def _add(self, tile: NDArray[np.float32], part: slice) -> None:
        values = tile.astype(np.float64)
        finite = np.isfinite(tile)
        if finite.all():
            count = np.full(values.shape[1], float(len(values)))
            mean = values.sum(axis=0) / count
            values -= mean
        else:
            count = finite.sum(axis=0).astype(np.float64)
            mean = np.where(finite, values, 0).sum(axis=0) / np.maximum(count, 1)
            values = np.where(finite, values - mean, 0.0)
        square = np.einsum("ij,ij->j", values, values)
        before = self.count[part]
        both = np.maximum(before + count, 1)
        step = mean - self.mean[part]
        self.square[part] += square + step * step * before * count / both
        self.mean[part] += step * count / both
        self.count[part] = before + count

    def result(self, part: slice) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return self.count[part], self.mean[part], self.square[part]


def _shared_over_time(table: TrainingTable, total: _Moments) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and deviation per column; those of one feature at several times are pooled."""
    means, stds, start = [], [], 0
    for shape, width in zip(table.shapes.values(), table.rows.widths, strict=True):
        count, mean, square = (v.reshape(-1, shape[-1]) for v in total.result(slice(start, start + width)))
        rows = np.maximum(count.sum(axis=0), 1)
        pooled = (count * mean).sum(axis=0) / rows
        std = np.sqrt((square + count * (mean - pooled) ** 2).sum(axis=0) / rows)
        means.append(np.tile(pooled, len(count)))
        stds.append(np.tile(std, len(count)))
        start += width
    return np.concatenate(means), np.concatenate(stds)


def _canonical_order(keys: Sequence[str] | None, rows: int) -> NDArray[np.int64]:
    if keys is None:
        return np.arange(rows)
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise ConfigError(f"key {key!r} names {count} rows", hint="give every row a key of its own")
    return np.asarray(sorted(range(rows), key=lambda i: keys[i]), dtype=np.int64)


def _sorted(name: str, matrix: NDArray[Any] | MappedRows, order: NDArray[np.int64]) -> NDArray[Any] | MappedRows:
    if not isinstance(matrix, np.ndarray):
        if (np.diff(order) < 0).any():
            raise ConfigError(f"features {name!r} are rows in a file, and their keys are not sorted")
        return matrix
    # A float64 beyond the range of float32 becomes infinite, is counted and then masked like one.
    with np.errstate(over="ignore"):
        kept = matrix if matrix.dtype == np.float16 else matrix.astype(np.float32, copy=False)
    return np.ascontiguousarray(kept[order])


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of the finite values of each column; 0 where there are none."""
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(axis=0), 1)
    exact = np.where(finite, values, 0).astype(np.float64)
    mean = exact.sum(axis=0) / count
    deviation = np.where(finite, exact - mean, 0.0)
    return mean, np.sqrt((deviation * deviation).sum(axis=0) / count)

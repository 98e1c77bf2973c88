"""What `fit` keeps of its training rows, so that drift can be measured: columns of the inputs, the model's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import RunError
from vqa_train.pipelines.fit.column_moments import ColumnMoments
from vqa_train.pipelines.table import rows_of
from vqa_train.registry.facts import InputStatistics, ScoreStatistics, TrainingStatistics

if TYPE_CHECKING:
    from vqa_train.store.mapped import MappedMatrix

STATISTICS_SCHEMA = "vqa-train/training-statistics/1"
BINS = 10
# Bytes of rows that are read at once.
_READ = 1 << 26
# Numbers are kept to this part of their column's deviation, which no check can tell from the exact ones.
_PART = 1e-4
_DIGITS = 6


def training_statistics(
    features: Mapping[str, NDArray[np.float32] | MappedMatrix],
    scores: NDArray[np.float32],
    targets: Sequence[str],
    groups: Sequence[str],
    rows: NDArray[np.int64],
) -> TrainingStatistics:
    """Statistics of some rows; features in a file are read in pieces.

    Args:
        features: input name -> (N, D) or (N, T, D); NaN where missing.
        scores: float32 (N, K) of the final model.
        targets: K names.
        groups: (N,); rows of one group show the same content and count as one independent row.
        rows: the rows that took part in the fit, ascending.

    Raises:
        RunError: no rows.
    """
    if not len(rows):
        raise RunError("no training rows to take statistics of")
    return TrainingStatistics(
        rows=len(rows),
        groups=len({groups[row] for row in rows.tolist()}),
        inputs={name: _input(matrix, rows) for name, matrix in features.items()},
        scores={
            target: _score(scores[rows, k].astype(np.float64), [groups[row] for row in rows.tolist()])
            for k, target in enumerate(targets)
        },
    )


def to_document(statistics: TrainingStatistics) -> dict[str, Any]:
    """The run folder's file."""
    return {"schema": STATISTICS_SCHEMA, **statistics.model_dump(mode="json")}


def bin_shares(scores: NDArray[np.float64], deciles: Sequence[float]) -> NDArray[np.int64]:
    """int64 (10,): finite scores per bin; a bin takes its upper edge in."""
    bins = np.searchsorted(np.asarray(deciles), scores[np.isfinite(scores)], side="left")
    return np.asarray(np.bincount(bins, minlength=len(deciles) + 1), dtype=np.int64)


def _input(matrix: NDArray[np.float32] | MappedMatrix, rows: NDArray[np.int64]) -> InputStatistics:
    moments = ColumnMoments(matrix.shape[-1])
    step = max(1, _READ // (4 * max(1, int(np.prod(matrix.shape[1:])))))
    for start in range(0, len(rows), step):
        moments.add(rows_of(matrix, rows[start : start + step]))
    known, std = moments.count > 0, moments.std
    # A deviation of a few float32 roundings of the mean is none, as for the heads' own scaling.
    std = np.where(std > 4 * np.finfo(np.float32).eps * np.abs(moments.mean), std, 0.0)
    columns = [std, moments.mean, np.where(known, moments.low, 0.0), np.where(known, moments.high, 0.0)]
    rounded = [_rounded(*numbers) for numbers in zip(*(column.tolist() for column in columns), strict=True)]
    kept_std, mean, low, high = (list(column) for column in zip(*rounded, strict=True))
    return InputStatistics(
        rows=moments.rows, missing=round(moments.missing, 9), mean=mean, std=kept_std, low=low, high=high
    )


def effective_rows(values: NDArray[np.float64], groups: Sequence[str]) -> float:
    """Independent rows whose mean would be as sure as that of these: n over the design effect (Kish 1965), at most n.

    Args:
        values: float64 (N,), finite.
        groups: (N,); values of one group are not independent.
    """
    names, group = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    variance = float(values.var())
    if len(names) < 2:
        return float(min(1, len(values)))
    if variance == 0.0 or len(names) == len(values):
        return float(len(names))
    sums = np.bincount(group, weights=values - values.mean())
    effect = float(np.square(sums).sum()) / (len(values) * variance) * len(names) / (len(names) - 1)
    return len(values) / max(effect, 1.0)


def _score(scores: NDArray[np.float64], groups: Sequence[str]) -> ScoreStatistics:
    there = np.isfinite(scores)
    finite = scores[there]
    if not len(finite):
        raise RunError("the model has no score on any of its training rows", hint="fit again")
    deciles = np.quantile(finite, np.arange(1, BINS) / BINS).tolist()
    return ScoreStatistics(
        rows=len(finite),
        effective=effective_rows(finite, [groups[i] for i in np.flatnonzero(there).tolist()]),
        mean=float(finite.mean()),
        std=float(finite.std()),
        low=float(finite.min()),
        high=float(finite.max()),
        deciles=deciles,
        counts=bin_shares(finite, deciles).tolist(),
    )


def _rounded(std: float, mean: float, low: float, high: float) -> tuple[float, float, float, float]:
    """The four numbers of a column with few digits; low downwards and high upwards, so that no row lies outside."""
    if std == 0.0:
        return 0.0, float(f"{mean:.9g}"), float(f"{low:.9g}"), float(f"{high:.9g}")
    places = int(np.ceil(-np.log10(std * _PART)))
    unit = 10.0**-places
    down, up = np.floor(low / unit) * unit, np.ceil(high / unit) * unit
    short = float(f"{std:.{_DIGITS - 1}g}")
    return short, round(mean, places), round(float(down), places), round(float(up), places)

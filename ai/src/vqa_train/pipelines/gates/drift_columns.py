"""Columns of a model's inputs against those of its training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.pipelines.fit.column_moments import ColumnMoments
from vqa_train.pipelines.gates.drift_limits import DriftLimits, share_limit, standard_error
from vqa_train.pipelines.gates.result import Check
from vqa_train.registry.facts import InputStatistics

Vector = NDArray[np.float64]
_WORST = 5
# How far a column that was constant may be off: what another device or decoder makes of the same number.
_FROZEN_RELATIVE, _FROZEN_ABSOLUTE = 1e-3, 1e-6


@dataclass
class Observed:
    """One input over the rows that were looked at.

    Attributes:
        source: `sums` of commit files or `rows`.
        rows: rows with the input.
        groups: independent ones among them: rows of one content count once.
        mean, std, count: float64 (D,), finite values.
        missing: share of values that are missing; None from sums.
        outside, beyond: share of finite values out of the training range, and far from the training mean; None from
            sums.
        moved: float64 (D,), share of rows where a column that was constant in training is another; 0 elsewhere. From
            sums: the least that it can be.
    """

    source: str
    rows: int
    groups: int
    mean: Vector
    std: Vector
    count: Vector
    missing: float | None = None
    outside: float | None = None
    beyond: float | None = None
    moved: Vector | None = None


@dataclass
class RowCollector:
    """Collects an `Observed` from blocks of rows."""

    statistics: InputStatistics
    beyond_sd: float
    moments: ColumnMoments = field(init=False)
    _out: int = 0
    _far: int = 0
    _finite: int = 0
    _moved: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.moments = ColumnMoments(len(self.statistics.mean))
        self._moved = np.zeros(len(self.statistics.mean), dtype=np.int64)

    def add(self, block: NDArray[Any]) -> None:
        """Take in rows (n, D) or (n, T, D)."""
        self.moments.add(block)
        known = self.statistics
        mean, std, low, high = (np.asarray(v) for v in (known.mean, known.std, known.low, known.high))
        moving = std > 0
        values = block.reshape(-1, block.shape[-1])[:, moving].astype(np.float64)
        finite = np.isfinite(values)
        self._finite += int(finite.sum())
        self._out += int((finite & ((values < low[moving]) | (values > high[moving]))).sum())
        self._far += int((finite & (np.abs(values - mean[moving]) > self.beyond_sd * std[moving])).sum())
        constant = block.reshape(len(block), -1, block.shape[-1])[..., ~moving].astype(np.float64)
        off = np.isfinite(constant) & (np.abs(constant - mean[~moving]) > allowed(mean[~moving]))
        self._moved[~moving] += off.any(axis=1).sum(axis=0)

    def observed(self, groups: int) -> Observed:
        """What was collected, of rows of that many contents."""
        moments, finite = self.moments, max(self._finite, 1)
        return Observed(
            source="rows",
            rows=moments.rows,
            groups=min(groups, moments.rows),
            mean=moments.mean,
            std=moments.std,
            count=moments.count,
            missing=moments.missing,
            outside=self._out / finite,
            beyond=self._far / finite,
            moved=self._moved / max(moments.rows, 1),
        )


def allowed(mean: Vector) -> Vector:
    """How far a column that was constant in training may be off."""
    return _FROZEN_RELATIVE * np.abs(mean) + _FROZEN_ABSOLUTE


def moved_limit(limits: DriftLimits, rows: int, training_groups: int) -> float:
    """Share of rows that may leave a constant that all training rows had: what those could not rule out (3/n, Hanley
    and Lippman-Hand 1983) and noise."""
    return share_limit(limits, min(1.0, 3 / training_groups), rows)


def least_moved(mean: Vector, std: Vector, training: InputStatistics) -> Vector:
    """float64 (D,): the least share of rows that differ from a constant, of the mean and deviation of all (Cauchy and
    Schwarz); 0 for columns that vary in training."""
    constant = np.asarray(training.mean)
    off = np.abs(mean - constant)
    square = np.square(off) + np.square(std)
    found = np.where(square > 0, np.square(off) / np.where(square > 0, square, 1.0), 0.0)
    differs = (np.asarray(training.std) == 0) & ((off > allowed(constant)) | (std > allowed(constant)))
    return np.asarray(np.where(differs, found, 0.0))


def compare_columns(
    name: str,
    columns: Sequence[str],
    observed: Observed,
    training: InputStatistics,
    training_groups: int,
    limits: DriftLimits,
) -> tuple[list[Check], dict[str, Any]]:
    """Checks of one input, and what else is worth keeping of it.

    Args:
        name: of the input.
        columns: names of the columns, D.
        observed: what was seen.
        training: of the sidecar.
        training_groups: independent training rows.
        limits: of the gate.
    """
    prefix = f"features.{name}"
    details: dict[str, Any] = {"source": observed.source, "rows": observed.rows, "groups": observed.groups}
    if observed.groups < limits.min_rows:
        why = f"{observed.groups} independent rows, at least {limits.min_rows} are needed (min_rows)"
        return [Check.not_run(prefix, why)], details
    mean, std = np.asarray(training.mean), np.asarray(training.std)
    moving = std > 0
    unit = np.where(moving, std, 1.0)
    shift = np.where(moving, np.abs(observed.mean - mean) / unit, 0.0)
    shift[moving & (observed.count == 0)] = np.inf
    # Of a difference of two means (Welch), with whichever deviation is larger: long tails make means uncertain.
    error = np.sqrt(np.square(np.maximum(observed.std / unit, 1.0)) / observed.groups + 1 / training_groups)
    noise = np.where(moving, limits.noise_sd * error, 0.0)
    over = moving & (shift > limits.shift + noise)
    excess = np.where(moving, shift / (limits.worst_shift + noise), -1.0)
    order = np.argsort(-excess, kind="stable")[:_WORST]
    worst = int(order[0])
    varying = max(int(moving.sum()), 1)
    most = moved_limit(limits, observed.groups, training_groups)
    moved = observed.moved if observed.moved is not None else np.zeros(len(mean))
    frozen = np.flatnonzero(~moving & (moved > most))
    ratio = _variance_ratio(observed.std, std, moving & (observed.count > 0))
    widest = limits.variance_ratio * exp(limits.noise_sd * sqrt(2.0) * standard_error(observed.groups, training_groups))
    named = ", ".join(f"{columns[i]} {shift[i]:.2g}" for i in order[:3] if moving[i]) or "no column varies in training"
    checks = [
        Check.at_most(
            f"{prefix}.shift",
            int(over.sum()) / varying,
            limits.shift_share,
            f"share of columns whose mean moved by over {limits.shift:g} sd and noise; most: {named}",
        ),
        Check.at_most(
            f"{prefix}.worst_shift",
            float(shift[worst]),
            limits.worst_shift + float(noise[worst]),
            f"sd: {columns[worst]}",
        ),
        Check.at_most(
            f"{prefix}.rms_shift",
            float(np.sqrt(np.square(shift[moving]).sum() / varying)),
            limits.rms_shift + float(np.sqrt(np.square(noise[moving]).sum() / varying)),
            "sd, root mean square over the columns",
        ),
        Check.at_most(
            f"{prefix}.variance",
            float((ratio > widest).mean()) if len(ratio) else 0.0,
            limits.variance_share,
            f"share of columns whose variance is over {widest:.2g} times larger or smaller",
        ),
        Check.at_most(
            f"{prefix}.frozen",
            len(frozen),
            limits.frozen_moved,
            f"of {int((~moving).sum())} columns that were constant in training, in over {most:.2g} of the rows"
            + (f": {', '.join(columns[i] for i in frozen[:3])}" if len(frozen) else ""),
        ),
    ]
    checks += _range_checks(prefix, observed, training, training_groups, limits)
    details |= {
        "columns": len(mean),
        "worst": [
            {
                "column": columns[i],
                "shift": float(shift[i]) if np.isfinite(shift[i]) else None,
                "noise": float(noise[i]),
                "mean": float(observed.mean[i]),
                "training_mean": float(mean[i]),
                "std": float(observed.std[i]),
                "training_std": float(std[i]),
            }
            for i in order
        ],
        "frozen_moved": [columns[i] for i in frozen[:100]],
    }
    return checks, details


def _range_checks(
    prefix: str, observed: Observed, training: InputStatistics, training_groups: int, limits: DriftLimits
) -> list[Check]:
    """Of what only rows tell: none from sums."""
    if observed.outside is None or observed.beyond is None or observed.missing is None:
        return []
    # Of n + 1 alike values each is the largest, or the smallest, as often as any other.
    expected = 2 / (training_groups + 1)
    rows = observed.groups
    return [
        Check.at_most(
            f"{prefix}.outside",
            observed.outside,
            min(1.0, expected + share_limit(limits, limits.outside_share, rows)),
            "share of values outside the training rows' range",
        ),
        Check.at_most(
            f"{prefix}.beyond",
            observed.beyond,
            share_limit(limits, limits.beyond_share, rows),
            f"share of values over {limits.beyond_sd:g} sd from the training mean",
        ),
        Check.at_most(
            f"{prefix}.missing",
            observed.missing,
            min(1.0, training.missing + share_limit(limits, limits.missing_share, rows)),
            f"share of values missing; in training {training.missing:.2g}",
        ),
    ]


def _variance_ratio(std: Vector, training: Vector, which: NDArray[np.bool_]) -> Vector:
    """How many times larger or smaller the variance is, per column; infinite for one that is constant."""
    ratio = np.square(std[which] / training[which])
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(ratio, 1 / ratio))

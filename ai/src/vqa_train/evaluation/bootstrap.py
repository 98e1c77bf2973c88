"""Percentile bootstrap intervals of the metrics, over rows or over whole groups, for all resamples at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.evaluation.metric import Resampled
from vqa_train.evaluation.pairs import Floats

# Elements of the counts matrix held at once (32 MiB of float64).
_BLOCK_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A percentile interval of one metric.

    Attributes:
        low, high: in the metric's unit; NaN when undefined.
        resamples: how many resamples it rests on: those asked for, less those where the metric is undefined.
    """

    low: float
    high: float
    resamples: int


UNDEFINED = Interval(low=float("nan"), high=float("nan"), resamples=0)


def bootstrap_intervals(
    predicted: Floats,
    target: Floats,
    metrics: Mapping[str, tuple[Resampled, int]],
    *,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals (Efron 1979) of several metrics over the same resamples.

    Rows are drawn with replacement; with `groups`, whole groups are (the cluster bootstrap: clips of one source
    are not independent, and an interval over rows would be too narrow). The seed is a hash of the scores and
    groups in sorted order, so neither the order of the rows nor the time changes the interval.

    Args:
        predicted, target: (n,) finite.
        metrics: name -> (metric of resamples, how many resamples).
        groups: (n,) or None.
        level: share of the resamples inside the interval.

    Returns:
        Name -> interval; undefined with fewer than two rows or groups, or when under half of the resamples
        have a defined metric.
    """
    labels = _labels(len(predicted), groups)
    order = canonical_order(predicted, target, groups=groups)
    predicted, target, labels = predicted[order], target[order], labels[order]
    unit = np.arange(len(predicted)) if groups is None else np.unique(labels, return_inverse=True)[1]
    units = int(unit[-1]) + 1 if len(unit) else 0
    if units < 2:
        return dict.fromkeys(metrics, UNDEFINED)
    content = (predicted.tobytes(), target.tobytes(), "\n".join(labels).encode())
    seed = seed_from("bootstrap", *map(sha256_bytes, content))
    draws: dict[str, list[Floats]] = {name: [] for name in metrics}
    done = 0
    for drawn in draw_counts(seed, units, max((n for _, n in metrics.values()), default=0), len(predicted)):
        for name, (metric, wanted) in metrics.items():
            if (left := wanted - done) > 0:
                draws[name].append(metric(predicted, target, drawn[:left, unit]))
        done += len(drawn)
    return {name: _interval(np.concatenate(draws[name]), level) if draws[name] else UNDEFINED for name in metrics}


def canonical_order(*keys: Floats, groups: Sequence[str] | NDArray[np.str_] | None = None) -> NDArray[np.intp]:
    """The order in which rows are resampled, whatever order they come in: by group, then by the second key, the first.

    Args:
        keys: (n,) each: predictions, labels, and what else tells rows apart, in falling weight after the labels.
        groups: (n,) or None.

    Returns:
        (n,) row numbers. `bootstrap_intervals` leaves rows in this order where they are, so a metric may hold further
        vectors of them.
    """
    first, second, *rest = keys
    return np.lexsort((*reversed(rest), first, second, _labels(len(first), groups)))


def _labels(rows: int, groups: Sequence[str] | NDArray[np.str_] | None) -> NDArray[np.str_]:
    return np.zeros(rows, dtype=np.str_) if groups is None else np.asarray(groups, dtype=np.str_)


def draw_counts(seed: int, units: int, resamples: int, rows: int) -> Iterator[Floats]:
    """How often each of the units is drawn, in blocks (r, units) that stay bounded with `rows` columns."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_ELEMENTS // rows)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = rng.integers(0, units, size=(size, units)) + units * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.float64)


def _interval(values: Floats, level: float) -> Interval:
    defined = values[np.isfinite(values)]
    if len(defined) * 2 < len(values) or len(defined) == 0:
        return UNDEFINED
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), resamples=len(defined))

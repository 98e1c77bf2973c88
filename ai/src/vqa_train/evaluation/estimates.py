"""Every metric of one set of rows, raw and mapped, with its bootstrap interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.evaluation import METRICS
from vqa_train.evaluation.bootstrap import UNDEFINED, bootstrap_intervals, canonical_order
from vqa_train.evaluation.curve import Curve
from vqa_train.evaluation.metric import Metric, Resampled
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.results import LEVEL, Estimate
from vqa_train.evaluation.uncertainty import LabelUncertainty

# A pairwise metric gets as many resamples as this many pair visits allow, but no fewer than the floor; above
# the row limit even those would take longer than the rest of the report together.
_PAIR_BUDGET = 4_000_000_000
_PAIR_FLOOR = 100
PAIR_MAX_ROWS = 20_000


@dataclass(frozen=True)
class Rows:
    """Rows with both scores, in the order in which they are resampled.

    Attributes:
        predicted, target: (n,) finite.
        groups: (n,) or None.
        uncertainty: of the n labels, or None.
        opposed: the better end of the predictions is not that of the labels.
    """

    predicted: Floats
    target: Floats
    groups: NDArray[np.str_] | None
    uncertainty: LabelUncertainty | None
    opposed: bool = False

    def __len__(self) -> int:
        return len(self.predicted)

    def sorted(self) -> Rows:
        """The same rows whatever order they came in."""
        known = () if self.uncertainty is None else (self.uncertainty.half_width, self.uncertainty.standard_error)
        order = canonical_order(self.predicted, self.target, *known, groups=self.groups)
        return Rows(
            self.predicted[order],
            self.target[order],
            None if self.groups is None else self.groups[order],
            None if self.uncertainty is None else self.uncertainty.take(order),
            self.opposed,
        )


def estimates(rows: Rows, curve: Curve | None, mapping: str, resamples: int) -> dict[str, Estimate]:
    """Name -> value and interval, with "<name>_mapped" beside the metrics that depend on the scale.

    Args:
        rows: sorted.
        curve: the fitted mapping, or None where it cannot be fitted: mapped values are NaN then.
        mapping: its name; "none" for no mapped values at all.
        resamples: bootstrap resamples; the mapping is held fixed in them.
    """
    values: dict[str, float] = {}
    resampled: dict[str, tuple[Resampled, int]] = {}
    for name in METRICS.names():
        metric: Metric = METRICS.get(name)
        count = resamples_for(metric, len(rows), resamples)
        predicted = -rows.predicted if metric.directed and rows.opposed else rows.predicted
        values[name] = metric(predicted, rows.target, rows.uncertainty)
        raw = metric.bound(rows.uncertainty, 1)
        if raw is not None and count:
            resampled[name] = (raw, count)
        if not metric.mapped or mapping == "none":
            continue
        degrees = curve.degrees if curve else 1
        mapped = metric.bound(rows.uncertainty, degrees)
        values[f"{name}_mapped"] = (
            metric(curve(rows.predicted), rows.target, rows.uncertainty, degrees=degrees) if curve else float("nan")
        )
        if curve and mapped is not None and count:
            resampled[f"{name}_mapped"] = (after(curve, mapped), count)
    defined = {name: value for name, value in resampled.items() if math.isfinite(values[name])}
    intervals = bootstrap_intervals(rows.predicted, rows.target, defined, groups=rows.groups, level=LEVEL)
    return {name: Estimate(value=value, interval=intervals.get(name, UNDEFINED)) for name, value in values.items()}


def after(curve: Curve, metric: Resampled) -> Resampled:
    """The metric of mapped predictions."""
    return lambda predicted, target, counts: metric(curve(predicted), target, counts)


def resamples_for(metric: Metric, rows: int, resamples: int) -> int:
    """How many of the resamples asked for a metric gets over this many rows."""
    if not metric.pairwise or rows == 0:
        return resamples
    if rows > PAIR_MAX_ROWS:
        return 0
    return min(resamples, max(_PAIR_FLOOR, _PAIR_BUDGET // rows**2))


def without_interval(metrics: Mapping[str, Estimate]) -> list[str]:
    """Names of the defined metrics that should have an interval and have none, sorted."""
    return sorted(
        name
        for name, estimate in metrics.items()
        if math.isfinite(estimate.value)
        and not estimate.interval.resamples
        and METRICS.get(name.removesuffix("_mapped")).resampled is not None
    )

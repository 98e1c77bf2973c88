"""Metrics of one fold, and what they come to over many: median, mean, standard deviation, range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.evaluation import METRICS
from vqa_train.evaluation.curve import MappingFitError
from vqa_train.evaluation.mapping import check_mapping, fit_mapping
from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import finite_pairs
from vqa_train.evaluation.uncertainty import LabelUncertainty

FoldMetrics = dict[str, dict[str, float]]
"""target -> metric -> value; NaN where undefined."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric over folds; every number but the counts is NaN where no fold has the metric.

    Attributes:
        median, mean, min, max: over the folds where the metric is defined.
        std: sample standard deviation (ddof = 1) over them; NaN with fewer than two.
        n: folds where the metric is defined.
        undefined: folds where it is not, left out.
    """

    median: float
    mean: float
    std: float
    min: float
    max: float
    n: int
    undefined: int

    def to_json(self) -> dict[str, Any]:
        """JSON values only; NaN becomes None."""
        numbers = {name: getattr(self, name) for name in ("median", "mean", "std", "min", "max")}
        return {
            **{name: value if math.isfinite(value) else None for name, value in numbers.items()},
            "n": self.n,
            "undefined": self.undefined,
        }


def fold_metrics(
    predicted: NDArray[np.floating[Any]],
    target: NDArray[np.floating[Any]],
    names: Sequence[str],
    mapping: str = "logistic4",
    *,
    uncertainty: Mapping[str, LabelUncertainty] | None = None,
) -> FoldMetrics:
    """Every metric of one fold's held-out rows, without intervals.

    Args:
        predicted, target: (n, K); rows where either is NaN or infinite are left out, per target.
        names: the K targets.
        mapping: fitted to these rows before "<name>_mapped"; "none" for no such values.
        uncertainty: target -> of its n labels; metrics that need it are left out for a target without.

    Returns:
        Target -> metric -> value, NaN where undefined (constant predictions, a mapping that cannot be fitted).

    Raises:
        ValueError: shapes differ.
        UsageError: no such mapping.
    """
    check_mapping(mapping)
    predicted, target = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if target.ndim != 2 or predicted.shape != target.shape or target.shape[1] != len(names):
        raise ValueError(f"expected (n, {len(names)}) twice, got {predicted.shape} and {target.shape}")
    metrics: list[Metric] = [METRICS.get(name) for name in METRICS.names()]
    result: FoldMetrics = {}
    for column, name in enumerate(names):
        x, y = predicted[:, column], target[:, column]
        known = (uncertainty or {}).get(name)
        try:
            curve = fit_mapping(mapping, *finite_pairs(x, y))
        except MappingFitError:
            curve = None
        mapped = curve(x) if curve else np.full(len(x), np.nan)
        degrees = curve.degrees if curve else 1
        values: dict[str, float] = {}
        for metric in metrics:
            if metric.uncertain and known is None:
                continue
            values[metric.name] = metric(x, y, known)
            if metric.mapped and mapping != "none":
                values[f"{metric.name}_mapped"] = metric(mapped, y, known, degrees=degrees)
        result[name] = values
    return result


def summarise(per_fold: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, Summary]]:
    """Target -> metric -> summary over folds, of what `fold_metrics` gave for each; folds need not share all names."""
    values: dict[str, dict[str, list[float]]] = {}
    for fold in per_fold:
        for target, metrics in fold.items():
            for metric, value in metrics.items():
                values.setdefault(target, {}).setdefault(metric, []).append(value)
    return {
        target: {metric: summarise_values(found) for metric, found in metrics.items()}
        for target, metrics in values.items()
    }


def summarise_values(values: Sequence[float]) -> Summary:
    """The summary of one metric's values over folds; NaN and infinite values are left out and counted."""
    all_values = np.asarray(values, dtype=np.float64)
    defined = all_values[np.isfinite(all_values)]
    nan = float("nan")
    some, several = len(defined) > 0, len(defined) > 1
    return Summary(
        median=float(np.median(defined)) if some else nan,
        mean=float(defined.mean()) if some else nan,
        std=float(defined.std(ddof=1)) if several else nan,
        min=float(defined.min()) if some else nan,
        max=float(defined.max()) if some else nan,
        n=len(defined),
        undefined=len(all_values) - len(defined),
    )

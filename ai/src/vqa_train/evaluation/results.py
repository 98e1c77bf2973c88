"""The documents of an evaluation, frozen and with JSON forms: an estimate, a target on a set of rows, the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vqa_train.evaluation.bootstrap import Interval
from vqa_train.evaluation.conformal import Coverage
from vqa_train.evaluation.curve import Curve
from vqa_train.evaluation.logistic import Logistic4

EVAL_SCHEMA = "vqa-train/eval/1"
ALL = "all"
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric's value and its interval; NaN where undefined."""

    value: float
    interval: Interval

    def to_json(self) -> dict[str, Any]:
        """NaN becomes None."""
        interval = self.interval
        return {
            "value": _number(self.value),
            "low": _number(interval.low),
            "high": _number(interval.high),
            "resamples": interval.resamples,
        }


@dataclass(frozen=True, kw_only=True)
class TargetResult:
    """The metrics of one target on one dataset, or on one group of it.

    Attributes:
        target: name of the opinion score.
        dataset: name, or "all" for every row.
        rows: rows asked for.
        n: rows with a finite prediction and a label; what the metrics rest on.
        missing_predictions, missing_labels: rows without one.
        coverage: share of the rows asked for that got a prediction, 0..1; NaN without rows.
        groups: groups among the n rows, or None when rows were resampled.
        metrics: by name; those that depend on the scale also as "<name>_mapped", after the mapping.
        mapping: the mapping, or None where there is none or it cannot be fitted (a note says why).
        group: which group of the dataset; None for all of them.
        intervals: how often the model's own prediction intervals hold the label, where it gives such.
        notes: everything that a reader must know, among it why a number is missing.
    """

    target: str
    dataset: str
    rows: int
    n: int
    missing_predictions: int
    missing_labels: int
    coverage: float
    groups: int | None
    metrics: Mapping[str, Estimate]
    mapping: Curve | None
    notes: tuple[str, ...]
    group: str | None = None
    intervals: Coverage | None = None

    @property
    def logistic(self) -> Logistic4 | None:
        """The mapping where it is the four-parameter logistic."""
        return self.mapping if isinstance(self.mapping, Logistic4) else None

    def to_json(self) -> dict[str, Any]:
        """JSON values only; NaN becomes None."""
        return {
            "target": self.target,
            "dataset": self.dataset,
            "group": self.group,
            "rows": self.rows,
            "n": self.n,
            "missing_predictions": self.missing_predictions,
            "missing_labels": self.missing_labels,
            "coverage": _number(self.coverage),
            "groups": self.groups,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "logistic": self.logistic.parameters() if self.logistic else None,
            "mapping": {"kind": self.mapping.kind, **self.mapping.parameters()} if self.mapping else None,
            "prediction_intervals": self.intervals.to_json() if self.intervals else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Results per target, "all" first, then each dataset where there are several, then groups where asked for.

    Attributes:
        targets: in the order of the columns.
        rows: rows asked for.
        datasets: name -> rows; empty when no names were given.
        resamples: bootstrap resamples asked for; each estimate says how many it rests on.
        resampled: "rows" or "groups".
        results: one per target, dataset and group.
        mapping: name of the mapping that was asked for.
        directions: target -> "higher_is_better" or "lower_is_better", of the labels.
    """

    targets: tuple[str, ...]
    rows: int
    datasets: Mapping[str, int]
    resamples: int
    resampled: str
    results: tuple[TargetResult, ...]
    mapping: str = "logistic4"
    directions: Mapping[str, str] = field(default_factory=dict)

    def result(self, target: str, dataset: str = ALL, group: str | None = None) -> TargetResult:
        """The result of one target on one dataset, or on one group of it.

        Raises:
            KeyError: there is none.
        """
        for result in self.results:
            if (result.target, result.dataset, result.group) == (target, dataset, group):
                return result
        where = f"dataset {dataset!r}" + (f", group {group!r}" if group is not None else "")
        raise KeyError(f"no result for target {target!r} on {where}")

    def to_json(self) -> dict[str, Any]:
        """The document of schema `vqa-train/eval/1`; JSON values only, no NaN."""
        return {
            "schema": EVAL_SCHEMA,
            "targets": list(self.targets),
            "rows": self.rows,
            "datasets": dict(self.datasets),
            "mapping": self.mapping,
            "directions": dict(self.directions),
            "intervals": {
                "method": "percentile bootstrap",
                "level": LEVEL,
                "over": self.resampled,
                "resamples": self.resamples,
                "mapping": "fitted once, held fixed",
            },
            "results": [result.to_json() for result in self.results],
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

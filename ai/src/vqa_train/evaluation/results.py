"""The documents of an evaluation, frozen and with JSON forms: one estimate, one target on one dataset, the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vqa_train.evaluation.bootstrap import Interval
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
    """The metrics of one target on one dataset.

    Attributes:
        target: name of the opinion score.
        dataset: name, or "all" for every row.
        rows: rows asked for.
        n: rows with a finite prediction and a label; what the metrics rest on.
        missing_predictions, missing_labels: rows without one.
        coverage: share of the rows asked for that got a prediction, 0..1; NaN without rows.
        groups: groups among the n rows, or None when rows were resampled.
        metrics: "srocc", "plcc", "krocc", "rmse", and "plcc_mapped", "rmse_mapped" after the logistic.
        logistic: the mapping, or None where it cannot be fitted (a note says why).
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
    logistic: Logistic4 | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values only; NaN becomes None."""
        return {
            "target": self.target,
            "dataset": self.dataset,
            "rows": self.rows,
            "n": self.n,
            "missing_predictions": self.missing_predictions,
            "missing_labels": self.missing_labels,
            "coverage": _number(self.coverage),
            "groups": self.groups,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "logistic": asdict(self.logistic) if self.logistic else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """Results per target, "all" first and then each dataset where there are several.

    Attributes:
        targets: in the order of the columns.
        rows: rows asked for.
        datasets: name -> rows; empty when no names were given.
        resamples: bootstrap resamples asked for; each estimate says how many it rests on.
        resampled: "rows" or "groups".
        results: one per target and dataset.
    """

    targets: tuple[str, ...]
    rows: int
    datasets: Mapping[str, int]
    resamples: int
    resampled: str
    results: tuple[TargetResult, ...]

    def result(self, target: str, dataset: str = ALL) -> TargetResult:
        """The result of one target on one dataset.

        Raises:
            KeyError: there is none.
        """
        for result in self.results:
            if (result.target, result.dataset) == (target, dataset):
                return result
        raise KeyError(f"no result for target {target!r} on dataset {dataset!r}")

    def to_json(self) -> dict[str, Any]:
        """The document of schema `vqa-train/eval/1`; JSON values only, no NaN."""
        return {
            "schema": EVAL_SCHEMA,
            "targets": list(self.targets),
            "rows": self.rows,
            "datasets": dict(self.datasets),
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

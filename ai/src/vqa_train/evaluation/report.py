"""Predictions against opinion scores: every metric per target and dataset, with counts, coverage, intervals, notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.bootstrap import UNDEFINED, bootstrap_intervals
from vqa_train.evaluation.logistic import Logistic4, LogisticFitError, fit_logistic
from vqa_train.evaluation.metric import Metric, Resampled
from vqa_train.evaluation.pairs import Floats, is_constant
from vqa_train.evaluation.results import ALL, LEVEL, Estimate, EvalReport, TargetResult

__all__ = ["EvalReport", "TargetResult", "evaluate"]

# A pairwise metric gets as many resamples as this many pair visits allow, but no fewer than the floor; above
# the row limit even those would take longer than the rest of the report together.
_PAIR_BUDGET = 4_000_000_000
_PAIR_FLOOR = 100
_PAIR_MAX_ROWS = 20_000


def evaluate(
    predicted: NDArray[np.floating[Any]],
    target: NDArray[np.floating[Any]],
    target_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    resamples: int = 1000,
) -> EvalReport:
    """Compare predictions with opinion scores.

    Args:
        predicted: (N, K); NaN or infinite where there is no prediction.
        target: (N, K) on the labels' scales; NaN where there is no label.
        target_names: (K,).
        groups: (N,) content that hangs together (source clip, scene); whole groups are resampled. None: rows are.
        datasets: (N,) name of each row's dataset; with several, each gets its own results beside "all".
        resamples: bootstrap resamples; 0 for no intervals.

    Raises:
        ValueError: shapes or lengths differ.
        ConfigError: a dataset is called "all".
    """
    predicted, target = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    rows = len(target)
    if target.ndim != 2 or predicted.shape != target.shape or target.shape[1] != len(target_names):
        raise ValueError(f"expected (N, {len(target_names)}) twice, got {predicted.shape} and {target.shape}")
    for name, labels in (("groups", groups), ("datasets", datasets)):
        if labels is not None and len(labels) != rows:
            raise ValueError(f"{name} has {len(labels)} entries for {rows} rows")
    names = None if datasets is None else np.asarray(datasets, dtype=np.str_)
    sizes = {} if names is None else {str(name): int((names == name).sum()) for name in np.unique(names)}
    if ALL in sizes:
        raise ConfigError(f"a dataset is called {ALL!r}, which stands for all rows", hint="rename it in its manifest")
    # One name for two groups of different datasets does not make them one.
    units = (
        None if groups is None else [(names[i] + "\x1f" if names is not None else "") + g for i, g in enumerate(groups)]
    )
    cluster = None if units is None else np.asarray(units, dtype=np.str_)
    parts: list[tuple[str, NDArray[np.bool_]]] = [(ALL, np.ones(rows, dtype=bool))]
    if names is not None and len(sizes) > 1:
        parts += [(name, names == name) for name in sizes]
    results = []
    for column, name in enumerate(target_names):
        for dataset, chosen in parts:
            pooled = (f"pooled over {len(sizes)} datasets",) if dataset == ALL and len(sizes) > 1 else ()
            part = _Part(
                predicted[chosen, column], target[chosen, column], None if cluster is None else cluster[chosen]
            )
            results.append(_evaluate_part(part, name, dataset, resamples, pooled))
    return EvalReport(
        targets=tuple(target_names),
        rows=rows,
        datasets=sizes,
        resamples=resamples,
        resampled="rows" if groups is None else "groups",
        results=tuple(results),
    )


@dataclass(frozen=True)
class _Part:
    predicted: Floats
    target: Floats
    groups: NDArray[np.str_] | None


def _evaluate_part(part: _Part, name: str, dataset: str, resamples: int, notes: tuple[str, ...]) -> TargetResult:
    has_prediction, has_label = np.isfinite(part.predicted), np.isfinite(part.target)
    both = has_prediction & has_label
    x, y = part.predicted[both], part.target[both]
    groups = None if part.groups is None else part.groups[both]
    found = list(notes) + _data_notes(x, y)
    logistic, failure = _try_logistic(x, y)
    if failure:
        found.append(failure)
    metrics = _estimates(x, y, groups, logistic, resamples)
    if metrics["plcc"].value < 0:
        found.append("predictions fall as labels rise; the logistic mapping falls too, so mapped values hide the sign")
    found += _interval_notes(metrics, x, groups, resamples)
    rows = len(part.target)
    return TargetResult(
        target=name,
        dataset=dataset,
        rows=rows,
        n=len(x),
        missing_predictions=int(rows - has_prediction.sum()),
        missing_labels=int(rows - has_label.sum()),
        coverage=float(has_prediction.mean()) if rows else float("nan"),
        groups=None if groups is None else len(np.unique(groups)),
        metrics=metrics,
        logistic=logistic,
        notes=tuple(found),
    )


def _data_notes(x: Floats, y: Floats) -> list[str]:
    if len(x) < 2:
        return [f"{len(x)} rows have a prediction and a label: correlations are undefined"]
    return [
        f"{what} are constant: correlations are undefined"
        for what, values in (("predictions", x), ("labels", y))
        if is_constant(values)
    ]


def _try_logistic(x: Floats, y: Floats) -> tuple[Logistic4 | None, str | None]:
    try:
        return fit_logistic(x, y), None
    except LogisticFitError as error:
        return None, str(error)


def _estimates(
    x: Floats, y: Floats, groups: NDArray[np.str_] | None, logistic: Logistic4 | None, resamples: int
) -> dict[str, Estimate]:
    values: dict[str, float] = {}
    resampled: dict[str, tuple[Resampled, int]] = {}
    for name in METRICS.names():
        metric: Metric = METRICS.get(name)
        values[name] = metric(x, y)
        count = _resamples_for(metric, len(x), resamples)
        if metric.resampled is not None and count:
            resampled[name] = (metric.resampled, count)
        if metric.mapped:
            values[f"{name}_mapped"] = metric(logistic(x), y) if logistic else float("nan")
            if logistic and metric.resampled is not None and count:
                resampled[f"{name}_mapped"] = (_after(logistic, metric.resampled), count)
    defined = {name: value for name, value in resampled.items() if math.isfinite(values[name])}
    intervals = bootstrap_intervals(x, y, defined, groups=groups, level=LEVEL)
    return {name: Estimate(value=value, interval=intervals.get(name, UNDEFINED)) for name, value in values.items()}


def _after(logistic: Logistic4, metric: Resampled) -> Resampled:
    return lambda x, y, counts: metric(logistic(x), y, counts)


def _resamples_for(metric: Metric, rows: int, resamples: int) -> int:
    if not metric.pairwise or rows == 0:
        return resamples
    if rows > _PAIR_MAX_ROWS:
        return 0
    return min(resamples, max(_PAIR_FLOOR, _PAIR_BUDGET // rows**2))


def _interval_notes(
    metrics: Mapping[str, Estimate], x: Floats, groups: NDArray[np.str_] | None, resamples: int
) -> list[str]:
    """Why a defined value has no interval."""
    without = sorted(n for n, e in metrics.items() if math.isfinite(e.value) and not e.interval.resamples)
    if not without:
        return []
    units = len(x) if groups is None else len(np.unique(groups))
    if resamples == 0:
        why = "no resamples were asked for"
    elif units < 2:
        why = f"only {units} {'row' if groups is None else 'group'} to resample"
    elif len(x) > _PAIR_MAX_ROWS:
        why = f"over {_PAIR_MAX_ROWS} rows, too many for a metric of all pairs"
    else:
        why = "undefined in over half of the resamples"
    return [f"no interval for {', '.join(without)}: {why}"]

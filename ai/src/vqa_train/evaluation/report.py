"""Predictions against opinion scores: every metric per target, dataset and group, with counts, coverage, notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.evaluation import notes as remarks
from vqa_train.evaluation.conformal import coverage
from vqa_train.evaluation.curve import Curve, MappingFitError
from vqa_train.evaluation.estimates import Rows, estimates
from vqa_train.evaluation.mapping import check_mapping, fit_mapping
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.results import ALL, EvalReport, TargetResult
from vqa_train.evaluation.uncertainty import LabelUncertainty

__all__ = ["EvalReport", "TargetResult", "evaluate"]

HIGHER, LOWER = "higher_is_better", "lower_is_better"
_FEW_ROWS = 10


def evaluate(
    predicted: NDArray[np.floating[Any]],
    target: NDArray[np.floating[Any]],
    target_names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    resamples: int = 1000,
    mapping: str = "logistic4",
    uncertainty: Mapping[str, LabelUncertainty] | None = None,
    directions: Mapping[str, str] | None = None,
    prediction_directions: Mapping[str, str] | None = None,
    per_group: bool = False,
    intervals: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]] | None = None,
) -> EvalReport:
    """Compare predictions with opinion scores.

    Args:
        predicted: (N, K); NaN or infinite where there is no prediction.
        target: (N, K) on the labels' scales; NaN where there is no label.
        target_names: (K,).
        groups: (N,) content that hangs together (source clip, scene); whole groups are resampled. None: rows are.
        datasets: (N,) name of each row's dataset; with several, each gets its own results beside "all".
        resamples: bootstrap resamples; 0 for no intervals.
        mapping: "logistic4", "logistic5", "linear" or "none": fitted to the reported rows before "<name>_mapped".
        uncertainty: target -> how sure its N labels are, for the metrics that need that.
        directions: target -> "higher_is_better" (where missing) or "lower_is_better", of the labels.
        prediction_directions: the same of the predictions; that of the labels where missing.
        per_group: also a result for every group, without intervals, under the mapping of its dataset.
        intervals: low and high ends (N, K) of the model's own prediction intervals.

    Raises:
        ValueError: shapes or lengths differ, or `per_group` without groups.
        ConfigError: a dataset is called "all".
        UsageError: no such mapping.
    """
    check_mapping(mapping)
    scores: Floats = np.asarray(predicted, dtype=np.float64)
    labels: Floats = np.asarray(target, dtype=np.float64)
    _check(scores, labels, target_names, {"groups": groups, "datasets": datasets})
    if per_group and groups is None:
        raise ValueError("per_group needs groups")
    rows = len(labels)
    names = None if datasets is None else np.asarray(datasets, dtype=np.str_)
    sizes = {} if names is None else {str(name): int((names == name).sum()) for name in np.unique(names)}
    if ALL in sizes:
        raise ConfigError(f"a dataset is called {ALL!r}, which stands for all rows", hint="rename it in its manifest")
    several = len(sizes) > 1
    parts: list[tuple[str, NDArray[np.bool_]]] = [(ALL, np.ones(rows, dtype=bool))]
    if names is not None and several:
        parts += [(name, names == name) for name in sizes]
    results = []
    for column, name in enumerate(target_names):
        direction = (directions or {}).get(name, HIGHER)
        low, high = (None, None) if intervals is None else (ends[:, column] for ends in intervals)
        whole = _Part(
            scores[:, column],
            labels[:, column],
            _units(groups, names),
            (uncertainty or {}).get(name),
            None if low is None or high is None else np.stack([low, high]).astype(np.float64),
            _Setting(
                target=name,
                dataset=ALL,
                mapping=mapping,
                resamples=resamples,
                lower_is_better=direction == LOWER,
                opposed=(prediction_directions or {}).get(name, direction) != direction,
                pooled=len(sizes) if several else 1,
            ),
        )
        for dataset, chosen in parts:
            part = whole.take(chosen, dataset)
            result = _evaluate_part(part)
            results.append(result)
            if per_group and groups is not None and not (several and dataset == ALL):
                own = np.asarray(groups, dtype=np.str_)[chosen]
                results += [_evaluate_group(part, own == group, str(group), result) for group in np.unique(own)]
    return EvalReport(
        targets=tuple(target_names),
        rows=rows,
        datasets=sizes,
        resamples=resamples,
        resampled="rows" if groups is None else "groups",
        results=tuple(results),
        mapping=mapping,
        directions={name: (directions or {}).get(name, HIGHER) for name in target_names},
    )


def _check(
    predicted: Floats, target: Floats, names: Sequence[str], per_row: Mapping[str, Sequence[str] | None]
) -> None:
    if target.ndim != 2 or predicted.shape != target.shape or target.shape[1] != len(names):
        raise ValueError(f"expected (N, {len(names)}) twice, got {predicted.shape} and {target.shape}")
    for name, labels in per_row.items():
        if labels is not None and len(labels) != len(target):
            raise ValueError(f"{name} has {len(labels)} entries for {len(target)} rows")


def _units(groups: Sequence[str] | None, datasets: NDArray[np.str_] | None) -> NDArray[np.str_] | None:
    """What is resampled: one name for two groups of different datasets does not make them one."""
    if groups is None:
        return None
    prefixed = groups if datasets is None else [f"{datasets[i]}\x1f{group}" for i, group in enumerate(groups)]
    return np.asarray(prefixed, dtype=np.str_)


@dataclass(frozen=True, kw_only=True)
class _Setting:
    target: str
    dataset: str
    mapping: str
    resamples: int
    lower_is_better: bool
    opposed: bool
    pooled: int


@dataclass(frozen=True)
class _Part:
    """One target over some rows; `ends` are the low and high ends of prediction intervals, (2, N)."""

    predicted: Floats
    target: Floats
    groups: NDArray[np.str_] | None
    uncertainty: LabelUncertainty | None
    ends: Floats | None
    setting: _Setting

    def take(self, rows: NDArray[np.bool_], dataset: str) -> _Part:
        return _Part(
            self.predicted[rows],
            self.target[rows],
            None if self.groups is None else self.groups[rows],
            None if self.uncertainty is None else self.uncertainty.take(rows),
            None if self.ends is None else self.ends[:, rows],
            replace(self.setting, dataset=dataset, pooled=self.setting.pooled if dataset == ALL else 1),
        )

    def rows(self) -> Rows:
        """Those with both scores, sorted."""
        both = np.isfinite(self.predicted) & np.isfinite(self.target)
        known = None if self.uncertainty is None else self.uncertainty.take(both)
        groups = None if self.groups is None else self.groups[both]
        return Rows(self.predicted[both], self.target[both], groups, known, self.setting.opposed).sorted()


def _evaluate_part(part: _Part) -> TargetResult:
    setting, rows = part.setting, part.rows()
    found = [f"pooled over {setting.pooled} datasets"] if setting.pooled > 1 else []
    found += remarks.data_notes(rows)
    curve: Curve | None = None
    try:
        curve = fit_mapping(setting.mapping, rows.predicted, rows.target)
    except MappingFitError as error:
        found.append(str(error))
    metrics = estimates(rows, curve, setting.mapping, setting.resamples)
    found += remarks.direction_notes(setting.lower_is_better, setting.opposed, metrics, setting.mapping)
    found += remarks.uncertainty_notes(rows, metrics)
    found += remarks.interval_notes(rows, metrics, setting.resamples)
    return replace(_counted(part, rows), metrics=metrics, mapping=curve, notes=tuple(found))


def _evaluate_group(part: _Part, chosen: NDArray[np.bool_], group: str, whole: TargetResult) -> TargetResult:
    """One group under the mapping of its dataset: a mapping of its own would fit a handful of rows."""
    inside = part.take(chosen, part.setting.dataset)
    rows = inside.rows()
    found = remarks.data_notes(rows)
    if 2 <= len(rows) < _FEW_ROWS:
        found.append(f"only {len(rows)} rows: too few for a correlation to mean much")
    metrics = estimates(rows, whole.mapping, part.setting.mapping, 0)
    return replace(
        _counted(inside, rows), group=group, groups=1, metrics=metrics, mapping=whole.mapping, notes=tuple(found)
    )


def _counted(part: _Part, rows: Rows) -> TargetResult:
    """The result without its metrics."""
    has_prediction, has_label = np.isfinite(part.predicted), np.isfinite(part.target)
    asked = len(part.target)
    return TargetResult(
        target=part.setting.target,
        dataset=part.setting.dataset,
        rows=asked,
        n=len(rows),
        missing_predictions=int(asked - has_prediction.sum()),
        missing_labels=int(asked - has_label.sum()),
        coverage=float(has_prediction.mean()) if asked else float("nan"),
        groups=None if rows.groups is None else len(np.unique(rows.groups)),
        metrics={},
        mapping=None,
        notes=(),
        intervals=None if part.ends is None else coverage(part.target, part.ends[0], part.ends[1]),
    )

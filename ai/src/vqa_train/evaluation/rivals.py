"""Two or more models over the same held-out rows: every pair, every metric, every test that fits, Holm-corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError
from vqa_train.core.plugins import did_you_mean
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.curve import Curve, MappingFitError
from vqa_train.evaluation.estimates import after, resamples_for
from vqa_train.evaluation.mapping import fit_mapping
from vqa_train.evaluation.metric import Metric, Resampled
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.significance import (
    Difference,
    corrected_resampled_t,
    holm,
    paired_bootstrap,
    wilcoxon_signed_rank,
)
from vqa_train.evaluation.summary import fold_metrics

Test = Literal["bootstrap", "wilcoxon", "corrected_t"]
_MAPPED = "_mapped"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One test of one metric between two models.

    Attributes:
        target, metric: what was compared.
        test: "bootstrap" over rows or groups, "wilcoxon" or "corrected_t" over splits.
        first, second: the models' names.
        values: the metric of each, of all rows or as the median over the splits.
        higher_is_better: of the metric.
        difference: first less second.
        p_holm: the p value after Holm's correction over all pairs of models in this target, metric and test.
    """

    target: str
    metric: str
    test: Test
    first: str
    second: str
    values: tuple[float, float]
    higher_is_better: bool
    difference: Difference
    p_holm: float

    @property
    def better(self) -> str | None:
        """The model that the difference favours; None where there is none or it is undefined."""
        if not abs(self.difference.value) > 0:
            return None
        return self.first if (self.difference.value > 0) == self.higher_is_better else self.second

    def to_json(self) -> dict[str, Any]:
        """JSON values only; NaN becomes None."""
        return {
            "target": self.target,
            "metric": self.metric,
            "test": self.test,
            "first": self.first,
            "second": self.second,
            "values": [value if np.isfinite(value) else None for value in self.values],
            **self.difference.to_json(),
            "p_holm": self.p_holm if np.isfinite(self.p_holm) else None,
            "better": self.better,
        }


def check_metrics(names: Sequence[str]) -> None:
    """Refuse metrics that cannot be compared: unknown ones, and those that need confidence intervals.

    Raises:
        UsageError: with the nearest known name.
    """
    known = [name for name in METRICS.names() if not METRICS.get(name).uncertain]
    known += [f"{name}{_MAPPED}" for name in known if METRICS.get(name).mapped]
    for name in names:
        if name not in known:
            raise UsageError(f"cannot compare metric {name!r}", hint=did_you_mean(name, known))


def compare_rows(
    predictions: Mapping[str, Floats],
    target: Floats,
    metrics: Sequence[str],
    *,
    name: str,
    groups: Sequence[str] | None,
    mapping: str,
    resamples: int,
    level: float = 0.95,
) -> list[Comparison]:
    """Paired bootstrap of every pair of models.

    Args:
        predictions: model -> (n,) finite, over the same rows.
        target: (n,) finite.
        metrics: names; with "_mapped" each model after its own mapping, fitted once and held fixed.
        name: of the target.
        groups: (n,) whole groups are drawn; None: rows.
        mapping: fitted for mapped metrics.
        resamples: of the bootstrap; fewer for KROCC over many rows.
        level: of the intervals.
    """
    found: list[Comparison] = []
    for metric in metrics:
        plain: Metric = METRICS.get(metric.removesuffix(_MAPPED))
        count = resamples_for(plain, len(target), resamples)
        measures = {model: _measure(metric, plain, scores, target, mapping) for model, scores in predictions.items()}
        once = np.ones((1, len(target)))
        values = {model: float(measures[model](x, target, once)[0]) for model, x in predictions.items()}
        family = []
        for first, second in combinations(predictions, 2):
            difference = paired_bootstrap(
                predictions[first],
                predictions[second],
                target,
                (measures[first], measures[second]),
                groups=groups,
                resamples=max(count, 1),
                level=level,
            )
            family.append(_comparison(name, metric, plain, "bootstrap", (first, second), values, difference))
        found += _corrected(family)
    return found


def compare_splits(
    predictions: Mapping[str, Floats],
    target: Floats,
    folds: NDArray[np.str_],
    metrics: Sequence[str],
    *,
    name: str,
    mapping: str,
    test_share: float,
) -> list[Comparison]:
    """Wilcoxon's test and the corrected resampled t test of every pair of models over the folds.

    Args:
        predictions: model -> (n,), over the same (fold, row) pairs.
        target: (n,) labels.
        folds: (n,) names.
        metrics: names; with "_mapped" after a mapping of each fold and model.
        name: of the target.
        mapping: fitted for mapped metrics.
        test_share: n_test / n_train of a split.
    """
    per_fold: dict[str, dict[str, list[float]]] = {}
    for model, scores in predictions.items():
        rows = [folds == fold for fold in np.unique(folds)]
        measured = [fold_metrics(scores[chosen, None], target[chosen, None], [name], mapping)[name] for chosen in rows]
        per_fold[model] = {metric: [values.get(metric, float("nan")) for values in measured] for metric in metrics}
    found: list[Comparison] = []
    for metric in metrics:
        plain: Metric = METRICS.get(metric.removesuffix(_MAPPED))
        values = {model: _median(by_metric[metric]) for model, by_metric in per_fold.items()}
        tests: dict[Test, list[Comparison]] = {"wilcoxon": [], "corrected_t": []}
        for pair in combinations(predictions, 2):
            first, second = (per_fold[model][metric] for model in pair)
            differences: dict[Test, Difference] = {
                "wilcoxon": wilcoxon_signed_rank(first, second),
                "corrected_t": corrected_resampled_t(first, second, test_share=test_share),
            }
            for test, difference in differences.items():
                tests[test].append(_comparison(name, metric, plain, test, pair, values, difference))
        found += [comparison for family in tests.values() for comparison in _corrected(family)]
    return found


def _measure(metric: str, plain: Metric, predicted: Floats, target: Floats, mapping: str) -> Resampled:
    """The metric of resamples; NaN throughout where its mapping cannot be fitted."""
    resampled = plain.bound(None, 1)
    if resampled is None:
        raise UsageError(f"metric {metric!r} cannot be resampled")
    if not metric.endswith(_MAPPED):
        return resampled
    try:
        curve: Curve | None = fit_mapping(mapping, predicted, target)
    except MappingFitError:
        return lambda predicted, target, counts: np.full(len(counts), np.nan)
    return after(curve, resampled) if curve else resampled


def _median(values: Sequence[float]) -> float:
    defined = np.asarray(values)[np.isfinite(values)]
    return float(np.median(defined)) if len(defined) else float("nan")


def _comparison(
    target: str,
    metric: str,
    plain: Metric,
    test: Test,
    pair: tuple[str, str],
    values: Mapping[str, float],
    difference: Difference,
) -> Comparison:
    return Comparison(
        target=target,
        metric=metric,
        test=test,
        first=pair[0],
        second=pair[1],
        values=(values[pair[0]], values[pair[1]]),
        higher_is_better=plain.higher_is_better,
        difference=difference,
        p_holm=difference.p,
    )


def _corrected(family: Sequence[Comparison]) -> list[Comparison]:
    adjusted = holm([comparison.difference.p for comparison in family])
    return [replace(comparison, p_holm=p) for comparison, p in zip(family, adjusted, strict=True)]

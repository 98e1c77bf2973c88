"""Is one model better than another? Tests over the same rows and over the same splits, corrected for many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.evaluation.bootstrap import draw_counts
from vqa_train.evaluation.metric import Resampled
from vqa_train.evaluation.pairs import Floats

_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Metric of model A less that of model B; NaN where undefined.

    Attributes:
        value: of all rows, or the mean over the splits.
        low, high: interval of the difference.
        p: two-sided p value of no difference.
        n: resamples, or splits, that it rests on.
    """

    value: float
    low: float
    high: float
    p: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """JSON values only; NaN and infinity become None."""
        numbers = {"difference": self.value, "low": self.low, "high": self.high, "p": self.p}
        return {**{name: value if math.isfinite(value) else None for name, value in numbers.items()}, "n": self.n}


_UNDEFINED = Difference(value=float("nan"), low=float("nan"), high=float("nan"), p=float("nan"), n=0)


def paired_bootstrap(
    first: Floats,
    second: Floats,
    target: Floats,
    metrics: tuple[Resampled, Resampled],
    *,
    groups: Sequence[str] | NDArray[np.str_] | None = None,
    resamples: int = 2000,
    level: float = 0.95,
) -> Difference:
    """Difference of a metric between two models over the same resampled rows, or whole groups.

    The interval is the percentile interval of the differences; p is twice the smaller share of resamples, counted
    with one more, in which the difference is not above, or not below, 0 (Davison & Hinkley, Bootstrap methods and their
    application, 1997, 4.2). It is never below 2 / (resamples + 1).

    Args:
        first, second: (n,) finite predictions of models A and B.
        target: (n,) finite.
        metrics: of resamples, for A and for B (the same one, or each after its own mapping).
        groups: (n,) content that hangs together; None: rows are drawn.
        resamples: at least 1.
        level: share of the resamples inside the interval.

    Returns:
        Undefined with fewer than two rows or groups, or when under half of the resamples have a defined difference.

    Raises:
        ValueError: shapes differ.
    """
    if not first.shape == second.shape == target.shape or first.ndim != 1:
        raise ValueError(f"expected three vectors of one length, got {first.shape}, {second.shape}, {target.shape}")
    labels = np.zeros(len(target), dtype=np.str_) if groups is None else np.asarray(groups, dtype=np.str_)
    if len(labels) != len(target):
        raise ValueError(f"groups has {len(labels)} entries for {len(target)} rows")
    order = np.lexsort((second, first, target, labels))
    first, second, target, labels = first[order], second[order], target[order], labels[order]
    unit = np.arange(len(target)) if groups is None else np.unique(labels, return_inverse=True)[1]
    units = int(unit[-1]) + 1 if len(unit) else 0
    if units < 2:
        return _UNDEFINED
    content = (first.tobytes(), second.tobytes(), target.tobytes(), "\n".join(labels).encode())
    seed = seed_from("paired-bootstrap", *map(sha256_bytes, content))
    blocks = []
    for drawn in draw_counts(seed, units, resamples, len(target)):
        counts = drawn[:, unit]
        blocks.append(metrics[0](first, target, counts) - metrics[1](second, target, counts))
    draws = np.concatenate(blocks)
    defined = draws[np.isfinite(draws)]
    once = np.ones((1, len(target)))
    value = float((metrics[0](first, target, once) - metrics[1](second, target, once))[0])
    if len(defined) * 2 < len(draws) or not math.isfinite(value):
        return Difference(value=value, low=float("nan"), high=float("nan"), p=float("nan"), n=0)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    # Equal up to rounding is equal: two models that rank alike differ by nothing.
    size = _ROUNDING * max(1.0, abs(value))
    tails = min(int((defined <= size).sum()), int((defined >= -size).sum()))
    p = min(1.0, 2 * (tails + 1) / (len(defined) + 1))
    return Difference(value=value, low=float(low), high=float(high), p=p, n=len(defined))


def wilcoxon_signed_rank(first: ArrayLike, second: ArrayLike) -> Difference:
    """Wilcoxon's signed-rank test of a metric over the same splits, differences of 0 left out (Wilcoxon 1945).

    Exact for up to 50 splits without ties or zeros, else by the normal approximation (as scipy.stats.wilcoxon). It
    takes splits for independent. Splits that share training rows are not, so it finds differences too easily;
    `corrected_resampled_t` allows for that.

    Args:
        first, second: (S,) of models A and B; splits where either is NaN are left out.

    Returns:
        The mean difference without an interval; p is 1 when all differences are 0, NaN without splits.

    Raises:
        ValueError: shapes differ.
    """
    differences = _differences(first, second)
    if not len(differences):
        return _UNDEFINED
    # Correlations over few rows take few values: equal differences must rank equal, whatever their last bits say.
    scores = np.concatenate([np.asarray(values, dtype=np.float64) for values in (first, second)])
    size = float(np.abs(scores[np.isfinite(scores)]).max()) or 1.0
    rounded = np.round(differences / size, 12)
    nonzero = rounded[rounded != 0]
    p = 1.0
    if len(nonzero):
        tied = len(np.unique(np.abs(nonzero))) < len(nonzero)
        exact = len(differences) <= 50 and not tied and len(nonzero) == len(differences)
        p = float(stats.wilcoxon(nonzero, method="exact" if exact else "asymptotic").pvalue)
    return Difference(value=float(differences.mean()), low=float("nan"), high=float("nan"), p=p, n=len(differences))


def corrected_resampled_t(first: ArrayLike, second: ArrayLike, *, test_share: float, level: float = 0.95) -> Difference:
    """Student's t test over splits whose variance allows for overlapping training sets.

    t = mean(d) / sqrt((1 / S + n_test / n_train) var(d)), S - 1 degrees of freedom. Source: Nadeau & Bengio,
    Inference for the generalization error, Machine Learning 52 (2003).

    Args:
        first, second: (S,) of models A and B; splits where either is NaN are left out.
        test_share: n_test / n_train, at least 0 (0.25 for 80/20 splits); 0 gives the ordinary paired t test.
        level: of the interval.

    Returns:
        The mean difference, its interval and p; p is 1 when all differences are 0, 0 when all are the same other
        number, NaN with fewer than two splits.

    Raises:
        ValueError: shapes differ, or a negative share.
    """
    if not test_share >= 0:
        raise ValueError(f"test_share must be at least 0, got {test_share}")
    differences = _differences(first, second)
    splits = len(differences)
    if splits < 2:
        return _UNDEFINED
    mean = float(differences.mean())
    error = math.sqrt((1 / splits + test_share) * float(differences.var(ddof=1)))
    if error <= _ROUNDING * abs(mean) or error == 0:
        return Difference(value=mean, low=mean, high=mean, p=1.0 if mean == 0 else 0.0, n=splits)
    half = float(stats.t.ppf((1 + level) / 2, splits - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, splits - 1))
    return Difference(value=mean, low=mean - half, high=mean + half, p=p, n=splits)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down adjusted p values, in the order given; NaN stays NaN and counts as no comparison."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(values), np.nan)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return [float(value) for value in adjusted]


def _differences(first: ArrayLike, second: ArrayLike) -> Floats:
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"expected two vectors of one length, got {a.shape} and {b.shape}")
    both = np.isfinite(a) & np.isfinite(b)
    return np.asarray(a[both] - b[both], dtype=np.float64)

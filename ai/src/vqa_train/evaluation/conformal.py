"""Split-conformal intervals: half widths with a finite-sample guarantee, and how often intervals hold the label.

The guarantee needs exchangeable rows. Rows of one group (clips of one source) are not exchangeable with a row of a new
group, so residuals to calibrate on come from groups that the model was not fitted on, and few groups are little
evidence however many rows they have: `group_note` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqa_train.core.errors import UsageError
from vqa_train.evaluation.pairs import Floats


@dataclass(frozen=True, kw_only=True)
class ConformalInterval:
    """A half width, and what it rests on.

    Attributes:
        half_width: of the interval around a prediction, in units of the label; with `normalised`, in units of the
            prediction's spread. Infinite where n is too small for the level, NaN without residuals.
        level: share of new labels that the interval holds at least, 0..1.
        n: residuals it rests on.
        normalised: the half width is a multiple of each prediction's own spread.
    """

    half_width: float
    level: float
    n: int
    normalised: bool = False

    @property
    def note(self) -> str | None:
        """Why the half width is no finite number; None where it is one."""
        if math.isfinite(self.half_width):
            return None
        if self.n == 0:
            return "no residuals to calibrate on: the interval is undefined"
        return f"{self.n} residuals are too few for a level of {self.level:g}, {rows_needed(self.level)} are needed"

    def bounds(self, predicted: ArrayLike, spread: ArrayLike | None = None) -> tuple[Floats, Floats]:
        """Low and high ends around predictions (N,), float64 (N,) each; `spread` (N,) where normalised.

        Raises:
            ValueError: a spread where none belongs, or none where one does.
        """
        if self.normalised != (spread is not None):
            raise ValueError("a normalised interval needs the spread of each prediction, any other takes none")
        x = np.asarray(predicted, dtype=np.float64)
        half = self.half_width * (np.ones_like(x) if spread is None else np.asarray(spread, dtype=np.float64))
        return x - half, x + half


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How often intervals held the label.

    Attributes:
        share: of the n rows, 0..1; NaN without rows.
        n: rows with a label and both ends.
        mean_width: of the intervals, in units of the label; NaN without rows.
    """

    share: float
    n: int
    mean_width: float

    def to_json(self) -> dict[str, Any]:
        """{"coverage", "n", "mean_width"}; NaN and infinity become None."""
        return {"coverage": _number(self.share), "n": self.n, "mean_width": _number(self.mean_width)}


def rows_needed(level: float) -> int:
    """The smallest number of residuals that gives a finite half width: ceil(level / (1 - level))."""
    exact = _exact(level)
    return math.ceil(exact / (1 - exact))


def calibrate(residuals: ArrayLike, level: float, *, spread: ArrayLike | None = None) -> ConformalInterval:
    """The ceil((n + 1) level)-th smallest |residual|, which holds a new label with probability of at least `level`.

    Source: Vovk, Gammerman, Shafer, Algorithmic learning in a random world (2005); Lei et al., Distribution-free
    predictive inference for regression, JASA 113 (2018). With `spread` residuals are divided by it first (locally
    weighted), so that the interval is wide where the model is unsure.

    Args:
        residuals: (n,) label less prediction, of rows that the model was not fitted on; NaN and infinite are left out.
        level: above 0, below 1.
        spread: (n,) above 0, of the predictions; rows where it is not are left out.

    Raises:
        UsageError: a level outside 0..1.
        ValueError: shapes differ.
    """
    scores = _scores(residuals, spread)
    scores = np.sort(scores[np.isfinite(scores)])
    normalised = spread is not None
    if not len(scores):
        _exact(level)
        return ConformalInterval(half_width=float("nan"), level=level, n=0, normalised=normalised)
    return ConformalInterval(half_width=_quantile(scores, level), level=level, n=len(scores), normalised=normalised)


def coverage(target: ArrayLike, low: ArrayLike, high: ArrayLike) -> Coverage:
    """How many labels (N,) lie in [low, high], (N,) each; rows without a label or with a NaN end are left out.

    Raises:
        ValueError: shapes differ.
    """
    y, lower, upper = (np.asarray(values, dtype=np.float64) for values in (target, low, high))
    if not y.shape == lower.shape == upper.shape:
        raise ValueError(f"target, low and high must have one shape, got {y.shape}, {lower.shape}, {upper.shape}")
    rows = np.isfinite(y) & ~np.isnan(lower) & ~np.isnan(upper)
    y, lower, upper = y[rows], lower[rows], upper[rows]
    if not len(y):
        return Coverage(share=float("nan"), n=0, mean_width=float("nan"))
    inside = (lower <= y) & (y <= upper)
    return Coverage(share=float(inside.mean()), n=len(y), mean_width=float((upper - lower).mean()))


def cross_coverage(
    residuals: ArrayLike,
    folds: Sequence[str] | Sequence[int] | NDArray[Any],
    level: float,
    *,
    spread: ArrayLike | None = None,
    ids: Sequence[str] | NDArray[Any] | None = None,
) -> Coverage:
    """Coverage of every fold by the half width that the residuals of the other folds give.

    Args:
        residuals: (n,) held-out residuals, each from the model that its fold did not train.
        folds: (n,) the fold of each residual.
        level: above 0, below 1.
        spread: (n,) of the predictions, for normalised intervals.
        ids: (n,) what each residual is of. With repeated splits one row is in several folds; its other residuals are
            then left out of its own calibration. None: every residual is of another row.

    Returns:
        Over all rows; folds whose calibration is undefined have none, one whose half width is infinite holds all of
        its rows. NaN with fewer than two folds.

    Raises:
        UsageError: a level outside 0..1.
        ValueError: shapes differ.
    """
    _exact(level)
    scores = _scores(residuals, spread)
    fold = np.unique(np.asarray(folds), return_inverse=True)[1]
    row = np.arange(len(scores)) if ids is None else np.unique(np.asarray(ids), return_inverse=True)[1]
    if not len(scores) == len(fold) == len(row):
        raise ValueError(f"residuals, folds and ids must have one length, got {len(scores)}, {len(fold)}, {len(row)}")
    unit = np.ones(len(scores)) if spread is None else np.asarray(spread, dtype=np.float64)
    finite = np.isfinite(scores)
    held, count, width = 0, 0, 0.0
    for one in range(int(fold.max()) + 1 if len(fold) else 0):
        inside = (fold == one) & finite
        others = (fold != one) & finite
        if ids is not None:
            others &= ~np.isin(row, row[inside])
        if not others.any():
            continue
        half = _quantile(np.sort(scores[others]), level)
        held += int((scores[inside] <= half).sum())
        count += int(inside.sum())
        width += float((2 * half * unit[inside]).sum())
    if not count:
        return Coverage(share=float("nan"), n=0, mean_width=float("nan"))
    return Coverage(share=held / count, n=count, mean_width=width / count)


def group_note(groups: Sequence[str] | NDArray[np.str_], level: float) -> str | None:
    """What to say of residuals that come from few groups, (n,) names; None where groups are enough or rows alone."""
    names = np.asarray(groups, dtype=np.str_)
    count = len(np.unique(names))
    if count == len(names) or count >= rows_needed(level):
        return None
    return (
        f"{len(names)} residuals of only {count} groups: for a video of a new group the level of {level:g} is not "
        f"assured, {rows_needed(level)} groups would be needed"
    )


def _scores(residuals: ArrayLike, spread: ArrayLike | None) -> Floats:
    """|residual|, or |residual| / spread; NaN where the spread is not above 0."""
    size = np.abs(np.asarray(residuals, dtype=np.float64))
    if size.ndim != 1:
        raise ValueError(f"residuals must be a vector, got shape {size.shape}")
    if spread is None:
        return size
    unit = np.asarray(spread, dtype=np.float64)
    if unit.shape != size.shape:
        raise ValueError(f"spread must have the shape of residuals {size.shape}, got {unit.shape}")
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(unit > 0, size / unit, np.nan)


def _quantile(scores: Floats, level: float) -> float:
    """Of sorted finite scores (n,), n at least 1."""
    rank = math.ceil((len(scores) + 1) * _exact(level))
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def _exact(level: float) -> Fraction:
    """The level as it is written: 0.9 as 9/10, so that (n + 1) 0.9 is a whole number where it should be one."""
    if not 0 < level < 1:
        raise UsageError(f"level must lie between 0 and 1, got {level:g}")
    return Fraction(str(float(level)))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""What a metric is: a pure function of predicted and subjective scores, and what the report may do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from vqa_train.evaluation.pairs import Floats

Resampled = Callable[[Floats, Floats, Floats], Floats]
"""(predicted (n,), target (n,), counts (R, n)) -> the metric of each resample (R,), where row i of the finite
vectors occurs counts[r, i] times in resample r."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; an instance is called like the function it holds.

    Attributes:
        name: key in the report.
        compute: (predicted (N,), target (N,)) -> float. Rows where either is NaN or infinite are left out; NaN where
            the metric is undefined, never a number in its place.
        resampled: the metric of bootstrap resamples, or None for a metric without intervals.
        mapped: also reported after the four-parameter logistic, because it depends on the scale.
        pairwise: `resampled` costs n² per resample, so the report limits how many it takes.
    """

    name: str
    compute: Callable[[ArrayLike, ArrayLike], float]
    resampled: Resampled | None = None
    mapped: bool = False
    pairwise: bool = False

    def __call__(self, predicted: ArrayLike, target: ArrayLike) -> float:
        """`compute`."""
        return self.compute(predicted, target)

"""What a metric is: a pure function of predicted and subjective scores, and what the report may do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.uncertainty import LabelUncertainty

Resampled = Callable[[Floats, Floats, Floats], Floats]
"""(predicted (n,), target (n,), counts (R, n)) -> the metric of each resample (R,), where row i of the finite
vectors occurs counts[r, i] times in resample r."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric; an instance is called like the function it holds.

    Attributes:
        name: key in the report.
        compute: (predicted (N,), target (N,)) -> float. Rows where either is NaN or infinite are left out; NaN where
            the metric is undefined, never a number in its place. With `uncertain`: (predicted, target, uncertainty,
            degrees) -> float, where rows without known uncertainty are left out as well.
        resampled: the metric of bootstrap resamples (`Resampled`), or None for a metric without intervals. With
            `uncertain` it takes uncertainty and degrees as two further arguments.
        mapped: also reported after the mapping, because it depends on the scale.
        pairwise: `resampled` costs n² per resample, so the report limits how many it takes.
        higher_is_better: a correlation or a share of right answers; False for an error.
        uncertain: needs the confidence intervals of the labels.
        directed: asks which of two videos is better, so predictions whose better end is not that of the labels are
            turned round first.
    """

    name: str
    compute: Callable[..., float]
    resampled: Callable[..., Floats] | None = None
    mapped: bool = False
    pairwise: bool = False
    higher_is_better: bool = True
    uncertain: bool = False
    directed: bool = False

    def __call__(
        self,
        predicted: ArrayLike,
        target: ArrayLike,
        uncertainty: LabelUncertainty | None = None,
        *,
        degrees: int = 1,
    ) -> float:
        """`compute`.

        Args:
            predicted, target: (N,).
            uncertainty: of the N labels; ignored by a metric that needs none, NaN without it for one that does.
            degrees: parameters fitted to these rows, 1 for none: the d of ITU-T P.1401.
        """
        if not self.uncertain:
            return self.compute(predicted, target)
        return float("nan") if uncertainty is None else self.compute(predicted, target, uncertainty, degrees)

    def bound(self, uncertainty: LabelUncertainty | None, degrees: int) -> Resampled | None:
        """`resampled` with everything but scores and counts filled in; None where there is no such thing."""
        if self.resampled is None or not self.uncertain:
            return self.resampled
        if uncertainty is None:
            return None
        resampled: Any = self.resampled
        return lambda predicted, target, counts: resampled(predicted, target, counts, uncertainty, degrees)

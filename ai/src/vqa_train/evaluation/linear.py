"""The straight line as a mapping: ITU-T P.1401's first-order mapping."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.curve import rows_to_fit
from vqa_train.evaluation.pairs import Floats


@dataclass(frozen=True, kw_only=True)
class Line:
    """score(x) = intercept + slope x; slope in units of the label / units of the prediction."""

    kind: ClassVar[str] = "linear"
    degrees: ClassVar[int] = 2

    slope: float
    intercept: float

    def __call__(self, predicted: ArrayLike) -> Floats:
        """Mapped predictions, float64 of the same shape; NaN stays NaN."""
        return np.asarray(self.intercept + self.slope * np.asarray(predicted, dtype=np.float64), dtype=np.float64)

    def parameters(self) -> dict[str, float]:
        """slope and intercept."""
        return asdict(self)


def fit_line(predicted: ArrayLike, target: ArrayLike) -> Line:
    """Least-squares line, rising or falling.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Raises:
        MappingFitError: under 3 rows, or constant predictions or labels.
        ValueError: shapes differ.
    """
    x, y = rows_to_fit("linear", predicted, target, rows=3, distinct=2)
    # Around the mean and in units of the spread, so that neither huge nor tiny units lose digits.
    mean, scale = float(x.mean()), float(np.abs(x - x.mean()).max())
    z = (x - mean) / scale
    slope = float((z * y).sum() / (z * z).sum()) / scale
    return Line(slope=slope, intercept=float(y.mean()) - slope * mean)

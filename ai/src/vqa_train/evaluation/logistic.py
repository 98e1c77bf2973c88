"""The four-parameter logistic of VQEG that maps predictions to the scale of opinion scores before PLCC and RMSE."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from vqa_train.evaluation.curve import rows_to_fit
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.sigmoid import search_sigmoid


@dataclass(frozen=True, kw_only=True)
class Logistic4:
    """score(x) = beta2 + (beta1 - beta2) / (1 + exp(-(x - beta3) / |beta4|)), monotone in x.

    Source: VQEG, Final report on the validation of objective models of video quality assessment, FR-TV Phase I
    (2000), the form that later papers fit before PLCC and RMSE.

    Attributes:
        beta1: value that is approached as x grows, in units of the label.
        beta2: value that is approached as x falls, in units of the label.
        beta3: x of the inflection, in units of the prediction.
        beta4: width of the S, in units of the prediction, above 0.
    """

    kind: ClassVar[str] = "logistic4"
    degrees: ClassVar[int] = 4

    beta1: float
    beta2: float
    beta3: float
    beta4: float

    def __call__(self, predicted: ArrayLike) -> Floats:
        """Mapped predictions, float64 of the same shape; NaN stays NaN."""
        x = np.asarray(predicted, dtype=np.float64)
        s = expit((x - self.beta3) / abs(self.beta4))
        return np.asarray(self.beta2 + (self.beta1 - self.beta2) * s, dtype=np.float64)

    def parameters(self) -> dict[str, float]:
        """beta1 to beta4."""
        return asdict(self)


def fit_logistic(predicted: ArrayLike, target: ArrayLike) -> Logistic4:
    """Least-squares fit of `Logistic4`, rising or falling.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Raises:
        MappingFitError: under 5 rows, fewer than 3 distinct predictions, or constant labels.
        ValueError: shapes differ.
    """
    x, y = rows_to_fit("logistic4", predicted, target, rows=5, distinct=3)
    sigmoid = search_sigmoid(x, y, line=False)
    slope, intercept = _line(sigmoid(x), y)
    return Logistic4(beta1=intercept + slope, beta2=intercept, beta3=sigmoid.inflection, beta4=sigmoid.width)


def _line(s: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of the least-squares line of y over s; slope 0 where s is constant."""
    # Scaled first: far from the inflection s is too small to be squared.
    scale = float(s.max()) or 1.0
    mean = float(s.mean())
    centred = (s - mean) / scale
    square = float((centred * centred).sum())
    slope = float((centred * y).sum()) / square / scale if square > 0 else 0.0
    return slope, float(y.mean() - slope * mean)

"""The five-parameter logistic of Sheikh, Sabir and Bovik: an S plus a straight line."""

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
class Logistic5:
    """score(x) = beta1 (1/2 - 1 / (1 + exp(beta2 (x - beta3)))) + beta4 x + beta5.

    Not monotone where the S and the line run against each other.

    Source: Sheikh, Sabir, Bovik, A statistical evaluation of recent full reference image quality assessment
    algorithms, IEEE Transactions on Image Processing 15 (2006).

    Attributes:
        beta1: height of the S, in units of the label.
        beta2: steepness, 1 / units of the prediction, above 0 as fitted here.
        beta3: x of the inflection, in units of the prediction.
        beta4: slope of the line, units of the label / units of the prediction.
        beta5: value of the line at 0, in units of the label.
    """

    kind: ClassVar[str] = "logistic5"
    degrees: ClassVar[int] = 5

    beta1: float
    beta2: float
    beta3: float
    beta4: float
    beta5: float

    def __call__(self, predicted: ArrayLike) -> Floats:
        """Mapped predictions, float64 of the same shape; NaN stays NaN."""
        x = np.asarray(predicted, dtype=np.float64)
        s = expit(self.beta2 * (x - self.beta3)) - 0.5
        return np.asarray(self.beta1 * s + self.beta4 * x + self.beta5, dtype=np.float64)

    def parameters(self) -> dict[str, float]:
        """beta1 to beta5."""
        return asdict(self)


def fit_logistic5(predicted: ArrayLike, target: ArrayLike) -> Logistic5:
    """Least-squares fit of `Logistic5`, rising or falling.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Raises:
        MappingFitError: under 6 rows, fewer than 4 distinct predictions, or constant labels.
        ValueError: shapes differ.
    """
    x, y = rows_to_fit("logistic5", predicted, target, rows=6, distinct=4)
    sigmoid = search_sigmoid(x, y, line=True)
    # The line is solved around the middle of x, in units of its spread, where S and line are least alike in size.
    center, spread = float(np.median(x)), float(x.std())
    columns = np.stack([sigmoid(x) - 0.5, (x - center) / spread, np.ones_like(x)], axis=1)
    (height, slope, level), *_ = np.linalg.lstsq(columns, y, rcond=None)
    slope = slope / spread
    return Logistic5(
        beta1=float(height),
        beta2=1.0 / sigmoid.width,
        beta3=sigmoid.inflection,
        beta4=float(slope),
        beta5=float(level - slope * center),
    )

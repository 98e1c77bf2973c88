"""The four-parameter logistic of VQEG that maps predictions to the scale of opinion scores before PLCC and RMSE."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from vqa_train.core.errors import VqaError
from vqa_train.evaluation.pairs import Floats, finite_pairs, is_constant

_MIN_ROWS = 5
# Where the search starts: inflections at these quantiles of the predictions, widths as parts of their spread.
_START_QUANTILES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_START_WIDTHS = (0.1, 0.3, 1.0, 3.0)
_STARTS_POLISHED = 2
_MAX_ITERATIONS = 500
# The box that is searched. A straight line, an exponential and a step are limits of the curve at infinite or zero
# parameters; at these bounds it is close to them, and no single outlier gets an asymptote of its own.
_INFLECTION_MARGIN = 1.0
_WIDTH_BOUNDS = (0.02, 10.0)


class LogisticFitError(VqaError):
    """The logistic mapping cannot be fitted to these scores; the message says why."""


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

    beta1: float
    beta2: float
    beta3: float
    beta4: float

    def __call__(self, predicted: ArrayLike) -> Floats:
        """Mapped predictions, float64 of the same shape; NaN stays NaN."""
        x = np.asarray(predicted, dtype=np.float64)
        s = expit((x - self.beta3) / abs(self.beta4))
        return np.asarray(self.beta2 + (self.beta1 - self.beta2) * s, dtype=np.float64)


def fit_logistic(predicted: ArrayLike, target: ArrayLike) -> Logistic4:
    """Least-squares fit of `Logistic4`, rising or falling.

    For a given inflection and width the two asymptotes are a linear regression, so only those two are searched:
    a grid of starts, the best of which are polished within bounds. So it ends for any shape of the data.

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Raises:
        LogisticFitError: under 5 rows, fewer than 3 distinct predictions, constant labels, or no convergence.
        ValueError: shapes differ.
    """
    x, y = finite_pairs(predicted, target)
    if len(x) < _MIN_ROWS:
        raise LogisticFitError(f"logistic mapping needs at least {_MIN_ROWS} rows with both scores, got {len(x)}")
    for name, values in (("predictions", x), ("labels", y)):
        if is_constant(values):
            raise LogisticFitError(f"logistic mapping is undefined: the {name} are constant")
    if len(np.unique(x)) < 3:
        raise LogisticFitError("logistic mapping is undefined: fewer than 3 distinct predictions")
    # In one order, so that sums, and with them the curve, do not depend on the order of the rows.
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    center, spread = float(np.median(x)), _spread(x)
    t = (y - y.mean()) / y.std()
    inflection, width = _search((x - center) / spread, t)
    curve = Logistic4(beta1=1.0, beta2=0.0, beta3=center + spread * inflection, beta4=spread * width)
    slope, intercept = _line(curve(x), y)
    return replace(curve, beta1=intercept + slope, beta2=intercept)


def _spread(x: Floats) -> float:
    """Half of the predictions lie in a range this wide; robust against outliers."""
    low, high = np.quantile(x, [0.25, 0.75])
    return float(high - low) if high - low > 1e-6 * x.std() else float(x.std())


def _search(z: Floats, t: Floats) -> tuple[float, float]:
    """Inflection and width with the smallest residual."""

    def cost(parameters: Floats) -> float:
        s = expit((z - parameters[0]) * np.exp(-parameters[1]))
        slope, intercept = _line(s, t)
        return float(np.square(intercept + slope * s - t).mean())

    span = float(np.ptp(z))
    bounds = [
        (z.min() - _INFLECTION_MARGIN * span, z.max() + _INFLECTION_MARGIN * span),
        (np.log(_WIDTH_BOUNDS[0]), np.log(_WIDTH_BOUNDS[1] * max(span, 1.0))),
    ]
    starts = [np.array([c, np.log(w)]) for c in np.quantile(z, _START_QUANTILES) for w in _START_WIDTHS]
    # Without derivatives, because a curve as steep as a step has none that help.
    options = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": _MAX_ITERATIONS}
    fits = [
        minimize(cost, start, method="Nelder-Mead", bounds=bounds, options=options)
        for start in sorted(starts, key=cost)[:_STARTS_POLISHED]
    ]
    converged = [fit for fit in fits if fit.success]
    if not converged:
        raise LogisticFitError("logistic mapping did not converge from any start")
    best = min(converged, key=lambda fit: float(fit.fun))
    return float(best.x[0]), float(np.exp(best.x[1]))


def _line(s: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of the least-squares line of y over s; slope 0 where s is constant."""
    # Scaled first: far from the inflection s is too small to be squared.
    scale = float(s.max()) or 1.0
    mean = float(s.mean())
    centred = (s - mean) / scale
    # Sums of products, not dot products: those would wake BLAS threads hundreds of times.
    square = float((centred * centred).sum())
    slope = float((centred * y).sum()) / square / scale if square > 0 else 0.0
    return slope, float(y.mean() - slope * mean)

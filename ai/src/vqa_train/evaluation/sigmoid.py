"""The search both logistic mappings share: the inflection and the width of an S, its linear part solved exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from vqa_train.evaluation.pairs import Floats

# Where the search starts: inflections at these quantiles of the predictions, widths as parts of their spread.
_START_QUANTILES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
_START_WIDTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
_STARTS_POLISHED = 4
# The box that is searched. A straight line, an exponential and a step are limits of the curve at infinite or zero
# parameters; at these bounds it is close to them, and no single outlier gets an asymptote of its own. With a line of
# its own beside it, an S needs its inflection among the predictions: outside, its height and the line's would cancel.
_INFLECTION_MARGIN = 1.0
_WIDTH_BOUNDS = (0.02, 10.0)
# Levenberg-Marquardt: steps at most, and of every start before the best alone goes on; first and last damping;
# when a decrease is none.
_STEPS, _FIRST_STEPS = 100, 12
_DAMPING, _DAMPING_LIMIT = 1e-3, 1e9
_DECREASE = 1e-13
# Cosine between the residual and the directions it may still move in; below, the residual is a minimum.
_STATIONARY = 1e-6
_NELDER_MEAD = {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 500}
_NOTHING = 1e-26


@dataclass(frozen=True)
class Sigmoid:
    """s(x) = 1 / (1 + exp(-(x - inflection) / width)), in units of x; width above 0."""

    inflection: float
    width: float

    def __call__(self, x: Floats) -> Floats:
        """In 0..1, of the shape of x."""
        return np.asarray(expit((x - self.inflection) / self.width), dtype=np.float64)


def search_sigmoid(x: Floats, y: Floats, *, line: bool) -> Sigmoid:
    """The sigmoid s that leaves the least squares of y after a regression on (1, s), or on (1, x, s) with `line`.

    The linear part is solved exactly for each sigmoid (variable projection: Golub & Pereyra 1973, with the Jacobian
    of Kaufman 1975), so that only two numbers are searched: the valleys of a grid are polished by Levenberg-Marquardt
    inside a box, and the best by Nelder-Mead where a curve as steep as a step has no derivatives that help.

    Args:
        x: (n,) sorted, finite, at least 3 distinct values.
        y: (n,) finite, not constant.
    """
    center, spread = float(np.median(x)), _spread(x)
    z, t = (x - center) / spread, (y - y.mean()) / y.std()
    best = _Problem(z, t, line=False).search([])
    if line:
        # Started there too, the richer curve is hardly ever the worse one.
        best = _Problem(z, t, line=True).search([best])
    return Sigmoid(center + spread * float(best[0]), spread * float(np.exp(best[1])))


def _spread(x: Floats) -> float:
    """Half of the predictions lie in a range this wide; robust against outliers."""
    low, high = np.quantile(x, [0.25, 0.75])
    return float(high - low) if high - low > 1e-6 * x.std() else float(x.std())


@dataclass(frozen=True)
class _State:
    cost: float
    shape: Floats  # the sigmoid less its projection on the fixed columns
    square: float
    slope: float
    residual: Floats
    sigmoid: Floats
    scale: float


class _Problem:
    """Residuals over (inflection, log width) for predictions z and standardised labels t, both (n,)."""

    def __init__(self, z: Floats, t: Floats, line: bool) -> None:
        self.z = z
        centred = z - z.mean()
        self._line = centred / np.sqrt(_dot(centred, centred)) if line else None
        self.t = self._project(t)
        span = float(np.ptp(z))
        margin = 0.0 if line else _INFLECTION_MARGIN * span
        self.low = np.array([z[0] - margin, np.log(_WIDTH_BOUNDS[0])])
        self.high = np.array([z[-1] + margin, np.log(_WIDTH_BOUNDS[1] * max(span, 1.0))])

    def search(self, starts: list[Floats]) -> Floats:
        """The best (inflection, log width), from `starts` and from the grid."""
        inside = [np.clip(start, self.low, self.high) for start in starts]
        found = [self._polish(start, _FIRST_STEPS) for start in (*inside, *self._starts())]
        cost, point, settled = min(found, key=lambda polished: polished[0])
        if not settled:
            cost, point, settled = self._polish(point, _STEPS)
        if settled:
            return point
        bounds = list(zip(self.low, self.high, strict=True))
        fit = minimize(self._cost, point, method="Nelder-Mead", bounds=bounds, options=_NELDER_MEAD)
        return np.asarray(fit.x) if fit.fun < cost else point

    def _starts(self) -> list[Floats]:
        """The valleys of the grid, deepest first, and what else is deep; all points are evaluated together."""
        inflections = np.quantile(self.z, _START_QUANTILES)
        widths = np.log(_START_WIDTHS)
        grid = np.stack(np.meshgrid(inflections, widths, indexing="ij"), axis=-1).reshape(-1, 2)
        sigmoids = expit((self.z - grid[:, :1]) * np.exp(-grid[:, 1:]))
        shapes = self._project(sigmoids / sigmoids.max(axis=1, keepdims=True))
        squares = (shapes * shapes).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            explained = np.where(squares > _NOTHING, (shapes * self.t).sum(axis=1) ** 2 / squares, 0.0)
        heights = np.pad(explained.reshape(len(inflections), len(widths)), 1, constant_values=-1.0)
        inner = heights[1:-1, 1:-1]
        around = (heights[:-2, 1:-1], heights[2:, 1:-1], heights[1:-1, :-2], heights[1:-1, 2:])
        valley = np.logical_and.reduce([inner >= other for other in around]).ravel()
        order = np.lexsort((-explained, ~valley))[:_STARTS_POLISHED]
        return [grid[i] for i in order]

    def _project(self, values: Floats) -> Floats:
        """Less the mean and, where a line is fitted too, less the component along z; over the last axis."""
        # Sums of products, not dot products: those would wake BLAS threads hundreds of times.
        values = values - values.mean(axis=-1, keepdims=True)
        if self._line is None:
            return np.asarray(values)
        return np.asarray(values - (values * self._line).sum(axis=-1, keepdims=True) * self._line)

    def _state(self, point: Floats) -> _State:
        sigmoid = expit((self.z - point[0]) * np.exp(-point[1]))
        # Scaled first: far from the inflection it is too small to be squared.
        scale = float(sigmoid[-1]) or 1.0
        shape = self._project(sigmoid / scale)
        square = _dot(shape, shape)
        slope = _dot(shape, self.t) / square if square > _NOTHING else 0.0
        residual = self.t - slope * shape
        return _State(_dot(residual, residual) / len(self.t), shape, square, slope, residual, sigmoid, scale)

    def _cost(self, point: Floats) -> float:
        return self._state(point).cost

    def _polish(self, point: Floats, steps: int) -> tuple[float, Floats, bool]:
        """Cost and place of the minimum near `point`, and whether it is known to be one."""
        state, damping = self._state(point), _DAMPING
        for _ in range(steps):
            if state.cost <= _NOTHING:
                return state.cost, point, True
            step, stationary = self._step(point, state, damping)
            trial = np.clip(point + step, self.low, self.high)
            found = self._state(trial)
            decrease = state.cost - found.cost
            if stationary and decrease <= _DECREASE * state.cost:
                return state.cost, point, True
            if decrease > 0:
                point, state, damping = trial, found, damping / 10
            else:
                damping *= 10
            if damping > _DAMPING_LIMIT:
                break
        return state.cost, point, False

    def _step(self, point: Floats, state: _State, damping: float) -> tuple[Floats, bool]:
        """The damped step, and whether the residual is stationary in every direction that the box leaves free."""
        steep = state.sigmoid * (1.0 - state.sigmoid)
        reduced = (self.z - point[0]) * np.exp(-point[1])
        columns = np.stack([-steep * np.exp(-point[1]), -steep * reduced]) / state.scale
        columns = self._project(columns)
        if state.square > _NOTHING:
            columns -= (columns * state.shape).sum(axis=1, keepdims=True) / state.square * state.shape
        columns *= state.slope
        gradient = (columns * state.residual).sum(axis=1)
        lengths = (columns * columns).sum(axis=1)
        free = ~(((point <= self.low) & (gradient < 0)) | ((point >= self.high) & (gradient > 0)))
        free &= lengths > _NOTHING
        step = np.zeros(2)
        if not free.any():
            return step, True
        if free.all():
            cross = _dot(columns[0], columns[1])
            a, d = lengths * (1 + damping)
            determinant = a * d - cross * cross
            step[:] = (d * gradient[0] - cross * gradient[1], a * gradient[1] - cross * gradient[0])
            step /= determinant
        else:
            step[free] = gradient[free] / (lengths[free] * (1 + damping))
        size = np.sqrt(lengths[free] * _dot(state.residual, state.residual))
        return step, bool((np.abs(gradient[free]) <= _STATIONARY * size).all())


def _dot(a: Floats, b: Floats) -> float:
    return float((a * b).sum())

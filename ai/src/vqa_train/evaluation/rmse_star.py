"""RMSE*: the root mean square of only that part of the error that the labels' confidence intervals do not explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.uncertainty import LabelUncertainty, finite_rows


def rmse_star(predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty, degrees: int = 1) -> float:
    """sqrt(sum(Perror²) / (N - d)), Perror = max(0, |target - predicted| - ci95): ITU-T P.1401 (01/2020), 7.7.

    Args:
        predicted, target: (N,) on one scale; rows where either is not finite are left out.
        uncertainty: of the N labels; rows where it is not known are left out.
        degrees: d, the parameters of the mapping that was fitted to these rows: 1 for none, 2 for a straight line.

    Returns:
        At least 0, in units of the label; NaN with no more than d rows.

    Raises:
        ValueError: shapes differ.
    """
    x, y, known = finite_rows(predicted, target, uncertainty)
    return float(rmse_star_resampled(x, y, np.ones((1, len(x))), known, degrees)[0])


def rmse_star_resampled(
    predicted: Floats, target: Floats, counts: Floats, uncertainty: LabelUncertainty, degrees: int
) -> Floats:
    """RMSE* of resamples in which row i of the (n,) vectors occurs counts[r, i] times: (R,).

    Rows without known uncertainty are left out; NaN where a resample has no more than d others.
    """
    known = uncertainty.known
    beyond = np.maximum(0.0, np.abs(predicted - target)[known] - uncertainty.half_width[known])
    drawn = counts[:, known]
    left = drawn.sum(axis=1) - degrees
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(left > 0, np.sqrt(drawn @ (beyond * beyond) / left), np.nan)


RMSE_STAR = Metric(
    name="rmse_star",
    compute=rmse_star,
    resampled=rmse_star_resampled,
    mapped=True,
    higher_is_better=False,
    uncertain=True,
)

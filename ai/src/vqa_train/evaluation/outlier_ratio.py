"""Outlier ratio: the share of predictions outside the 95 % confidence interval of the opinion score."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.uncertainty import LabelUncertainty, finite_rows


def outlier_ratio(predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty, degrees: int = 1) -> float:
    """Share of the rows with |target - predicted| > ci95: ITU-T P.1401 (01/2020), 7.5.2.2.

    Args:
        predicted, target: (N,) on one scale; rows where either is not finite are left out.
        uncertainty: of the N labels; rows where it is not known are left out.
        degrees: not used; the ratio has no degrees of freedom.

    Returns:
        In [0, 1]; NaN when no row is left.

    Raises:
        ValueError: shapes differ.
    """
    x, y, known = finite_rows(predicted, target, uncertainty)
    if len(x) == 0:
        return float("nan")
    return float(outlier_ratio_resampled(x, y, np.ones((1, len(x))), known, degrees)[0])


def outlier_ratio_resampled(
    predicted: Floats, target: Floats, counts: Floats, uncertainty: LabelUncertainty, degrees: int
) -> Floats:
    """The ratio of resamples in which row i of the (n,) vectors occurs counts[r, i] times: (R,).

    Rows without known uncertainty are left out; NaN where a resample has no other.
    """
    known = uncertainty.known
    outside = np.abs(predicted - target)[known] > uncertainty.half_width[known]
    drawn = counts[:, known]
    with np.errstate(invalid="ignore"):
        return np.asarray(drawn @ outside.astype(np.float64) / drawn.sum(axis=1), dtype=np.float64)


OUTLIER_RATIO = Metric(
    name="outlier_ratio",
    compute=outlier_ratio,
    resampled=outlier_ratio_resampled,
    mapped=True,
    higher_is_better=False,
    uncertain=True,
)

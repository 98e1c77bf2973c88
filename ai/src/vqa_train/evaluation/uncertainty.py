"""How sure the labels are: the standard error and the 95 % confidence interval of every mean opinion score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from vqa_train.evaluation.pairs import Floats

# ITU-T P.1401: Student's t below this many votes, the normal quantile from there on.
_NORMAL_FROM = 30
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class LabelUncertainty:
    """Of N opinion scores, in units of the score; NaN where it is not known.

    Attributes:
        standard_error: (N,) standard deviation of the mean.
        half_width: (N,) half of the two-sided 95 % confidence interval.
    """

    standard_error: Floats
    half_width: Floats

    @classmethod
    def from_votes(cls, std: ArrayLike, votes: ArrayLike) -> LabelUncertainty:
        """From the spread of the votes: ci95 = t(0.05, M) std / sqrt(M).

        Source: ITU-T P.1401 (01/2020), 7.4: t is Student's two-sided quantile with M - 1 degrees of freedom below 30
        votes, 1.96 from 30 on.

        Args:
            std: (N,) standard deviation of the votes (with M - 1), at least 0; others count as not known.
            votes: (N,), or one number for all: votes per score; fewer than 2 count as not known.
        """
        spread = np.asarray(std, dtype=np.float64)
        count = np.broadcast_to(np.asarray(votes, dtype=np.float64), spread.shape)
        known = np.isfinite(spread) & (spread >= 0) & np.isfinite(count) & (count >= 2)
        spread, count = np.where(known, spread, np.nan), np.where(known, count, 2.0)
        error = spread / np.sqrt(count)
        quantile = np.where(count < _NORMAL_FROM, student.ppf(0.975, count - 1), _NORMAL_95)
        return cls(error, quantile * error)

    @classmethod
    def from_half_width(cls, half_width: ArrayLike) -> LabelUncertainty:
        """From published 95 % confidence intervals, (N,) half widths; the standard error is 1 / 1.96 of it."""
        half = np.asarray(half_width, dtype=np.float64)
        half = np.where(np.isfinite(half) & (half >= 0), half, np.nan)
        return cls(half / _NORMAL_95, half)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N,) where both numbers are known."""
        return np.isfinite(self.standard_error) & np.isfinite(self.half_width)

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> LabelUncertainty:
        """Of these rows only, by mask or by index."""
        return LabelUncertainty(self.standard_error[rows], self.half_width[rows])


def finite_rows(
    predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty
) -> tuple[Floats, Floats, LabelUncertainty]:
    """The rows where both scores are finite and the label's uncertainty is known.

    Raises:
        ValueError: not three vectors of one length.
    """
    x, y = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.ndim != 1 or not x.shape == y.shape == uncertainty.standard_error.shape == uncertainty.half_width.shape:
        raise ValueError(
            f"predicted, target and uncertainty must be vectors of one length, got {x.shape}, {y.shape} and "
            f"{uncertainty.standard_error.shape}"
        )
    rows = np.isfinite(x) & np.isfinite(y) & uncertainty.known
    return x[rows], y[rows], uncertainty.take(rows)

"""Limits of the drift gate, and what sampling noise adds to them."""

from __future__ import annotations

from math import sqrt
from typing import Annotated

from pydantic import Field

from vqa_train.core.config import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class DriftLimits(StrictModel):
    """The gate file's section `drift`. Shifts are in standard deviations of the training rows.

    A limit holds for the population; what a finite sample may add to it is `noise_sd` standard errors.

    Attributes:
        min_rows: independent rows below which nothing is judged.
        noise_sd: standard errors.
        shift, shift_share: of a column's mean; share of an input's columns whose shift may be larger.
        worst_shift: of any column.
        rms_shift: root mean square over an input's columns.
        variance_ratio, variance_share: of a column's variance to that of training, either way; share of the columns
            that may be further apart.
        outside_share: share of an input's values outside the range of the training rows.
        beyond_sd, beyond_share: share of an input's values further than that from their training mean.
        frozen_moved: columns that were constant in training and are not what they were.
        missing_share: share of values that are missing, beyond that of training.
        psi: population stability index of a target's scores.
        score_shift: of the mean score.
        score_outside: share of scores outside the range that the sidecar tells to expect.
        failed_share: share of rows or videos without a score.
    """

    min_rows: int = Field(default=30, ge=2)
    noise_sd: float = Field(default=3.0, ge=0, allow_inf_nan=False)
    shift: Positive = 0.5
    shift_share: Share = 0.05
    worst_shift: Positive = 2.0
    rms_shift: Positive = 0.3
    variance_ratio: float = Field(default=4.0, gt=1, allow_inf_nan=False)
    variance_share: Share = 0.1
    outside_share: Share = 0.05
    beyond_sd: Positive = 6.0
    beyond_share: Share = 0.03
    frozen_moved: int = Field(default=0, ge=0)
    missing_share: Share = 0.05
    psi: Positive = 0.25
    score_shift: Positive = 0.5
    score_outside: Share = 0.05
    failed_share: Share = 0.05


def share_limit(limits: DriftLimits, share: float, rows: float) -> float:
    """A limit on a share with the noise of `rows` independent rows."""
    return min(1.0, share + limits.noise_sd * sqrt(share * (1 - share) / rows)) if rows else share


def standard_error(rows: float, training: float) -> float:
    """Of a difference of two means, in standard deviations."""
    return sqrt(1 / max(rows, 1) + 1 / max(training, 1))

"""The score of the VQualA challenges: the mean of SROCC and PLCC."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats
from vqa_train.evaluation.plcc import plcc, plcc_resampled
from vqa_train.evaluation.srocc import srocc, srocc_resampled


def vquala(predicted: ArrayLike, target: ArrayLike) -> float:
    """(SROCC + PLCC) / 2, as the VQualA 2025 challenges rank their entries (signed, not by magnitude).

    Args:
        predicted, target: (N,); rows where either is NaN or infinite are left out.

    Returns:
        In [-1, 1]; NaN (never 0) when either is constant or fewer than two rows are left.

    Raises:
        ValueError: shapes differ.
    """
    return (srocc(predicted, target) + plcc(predicted, target)) / 2


def vquala_resampled(predicted: Floats, target: Floats, counts: Floats) -> Floats:
    """The score of resamples in which row i of the finite (n,) vectors occurs counts[r, i] times: (R,)."""
    both = srocc_resampled(predicted, target, counts) + plcc_resampled(predicted, target, counts)
    return np.asarray(both / 2, dtype=np.float64)


VQUALA = Metric(name="vquala", compute=vquala, resampled=vquala_resampled)

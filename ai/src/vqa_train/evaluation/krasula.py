"""Krasula's analysis: can the model tell different pairs from similar ones, and which of a different pair is better?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from vqa_train.core.hashing import seed_from, sha256_bytes
from vqa_train.evaluation.metric import Metric
from vqa_train.evaluation.pairs import Floats, is_constant
from vqa_train.evaluation.uncertainty import LabelUncertainty, finite_rows

MAX_ROWS = 2000
"""Above this many rows the analysis rests on as many drawn by hash of their content: pairs grow with the square."""
# Two-sided 5 %.
_CRITICAL_Z = 1.959963984540054


@dataclass(frozen=True)
class PairAnalysis:
    """What all pairs of videos say of a model; NaN where undefined.

    Attributes:
        auc_ds: area under the ROC curve of telling significantly different from similar pairs by |difference of the
            predictions|; 0.5 is chance. NaN without both kinds of pairs.
        auc_bw: area under the ROC curve of telling the better from the worse video of the different pairs by the
            signed difference. NaN without different pairs.
        c0: share of the different pairs whose better video has the strictly higher prediction.
        different, similar: how many pairs.
    """

    auc_ds: float
    auc_bw: float
    c0: float
    different: int
    similar: int


def analyse_pairs(predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty) -> PairAnalysis:
    """The analysis of every unordered pair of videos.

    Two labels differ significantly where |difference| / sqrt(se₁² + se₂²) > 1.96 (z test, two-sided 5 %). Source:
    Krasula, Fliegel, Le Callet, Klima, On the accuracy of objective image and video quality models: new methodology
    for performance evaluation, QoMEX 2016.

    Args:
        predicted, target: (N,), with their better ends at the same side; rows where either is not finite are left out.
        uncertainty: of the N labels; rows where it is not known are left out. With standard error 0 any
            difference is significant.

    Returns:
        All NaN for constant predictions or labels.

    Raises:
        ValueError: shapes differ.
    """
    x, y, known = finite_rows(predicted, target, uncertainty)
    if is_constant(x) or is_constant(y):
        return PairAnalysis(float("nan"), float("nan"), float("nan"), 0, 0)
    bounded = _bounded(x, y, known.standard_error)
    return _analyse(*(values.tobytes() for values in bounded))


@lru_cache(maxsize=2)
def _analyse(*vectors: bytes) -> PairAnalysis:
    """Predictions, labels, standard errors as bytes, because three metrics ask for one analysis in turn."""
    x, y, error = (np.frombuffer(vector, dtype=np.float64) for vector in vectors)
    # Scaled by a power of two, which breaks no tie, so that no difference overflows.
    x = np.ldexp(x, -int(np.frexp(np.abs(x).max())[1]))
    first, second = np.triu_indices(len(x), 1)
    opinion = y[first] - y[second]
    noise = np.hypot(error[first], error[second])
    significant = np.abs(opinion) > _CRITICAL_Z * noise
    apart = x[first] - x[second]
    # Towards the better video: above 0 where the model agrees.
    agreed = apart[significant] * np.sign(opinion[significant])
    return PairAnalysis(
        auc_ds=_auc(np.abs(apart[significant]), np.abs(apart[~significant])),
        auc_bw=_auc(agreed, -agreed),
        c0=float((agreed > 0).mean()) if len(agreed) else float("nan"),
        different=int(significant.sum()),
        similar=int(len(significant) - significant.sum()),
    )


def _bounded(x: Floats, y: Floats, error: Floats) -> tuple[Floats, Floats, Floats]:
    """At most MAX_ROWS rows, the same ones whatever their order."""
    if len(x) <= MAX_ROWS:
        return x, y, error
    order = np.lexsort((error, x, y))
    x, y, error = x[order], y[order], error[order]
    seed = seed_from("krasula", *(sha256_bytes(values.tobytes()) for values in (x, y, error)))
    rows: NDArray[np.intp] = np.random.default_rng(seed).choice(len(x), MAX_ROWS, replace=False)
    return x[rows], y[rows], error[rows]


def _auc(positive: Floats, negative: Floats) -> float:
    """P(positive > negative) + P(equal) / 2 over all pairs of the two (Mann-Whitney); NaN when either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ranks = rankdata(np.concatenate([positive, negative]))
    count = float(len(positive))
    return float((ranks[: len(positive)].sum() / count - (count + 1) / 2) / len(negative))


def auc_different_similar(
    predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty, degrees: int
) -> float:
    """`PairAnalysis.auc_ds`."""
    return analyse_pairs(predicted, target, uncertainty).auc_ds


def auc_better_worse(predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty, degrees: int) -> float:
    """`PairAnalysis.auc_bw`."""
    return analyse_pairs(predicted, target, uncertainty).auc_bw


def correct_classification(
    predicted: ArrayLike, target: ArrayLike, uncertainty: LabelUncertainty, degrees: int
) -> float:
    """`PairAnalysis.c0`."""
    return analyse_pairs(predicted, target, uncertainty).c0


AUC_DS = Metric(name="auc_ds", compute=auc_different_similar, uncertain=True)
AUC_BW = Metric(name="auc_bw", compute=auc_better_worse, uncertain=True, directed=True)
C0 = Metric(name="c0", compute=correct_classification, uncertain=True, directed=True)

"""Weighted losses on standardised scores, per target, and their weighted sum.

Each takes predictions, targets and weights of shape (..., N, K) and gives (..., K): any leading dimensions are
independent models. A weight of 0 (or False) is a missing label. Where a loss is undefined for a target (too few
labelled rows, a constant) it is 0 without gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from vqa_train.heads import LOSSES
from vqa_train.heads.correlation import one_minus_correlation
from vqa_train.heads.pairwise_hinge import pairwise_hinge
from vqa_train.heads.soft_rank import soft_rank

# Where Huber's loss turns linear; 95 % efficient for Gaussian errors (Huber 1981).
_HUBER_DELTA = 1.345
# Width of the soft step between two predictions, in standard deviations of the labels.
_RANK_TEMPERATURE = 0.2
_TINY = torch.finfo(torch.float32).tiny


def smooth_l1(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean Huber loss with its corner at one standard deviation (Girshick 2015), over the labelled rows."""
    return _mean(functional.smooth_l1_loss(predicted, target, reduction="none", beta=1.0), weight)


def huber(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean Huber loss with its corner at 1.345 standard deviations (Huber 1981), over the labelled rows."""
    return _mean(functional.huber_loss(predicted, target, reduction="none", delta=_HUBER_DELTA), weight)


def rank(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean pairwise hinge max(0, |ti - tj| - sign(ti - tj) (pi - pj)) over pairs with different labels.

    The margin is the difference of the labels, so that the loss is 0 for perfect predictions and agrees with
    the regression losses (Wen and Wang, "A strong baseline for image and video quality assessment", 2021).
    """
    by_target = weight.to(predicted.dtype).transpose(-1, -2)
    return pairwise_hinge(predicted.transpose(-1, -2), target.transpose(-1, -2), by_target)


def plcc(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - Pearson correlation over the labelled rows, in [0, 2]."""
    return one_minus_correlation(predicted, target, weight.to(predicted.dtype))


def srocc(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """1 - correlation of soft ranks of the predictions (`soft_rank`) with the ranks of the labels, in [0, 2].

    Ties of labels share their mean rank. Perfect predictions have a small loss: their soft ranks are not evenly spaced.
    """
    weight = weight.to(predicted.dtype)
    by_target = weight.transpose(-1, -2)
    soft = soft_rank(predicted.transpose(-1, -2), by_target, _RANK_TEMPERATURE)
    labels = target.transpose(-1, -2)
    # Twice the rank less a constant, which correlation does not see.
    hard = (by_target.unsqueeze(-2) @ (labels.unsqueeze(-2) - labels.unsqueeze(-1)).sign_()).squeeze(-2)
    count = _above_zero(by_target.sum(-1, keepdim=True))
    return one_minus_correlation((soft / count).transpose(-1, -2), (hard / count).transpose(-1, -2), weight)


def combined(
    predicted: Tensor,
    target: Tensor,
    weight: Tensor,
    losses: Mapping[str, Tensor | float],
    target_weights: Tensor,
    extra: Tensor | None = None,
) -> Tensor:
    """Weighted sum of losses, then weighted mean over the targets: (...).

    Args:
        predicted, target, weight: (..., N, K).
        losses: name in `heads.LOSSES` -> weight, one for all models or one per model (...); 0 is skipped.
        target_weights: (..., K).
        extra: a further loss (..., K).
    """
    total = extra
    for name, factor in losses.items():
        if isinstance(factor, Tensor) or factor:
            loss = LOSSES.get(name)(predicted, target, weight)
            loss = loss * (factor.unsqueeze(-1) if isinstance(factor, Tensor) else factor)
            total = loss if total is None else total + loss
    if total is None:
        raise ValueError("no loss has a weight")
    return (total * target_weights).sum(-1) / target_weights.sum(-1)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum(-2) / _above_zero(weight.to(values.dtype).sum(-2))


def _above_zero(total: Tensor) -> Tensor:
    """A divisor for sums that are 0 where this is."""
    return total.clamp(min=_TINY)

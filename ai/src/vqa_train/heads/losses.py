"""Masked losses on standardised scores, per target, and their weighted sum.

Each takes predictions, targets and a mask of shape (..., B, K) and gives (..., K): any leading dimensions are
independent models. Where a loss is undefined for a target (too few labelled rows, a constant) it is 0 without gradient.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from vqa_train.heads import LOSSES

# Below this variance (standardised units) a batch counts as constant: float32 cannot tell its slope from rounding.
_MIN_VARIANCE = 1e-10


def smooth_l1(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean Huber loss with its corner at one standard deviation (Girshick 2015), over the labelled rows."""
    loss = functional.smooth_l1_loss(predicted, target, reduction="none", beta=1.0)
    return (loss * mask).sum(-2) / mask.sum(-2).clamp(min=1)


def rank(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean pairwise hinge max(0, |ti - tj| - sign(ti - tj) (pi - pj)) over pairs with different labels.

    The margin is the difference of the labels, so that the loss is 0 for perfect predictions and agrees with
    the regression losses (Wen and Wang, "A strong baseline for image and video quality assessment", 2021).
    """
    gap = target.unsqueeze(-2) - target.unsqueeze(-3)
    # Each pair once: the one whose first row has the higher label.
    pairs = (gap > 0) & mask.unsqueeze(-2) & mask.unsqueeze(-3)
    hinge = (gap - (predicted.unsqueeze(-2) - predicted.unsqueeze(-3))).clamp(min=0)
    return (hinge * pairs).sum((-3, -2)) / pairs.sum((-3, -2)).clamp(min=1)


def plcc(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """1 - Pearson correlation over the labelled rows, in [0, 2]."""
    weight = mask.to(predicted.dtype)
    count = weight.sum(-2, keepdim=True).clamp(min=1)
    p = (predicted - (predicted * weight).sum(-2, keepdim=True) / count) * weight
    t = (target - (target * weight).sum(-2, keepdim=True) / count) * weight
    p_variance, t_variance = (p * p).sum(-2) / count.squeeze(-2), (t * t).sum(-2) / count.squeeze(-2)
    defined = (p_variance > _MIN_VARIANCE) & (t_variance > _MIN_VARIANCE)
    # The root of a placeholder where undefined: its gradient would be infinite, and infinity * 0 is NaN.
    scale = torch.where(defined, p_variance * t_variance, torch.ones_like(p_variance)).sqrt()
    correlation = (p * t).sum(-2) / count.squeeze(-2) / scale
    return torch.where(defined, 1 - correlation, torch.zeros_like(correlation))


def combined(
    predicted: Tensor, target: Tensor, mask: Tensor, weights: Mapping[str, float], target_weights: Tensor
) -> Tensor:
    """Weighted sum of losses and weighted mean over targets: (...) from (..., B, K).

    Args:
        predicted: standardised scores.
        target: standardised labels, any finite number where `mask` is False.
        mask: bool, True where there is a label.
        weights: name in LOSSES -> weight; those of weight 0 are not computed.
        target_weights: (K,), not all 0.
    """
    per_target = torch.zeros(predicted.shape[:-2] + predicted.shape[-1:], device=predicted.device)
    for name, weight in weights.items():
        if weight:
            per_target = per_target + weight * LOSSES.get(name)(predicted, target, mask)
    return (per_target * target_weights).sum(-1) / target_weights.sum()

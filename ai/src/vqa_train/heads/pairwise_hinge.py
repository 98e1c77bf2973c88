"""The pairwise hinge of a ranking loss, its gradient written out: fewer walks over all pairs than autograd takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _PairwiseHinge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        # Row i, column j. (gap - difference) x sign(gap) is the same for (i, j) and (j, i), so each pair counts twice.
        gap = target.unsqueeze(-1) - target.unsqueeze(-2)
        side = torch.sign(gap)
        short = gap.sub_(predicted.unsqueeze(-1)).add_(predicted.unsqueeze(-2)).mul_(side).clamp_(min=0)
        row = weight.unsqueeze(-2)
        total = ((row @ short).squeeze(-2) * weight).sum(-1)
        pairs = ((row @ side.abs()).squeeze(-2) * weight).sum(-1).clamp_(min=torch.finfo(torch.float32).tiny)
        ctx.save_for_backward(short.sign_().mul_(side), weight, pairs)
        return total / pairs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        pull, weight, pairs = ctx.saved_tensors
        # Row i of the transpose: pull is antisymmetric, so the row vector gives minus the sum over j.
        towards = (weight.unsqueeze(-2) @ pull).squeeze(-2) * weight
        return towards * (2 * gradient / pairs).unsqueeze(-1), None, None


def pairwise_hinge(predicted: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of max(0, |ti - tj| - sign(ti - tj) (pi - pj)) over the pairs with different labels; 0 where there are none.

    Args:
        predicted, target, weight: (..., N). The weight of a pair is the product of its rows'. Only `predicted` may need
            a gradient.

    Returns:
        (...).
    """
    found: Tensor = _PairwiseHinge.apply(predicted, target, weight)  # type: ignore[no-untyped-call]
    return found

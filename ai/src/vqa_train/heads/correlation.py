"""One minus a weighted correlation, with its gradient written out: a third of the passes that autograd would take."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Below this variance (standardised units) a batch counts as constant: float32 cannot tell its slope from rounding.
_MIN_VARIANCE = 1e-10


class _OneMinusCorrelation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
        da = a - (a * share).sum(-2, keepdim=True)
        db = b - (b * share).sum(-2, keepdim=True)
        weighted = da * share
        a_variance = (weighted * da).sum(-2, keepdim=True)
        b_variance = (db * db * share).sum(-2, keepdim=True)
        defined = (a_variance > _MIN_VARIANCE) & (b_variance > _MIN_VARIANCE)
        scale = (a_variance * b_variance).rsqrt().masked_fill(~defined, 0)
        covariance = (weighted * db).sum(-2, keepdim=True)
        ctx.save_for_backward(weighted, db, share, scale, (covariance / a_variance).masked_fill(~defined, 0))
        return (1 - covariance * scale).masked_fill(~defined, 0).squeeze(-2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        weighted, db, share, scale, slope = ctx.saved_tensors
        # What a's mean adds is 0, because share * db and share * da sum to 0.
        towards = torch.addcmul(weighted * slope, db, share, value=-1)
        return towards.mul_(gradient.unsqueeze(-2) * scale), None, None


def one_minus_correlation(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """1 - Pearson correlation over the rows of positive weight, in [0, 2]; 0 without gradient where a side is constant.

    Args:
        a, b: (..., N, K); only `a` may need a gradient.
        weight: (..., N, K), not negative.

    Returns:
        (..., K).
    """
    share = weight / weight.sum(-2, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    found: Tensor = _OneMinusCorrelation.apply(a, b, share)  # type: ignore[no-untyped-call]
    return found

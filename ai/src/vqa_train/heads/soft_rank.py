"""Ranks of predictions that a gradient can pass, with the gradient written out.

Autograd would keep and walk several matrices of all pairs; by hand it is one such matrix and one batched product each
way, because the step's slope is the same for (i, j) and (j, i).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _SoftRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, temperature: float) -> Tensor:
        scaled = values / temperature
        # Row j, column i; a row vector times it is four times as fast as it times a column vector.
        steps = torch.sigmoid_(scaled.unsqueeze(-2) - scaled.unsqueeze(-1))
        ctx.save_for_backward(steps, weight)
        ctx.temperature = temperature
        return (weight.unsqueeze(-2) @ steps).squeeze(-2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        steps, weight = ctx.saved_tensors
        slope = torch.addcmul(steps, steps, steps, value=-1)
        both = torch.stack([weight, gradient], dim=-2) @ slope
        found = gradient * both[..., 0, :] - weight * both[..., 1, :]
        return found / ctx.temperature, None, None


def soft_rank(values: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Sum over all rows j of weight_j / (1 + exp((value_j - value_i) / temperature)), for every row i.

    Qin et al. 2010, "A general approximation framework for direct optimization of information retrieval measures".

    Args:
        values: (..., N).
        weight: (..., N), without gradient.
        temperature: width of the step.

    Returns:
        (..., N), in [0, sum of the weights].
    """
    found: Tensor = _SoftRank.apply(values, weight, temperature)  # type: ignore[no-untyped-call]
    return found

"""Dropout that draws from a generator of its own, so that training leaves torch's global state alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zeroes a share `p` of the activations in training and scales the rest by 1 / (1 - p); identity in eval mode.

    Attributes:
        generator: set by the trainer before training, on the device of the activations.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, kept.

        Raises:
            RuntimeError: in training mode without a generator.
        """
        if not self.training or self.p == 0:
            return x
        if self.generator is None:
            raise RuntimeError("dropout has no generator: train heads with heads.trainer.fit_head")
        keep = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * keep / (1 - self.p)

    def extra_repr(self) -> str:
        """Shown in the module's repr."""
        return f"p={self.p}"

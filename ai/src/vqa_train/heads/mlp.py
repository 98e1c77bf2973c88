"""The multilayer perceptron head: all inputs side by side, a few hidden layers, one output per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.layers import Perceptron
from vqa_train.heads.noise import Noise


class MlpHead(Head):
    """Linear, activation and dropout per hidden layer, then a linear layer; see `Head` for arguments and scalings."""

    kind: ClassVar[str] = "mlp"

    def __init__(
        self,
        inputs: Mapping[str, int | Sequence[int]],
        targets: Sequence[str],
        config: HeadConfig,
        *,
        models: int = 1,
        device: str = "cpu",
    ) -> None:
        super().__init__(inputs, targets, config, models=models, device=device)
        self.layers = Perceptron((self.columns, *config.hidden, self.width), config.activation, models, device)

    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """(M, N, C) standardised to (M, N, W)."""
        return self.layers.run(x, noise, dropout)

    def scores_of_one(self, x: Tensor) -> Tensor:
        """As `Head.scores_of_one`."""
        if self.config.output != "point":
            return super().scores_of_one(x)
        return self.layers.run_one(x, self.target_std, self.target_mean)

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """As `Perceptron.initialise`."""
        self.layers.initialise(generators)

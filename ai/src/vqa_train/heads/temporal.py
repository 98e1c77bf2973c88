"""The temporal head: attention decides how much each stored time step of a video counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.layers import ACTIVATIONS, Perceptron, draw_uniform, drop, zeros
from vqa_train.heads.noise import Noise

# Stream of `Noise`; the last layers take those from 0, one per hidden layer, of which there are at most 16.
_POOLED_STREAM = 16


class TemporalOptions(StrictModel):
    """`width`: of each time step after its projection."""

    width: int = Field(default=64, ge=1, le=65536)


class TemporalHead(Head):
    """Attention pooling over the time steps of each input (T, D), then `MlpHead`'s layers; vectors pass beside.

    A step becomes h_t = activation(linear(x_t)); a learned query q gives its share softmax_t(q . h_t / sqrt(width)),
    and the shares weigh the mean of h_t (Bahdanau et al. 2015; Ilse et al. 2018). With a zero query that is the plain
    mean over time. The order of the steps does not matter. A missing step counts as the mean of all, as every missing
    value does. See `Head` for arguments and scalings.

    Raises:
        ConfigError: no input has time steps.
    """

    kind: ClassVar[str] = "temporal"
    takes_time: ClassVar[bool] = True
    options_type: ClassVar[type[StrictModel]] = TemporalOptions

    options: TemporalOptions

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
        timed = [shape for shape in self.inputs.values() if len(shape) == 2]
        if not timed:
            raise ConfigError(
                f"a temporal head needs an input of shape (time, columns), got {self.inputs}",
                hint="choose an output that keeps time, or the kind `mlp`",
            )
        width = self.options.width
        self.projections = nn.ModuleList(
            Perceptron((shape[1], width), config.activation, models, device) for shape in timed
        )
        self.queries = nn.ParameterList(zeros(models, width, 1, device=device) for _ in timed)
        pooled = sum(width if len(shape) == 2 else prod(shape) for shape in self.inputs.values())
        self.layers = Perceptron((pooled, *config.hidden, self.width), config.activation, models, device)

    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """(M, N, C) standardised to (M, N, W)."""
        parts, pooled = [], []
        column = number = 0
        for shape in self.inputs.values():
            part = x[:, :, column : column + prod(shape)]
            column += prod(shape)
            if len(shape) == 2:
                pooled.append(self._pool(number, part, shape))
                number += 1
            else:
                parts.append(part)
        steps = torch.cat(pooled, dim=2)
        steps = drop(steps, noise, _POOLED_STREAM, dropout)
        return self.layers.run(torch.cat([steps, *parts], dim=2), noise, dropout)

    def _pool(self, number: int, x: Tensor, shape: Sequence[int]) -> Tensor:
        """(M, N, T * D) to (M, N, width)."""
        rows, (time, dim) = x.shape[1], shape
        width, query = self.options.width, self.queries[number]
        h = cast(Perceptron, self.projections[number]).run(x.reshape(self.models, rows * time, dim), None, 0.0)
        h = ACTIVATIONS[self.config.activation](h)
        share = torch.bmm(h, query) / width**0.5
        share = torch.softmax(share.view(self.models, rows, time, 1), dim=2)
        return (h.view(self.models, rows, time, width) * share).sum(2)

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """As `Perceptron.initialise`; queries as its weights."""
        for projection in self.projections:
            cast(Perceptron, projection).initialise(generators)
        for query in self.queries:
            draw_uniform(query, self.options.width, generators)
        self.layers.initialise(generators)

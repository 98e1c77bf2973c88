"""Layers of M models at once: every parameter begins with a dimension of M, every product is one batched product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from vqa_train.heads.noise import Noise

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}


def zeros(*shape: int, device: str = "cpu") -> nn.Parameter:
    """A parameter of zeros."""
    return nn.Parameter(torch.zeros(shape, device=device))


@torch.no_grad()
def draw_uniform(weight: Tensor, fan_in: int, generators: Sequence[torch.Generator]) -> None:
    """Fill (M, ...) uniformly in plus or minus 1 / sqrt(fan_in), as torch's own linear layers do, one generator each.

    He's wider weights (2.4 times) were measured too: they overfit a thousand rows sooner.
    """
    for model, generator in zip(weight, generators, strict=True):
        model.copy_((torch.rand(model.shape, generator=generator) * 2 - 1) / fan_in**0.5)


def drop(x: Tensor, noise: Noise | None, stream: int, dropout: Tensor | float) -> Tensor:
    """Dropout of (M, N, U), only with `noise`; `stream` is that of the mask."""
    if noise is None or (not isinstance(dropout, Tensor) and dropout == 0):
        return x
    return x * noise.keep(stream, x.shape, dropout)


class Perceptron(nn.Module):
    """Linear layers with an activation and dropout between them.

    Args:
        widths: input, hidden..., output.
        activation: after each hidden layer.
        models: M.
        stream: first stream of `Noise` that its dropouts draw from; they take one each.
    """

    def __init__(
        self, widths: Sequence[int], activation: str, models: int = 1, device: str = "cpu", *, stream: int = 0
    ) -> None:
        super().__init__()
        self.activation, self.stream = activation, stream
        self.weights = nn.ParameterList(zeros(models, a, b, device=device) for a, b in pairwise(widths))
        self.biases = nn.ParameterList(zeros(models, b, device=device) for b in widths[1:])

    def run(self, x: Tensor, noise: Noise | None, dropout: Tensor | float) -> Tensor:
        """(M, N, widths[0]) to (M, N, widths[-1]); dropout only with `noise`."""
        activation = ACTIVATIONS[self.activation]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if number:
                x = drop(activation(x), noise, self.stream + number - 1, dropout)
            x = torch.baddbmm(bias.unsqueeze(1), x, weight)
        return x

    def run_one(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """`run` of one model for inference, times `scale` plus `shift`: (N, widths[0]) to (N, widths[-1]).

        The two, (1, widths[-1]), go into the last layer's weights: a runtime does that once, when it loads the graph.
        """
        activation = ACTIVATIONS[self.activation]
        last = len(self.weights) - 1
        for number, (weights, biases) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = weights.squeeze(0), biases
            if number == last:
                weight, bias = weight * scale, bias * scale + shift
            x = torch.addmm(bias, activation(x) if number else x, weight)
        return x

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """Weights as `draw_uniform`, biases 0."""
        for weight, bias in zip(self.weights, self.biases, strict=True):
            draw_uniform(weight, weight.shape[1], generators)
            bias.zero_()

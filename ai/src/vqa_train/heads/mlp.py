"""The multilayer perceptron head: all inputs side by side, a few hidden layers, one output per target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn

from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.dropout import Dropout

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}


class MlpHead(Head):
    """Linear, activation and dropout per hidden layer, then a linear layer; see `Head` for arguments and scalings."""

    kind: ClassVar[str] = "mlp"

    def __init__(
        self, inputs: Mapping[str, int], targets: Sequence[str], config: HeadConfig, *, device: str = "cpu"
    ) -> None:
        super().__init__(inputs, targets, config, device=device)
        widths = (sum(inputs.values()), *config.hidden, len(targets))
        layers: list[nn.Module] = []
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            if i:
                layers += [_ACTIVATIONS[config.activation](), Dropout(config.dropout)]
            layers.append(_zero_linear(fan_in, fan_out, device))
        self.layers = nn.Sequential(*layers)

    def network(self, x: Tensor) -> Tensor:
        """(N, D) to (N, K), both standardised."""
        return self.layers(x)  # type: ignore[no-any-return]  # nn.Module.__call__ is untyped

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Weights uniform in plus or minus 1 / sqrt(fan-in), as torch's own linear layers have; biases 0.

        He's wider weights (2.4 times) were measured too: they overfit a thousand rows sooner.
        """
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                drawn = torch.rand(layer.weight.shape, generator=generator) * 2 - 1
                layer.weight.copy_(drawn / layer.in_features**0.5)
                layer.bias.zero_()


@torch.no_grad()
def _zero_linear(fan_in: int, fan_out: int, device: str) -> nn.Linear:
    # Built without memory first: on a real device nn.Linear would draw from torch's global generator.
    layer = nn.Linear(fan_in, fan_out, device="meta").to_empty(device=device)
    for parameter in layer.parameters():
        parameter.zero_()
    return layer

"""The fusion head: what a prompt says decides, by a gate, which parts of the video's features count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from vqa_train.core.config import StrictModel
from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean
from vqa_train.heads.base import Head
from vqa_train.heads.config import HeadConfig
from vqa_train.heads.layers import ACTIVATIONS, Perceptron, drop
from vqa_train.heads.noise import Noise

# Streams of `Noise`; the last layers take those from 0, one per hidden layer, of which there are at most 16.
_GATE_STREAM, _FUSED_STREAM = 16, 18
_TEXT_WORDS = ("prompt", "text")


class FusionOptions(StrictModel):
    """Settings of `fusion`.

    Attributes:
        text: the input (or inputs) that gates; null takes those with "prompt" or "text" in their names.
        video: the inputs that are gated; null takes all others.
        width: gated features.
    """

    text: str | tuple[str, ...] | None = None
    video: str | tuple[str, ...] | None = None
    width: int = Field(default=64, ge=1, le=65536)


class FusionHead(Head):
    """g = sigmoid(perceptron(text)), h = activation(linear(video)), then `MlpHead`'s layers on g * h.

    The gate (a gated linear unit across modalities; Dauphin et al. 2017, Arevalo et al. 2017) has one hidden layer,
    as wide as what it gates. The baseline without a gate is `mlp`, all inputs side by side. See `Head` for arguments
    and scalings.

    Raises:
        ConfigError: no text or no video among the inputs, an unknown name, or an input in both or in neither.
    """

    kind: ClassVar[str] = "fusion"
    options_type: ClassVar[type[StrictModel]] = FusionOptions

    options: FusionOptions

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
        text, video = _parts(list(self.inputs), self.options)
        width, activation = self.options.width, config.activation
        lengths = {name: prod(shape) for name, shape in self.inputs.items()}
        ends = dict(zip(lengths, accumulate(lengths.values()), strict=True))
        self._text, self._video = (
            [(ends[name] - lengths[name], ends[name]) for name in names] for names in (text, video)
        )
        words, pixels = (sum(lengths[name] for name in names) for names in (text, video))
        self.gate = Perceptron((words, width, width), activation, models, device, stream=_GATE_STREAM)
        self.projection = Perceptron((pixels, width), activation, models, device)
        self.layers = Perceptron((width, *config.hidden, self.width), activation, models, device)

    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """(M, N, C) standardised to (M, N, W)."""
        text, video = (
            torch.cat([x[:, :, start:stop] for start, stop in part], dim=2) for part in (self._text, self._video)
        )
        gate = torch.sigmoid(self.gate.run(text, noise, dropout))
        fused = gate * ACTIVATIONS[self.config.activation](self.projection.run(video, noise, dropout))
        return self.layers.run(drop(fused, noise, _FUSED_STREAM, dropout), noise, dropout)

    @torch.no_grad()
    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """As `Perceptron.initialise`."""
        for part in (self.gate, self.projection, self.layers):
            part.initialise(generators)


def _parts(names: list[str], options: FusionOptions) -> tuple[list[str], list[str]]:
    """Names of the text inputs and of the video inputs, each in the order of the inputs."""
    given = {part: _names(getattr(options, part)) for part in ("text", "video")}
    for part, chosen in given.items():
        for name in chosen or ():
            if name not in names:
                raise ConfigError(
                    f"head.options.{part} names {name!r}, which is no input of the head", hint=did_you_mean(name, names)
                )
    text = given["text"]
    if text is None:
        taken = given["video"] or []
        text = [name for name in names if name not in taken and any(word in name.lower() for word in _TEXT_WORDS)]
    video = [name for name in names if name not in text] if given["video"] is None else given["video"]
    odd = [name for name in names if (name in text) == (name in video)]
    if not text or not video or odd:
        problem = f"{odd} in both or in neither" if odd and text and video else f"text {text} and video {video}"
        raise ConfigError(
            f"a fusion head needs text inputs and video inputs, got {problem} of {names}",
            hint="name them in head.options: {text: [...], video: [...]}",
        )
    return [name for name in names if name in text], [name for name in names if name in video]


def _names(value: str | tuple[str, ...] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else None if value is None else list(value)

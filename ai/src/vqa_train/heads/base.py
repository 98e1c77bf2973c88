"""What every head is: named features in, opinion scores out, both scalings inside; M heads train as one module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.core.config import StrictModel, parse
from vqa_train.core.errors import ConfigError
from vqa_train.heads.config import HeadConfig, TrainConfig
from vqa_train.heads.noise import Noise
from vqa_train.heads.outputs import Output, output_of

Shape = tuple[int, ...]

_FLOAT32_MAX = torch.finfo(torch.float32).max
# Expected scores: the training labels' range and this share of it on either side.
_RANGE_MARGIN = 0.1


@dataclass(frozen=True, kw_only=True)
class ScalingStatistics:
    """What the graph standardises with; of training rows only.

    Attributes:
        input_mean, input_std: float32 (C,) over the finite values of each column of all inputs side by side.
        input_varies: bool (C,), False for a constant column: its std is 1 and it is silenced.
        target_mean, target_std, target_min, target_max: float32 (K,) over the labelled rows.
    """

    input_mean: NDArray[np.float32]
    input_std: NDArray[np.float32]
    input_varies: NDArray[np.bool_]
    target_mean: NDArray[np.float32]
    target_std: NDArray[np.float32]
    target_min: NDArray[np.float32]
    target_max: NDArray[np.float32]


def standardise(x: Tensor, mean: Tensor, std: Tensor, varies: Tensor, clip: float) -> Tensor:
    """Zero mean, unit deviation, clipped; what is NaN, infinite or constant becomes 0.

    Args:
        x: (N, C), shared by all heads, or (M, N, C).
        mean, std, varies: (M, C).
        clip: standard deviations.

    Returns:
        float32 (M, N, C).
    """
    return _standardise(x, mean.unsqueeze(1), std.unsqueeze(1), varies.unsqueeze(1), clip)


def _standardise(x: Tensor, mean: Tensor, std: Tensor, varies: Tensor, clip: float) -> Tensor:
    # Comparison is False for NaN, and for all of a constant column; the mean becomes 0 below.
    largest = varies * _FLOAT32_MAX - (1 - varies)
    return ((torch.where(x.abs() <= largest, x, mean) - mean) / std).clamp(-clip, clip)


class Head(nn.Module, ABC):
    """Base of all heads: M networks of one architecture whose parameters and buffers all begin with a dimension of M.

    A new head has zero weights. With one model it is a module for inference and export.

    Args:
        inputs: name -> shape of the feature of one row, or its length where it is a vector; in the order of
            `forward`'s arguments.
        targets: names of the opinion scores, in the order of the output's columns.
        config: the network.
        models: M.
        device: where the parameters live; "meta" gives shapes without memory.

    Raises:
        ConfigError: no inputs or targets, an input without columns, a shape that the head does not take, a target
            named twice, an unknown option.
    """

    kind: ClassVar[str]
    closed_form: ClassVar[bool] = False
    """Whether `solve` gives the weights, instead of training by gradient."""
    takes_time: ClassVar[bool] = False
    """Whether inputs of shape (T, D) are allowed."""
    options_type: ClassVar[type[StrictModel]] = StrictModel
    """Schema of the recipe's `head.options`; none by default."""

    options: StrictModel

    input_mean: Tensor
    input_std: Tensor
    input_varies: Tensor
    target_mean: Tensor
    target_std: Tensor
    target_min: Tensor
    target_max: Tensor

    def __init__(
        self,
        inputs: Mapping[str, int | Sequence[int]],
        targets: Sequence[str],
        config: HeadConfig,
        *,
        models: int = 1,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        shapes = {name: (shape,) if isinstance(shape, int) else tuple(shape) for name, shape in inputs.items()}
        empty = [name for name, shape in shapes.items() if not shape or min(shape) < 1]
        if not shapes or not targets or empty or len(set(targets)) < len(targets):
            raise ConfigError(
                f"a head needs inputs with columns and distinct targets, got inputs {dict(inputs)} "
                f"and targets {list(targets)}"
            )
        for name, shape in shapes.items():
            if len(shape) > (2 if self.takes_time else 1):
                raise ConfigError(
                    f"input {name!r} has shape {list(shape)}, a head of kind {self.kind!r} takes vectors",
                    hint="choose an output with one dimension, such as `pooled`, or the kind `temporal`",
                )
        self.inputs: dict[str, Shape] = shapes
        self.targets = tuple(targets)
        self.config = config
        self.options = parse(self.options_type, config.options, f"head.options of kind {self.kind!r}")
        self.models = models
        self.output: Output = output_of(config)
        columns, scores = sum(prod(shape) for shape in shapes.values()), len(targets)
        for name, size, value in (
            ("input_mean", columns, 0.0),
            ("input_std", columns, 1.0),
            ("input_varies", columns, 1.0),
            ("target_mean", scores, 0.0),
            ("target_std", scores, 1.0),
            ("target_min", scores, 0.0),
            ("target_max", scores, 0.0),
        ):
            self.register_buffer(name, torch.full((models, size), value, device=device))

    @property
    def columns(self) -> int:
        """Columns of all inputs side by side, C."""
        return sum(prod(shape) for shape in self.inputs.values())

    @property
    def width(self) -> int:
        """Numbers per row that `network` gives, W."""
        return self.output.width(len(self.targets))

    @abstractmethod
    def network(self, x: Tensor, noise: Noise | None = None, dropout: Tensor | float = 0.0) -> Tensor:
        """Standardised inputs (M, N, C), all side by side, to raw outputs (M, N, W); see `heads.outputs`.

        Args:
            noise: where dropout draws from in training; None for inference.
            dropout: probability, one for all heads or per head (M,).
        """

    def scores_of_one(self, x: Tensor) -> Tensor:
        """Scores of a head of one model for standardised inputs: (N, C) to (N, K) on the scale of the labels.

        A head whose layers are plain products overrides it: without the dimension of models, and with the scaling of
        the scores inside the last layer, a runtime has fewer operations to start.
        """
        return self.scores(self.network(x.unsqueeze(0))).squeeze(0)

    def initialise(self, generators: Sequence[torch.Generator]) -> None:
        """Draw each model's initial weights from its generator, and nothing from torch's global one."""

    def solve(self, x: Tensor, y: Tensor, weight: Tensor, config: TrainConfig, seed: int) -> dict[str, float]:
        """For a closed form of one model: set the weights; what was chosen, for the record.

        Args:
            x: float32 (n, C) standardised training rows.
            y: float32 (n, K) standardised labels, 0 where missing.
            weight: float32 (n, K), 0 where a label is missing.
            config: the recipe.
            seed: of anything that is drawn.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form")

    def sized(self, tensors: Mapping[str, Tensor]) -> Self:
        """A head like this one with space for other tensors (a closed form keeps its training rows); itself by default.

        Args:
            tensors: a state dictionary about to be loaded.
        """
        return self

    def raw(self, *inputs: Tensor) -> Tensor:
        """Raw outputs (M, N, W) of features (N, *shape), one per name in `self.inputs`, in that order.

        Raises:
            ValueError: number or shape of the inputs differ from `self.inputs`.
        """
        x = self._side_by_side(inputs)
        return self.network(standardise(x, self.input_mean, self.input_std, self.input_varies, self.config.clip_sd))

    def _side_by_side(self, inputs: Sequence[Tensor]) -> Tensor:
        """Checked inputs as (N, C)."""
        if not torch.onnx.is_in_onnx_export():
            shapes = [tuple(x.shape) for x in inputs]
            if [s[1:] for s in shapes] != list(self.inputs.values()):
                raise ValueError(f"expected inputs {self.inputs} after the rows, got shapes {shapes}")
        # Operations that change nothing would stay in an exported graph, and each costs as much as a small product.
        flat = [x if x.ndim == 2 else x.flatten(1) for x in inputs]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)

    def scores(self, raw: Tensor) -> Tensor:
        """Raw outputs (M, N, W) to scores (M, N, K) on the scale of the labels."""
        standardised = self.output.scores(raw, *self.label_range())
        return standardised * self.target_std.unsqueeze(1) + self.target_mean.unsqueeze(1)

    def spread(self, raw: Tensor) -> Tensor | None:
        """Standard deviation (M, N, K) that the output itself states, on the scale of the labels; None for `point`."""
        own = self.output.spread(raw, *self.label_range())
        return None if own is None else own * self.target_std.unsqueeze(1)

    def label_range(self) -> tuple[Tensor, Tensor]:
        """Lowest and highest training label in standardised units, (M, 1, K) each."""
        low, high = ((edge - self.target_mean) / self.target_std for edge in (self.target_min, self.target_max))
        return low.unsqueeze(1), high.unsqueeze(1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Scores of one model on the scale of the labels, float32 (N, K), not clamped to the label range.

        Args:
            inputs: float32 (N, *shape), one per name in `self.inputs`, in that order.

        Raises:
            ValueError: number or shape of the inputs differ from `self.inputs`, or there are several models.
        """
        if self.models != 1:
            raise ValueError(f"{self.models} models in one head: take one with `select`, or average in an Ensemble")
        x = self._side_by_side(inputs)
        return self.scores_of_one(
            _standardise(x, self.input_mean, self.input_std, self.input_varies, self.config.clip_sd)
        )

    @torch.no_grad()
    def set_statistics(self, statistics: Sequence[ScalingStatistics]) -> None:
        """Fill the buffers that scale inputs and scores, one entry per model."""
        for name, buffer in self.named_buffers():
            if name in ScalingStatistics.__dataclass_fields__:
                buffer.copy_(torch.from_numpy(np.stack([getattr(entry, name) for entry in statistics])))

    def like(self, models: int, device: str = "cpu") -> Self:
        """A new head of the same architecture with zero weights."""
        return type(self)(self.inputs, self.targets, self.config, models=models, device=device)

    @torch.no_grad()
    def select(self, models: Sequence[int]) -> Self:
        """A head of some of the models, in this order, on the CPU; tensors are copied."""
        state = {name: value[list(models)].cpu().clone() for name, value in self.state_dict().items()}
        head = self.like(len(models), device="meta").sized(state)
        head.load_state_dict(state, assign=True)
        return head.requires_grad_(False)

    def expected_output_range(self) -> dict[str, tuple[float, float]]:
        """Target -> lowest and highest score to expect: the training labels' range and a tenth of it on either side.

        A score outside is no error (nothing clamps it), but the video is unlike those trained on.
        """
        low, high = self.target_min.double().amin(0), self.target_max.double().amax(0)
        margin = _RANGE_MARGIN * (high - low)
        pairs = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
        return dict(zip(self.targets, pairs, strict=True))

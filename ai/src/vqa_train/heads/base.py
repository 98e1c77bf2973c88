"""What every head is: named feature vectors in, opinion scores out, both scalings inside the graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.core.errors import ConfigError
from vqa_train.heads.config import HeadConfig

_FLOAT32_MAX = torch.finfo(torch.float32).max
# Expected scores: the training labels' range and this share of it on either side.
_RANGE_MARGIN = 0.1


@dataclass(frozen=True, kw_only=True)
class ScalingStatistics:
    """What the graph standardises with; of training rows only.

    Attributes:
        input_mean, input_std: float32 (D,) over the finite values of each column of all inputs side by side.
        input_varies: bool (D,), False for a constant column: its std is 1 and it is silenced.
        target_mean, target_std, target_min, target_max: float32 (K,) over the labelled rows.
    """

    input_mean: NDArray[np.float32]
    input_std: NDArray[np.float32]
    input_varies: NDArray[np.bool_]
    target_mean: NDArray[np.float32]
    target_std: NDArray[np.float32]
    target_min: NDArray[np.float32]
    target_max: NDArray[np.float32]


class Head(nn.Module, ABC):
    """Base of all heads. A new head starts with zero weights: it predicts the mean of each target.

    Args:
        inputs: name -> length of the feature vector, in the order of `forward`'s arguments.
        targets: names of the opinion scores, in the order of the output's columns.
        config: the network.
        device: where the parameters live; "meta" gives shapes without memory.

    Raises:
        ConfigError: no inputs or targets, an input without columns, or a target named twice.
    """

    kind: ClassVar[str]
    input_mean: Tensor
    input_std: Tensor
    input_varies: Tensor
    target_mean: Tensor
    target_std: Tensor
    target_min: Tensor
    target_max: Tensor

    def __init__(
        self, inputs: Mapping[str, int], targets: Sequence[str], config: HeadConfig, *, device: str = "cpu"
    ) -> None:
        super().__init__()
        empty = [name for name, dim in inputs.items() if dim < 1]
        if not inputs or not targets or empty or len(set(targets)) < len(targets):
            raise ConfigError(
                f"a head needs inputs with columns and distinct targets, got inputs {dict(inputs)} "
                f"and targets {list(targets)}"
            )
        self.inputs = dict(inputs)
        self.targets = tuple(targets)
        self.config = config
        columns, scores = sum(inputs.values()), len(targets)
        for name, size, value in (
            ("input_mean", columns, 0.0),
            ("input_std", columns, 1.0),
            ("input_varies", columns, 1.0),
            ("target_mean", scores, 0.0),
            ("target_std", scores, 1.0),
            ("target_min", scores, 0.0),
            ("target_max", scores, 0.0),
        ):
            self.register_buffer(name, torch.full((size,), value, device=device))

    @abstractmethod
    def network(self, x: Tensor) -> Tensor:
        """Standardised inputs (N, D), all side by side, to standardised scores (N, K)."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw initial weights from `generator`, and nothing from torch's global one."""

    def standardise(self, *inputs: Tensor) -> Tensor:
        """Inputs (N, D_i) in order to (N, D): zero mean, unit deviation, clipped; NaN, infinite and constant give 0."""
        x = torch.cat(inputs, dim=1)
        # Comparison is False for NaN too; the mean becomes 0 below.
        x = torch.where(x.abs() <= _FLOAT32_MAX, x, self.input_mean)
        z = (x - self.input_mean) / self.input_std
        # Clipped before silenced: a huge value in a constant column may have overflowed, and infinity * 0 is NaN.
        return z.clamp(-self.config.clip_sd, self.config.clip_sd) * self.input_varies

    def forward(self, *inputs: Tensor) -> Tensor:
        """Scores on the scale of the labels, float32 (N, K), not clamped to the label range.

        Args:
            inputs: float32 (N, D_i), one per name in `self.inputs`, in that order.

        Raises:
            ValueError: number or length of the inputs differ from `self.inputs`.
        """
        if not torch.onnx.is_in_onnx_export():
            shapes = [tuple(x.shape) for x in inputs]
            if [s[1:] for s in shapes] != [(dim,) for dim in self.inputs.values()]:
                raise ValueError(f"expected inputs {self.inputs} (N, D), got shapes {shapes}")
        return self.network(self.standardise(*inputs)) * self.target_std + self.target_mean

    @torch.no_grad()
    def set_statistics(self, statistics: ScalingStatistics) -> None:
        """Fill the buffers that scale inputs and scores."""
        for name, buffer in self.named_buffers():
            buffer.copy_(torch.as_tensor(getattr(statistics, name)))

    def expected_output_range(self) -> dict[str, tuple[float, float]]:
        """Target -> lowest and highest score to expect: the training labels' range and a tenth of it on either side.

        A score outside is no error (nothing clamps it), but the video is unlike those trained on.
        """
        low, high = self.target_min.double(), self.target_max.double()
        margin = _RANGE_MARGIN * (high - low)
        pairs = zip((low - margin).tolist(), (high + margin).tolist(), strict=True)
        return dict(zip(self.targets, pairs, strict=True))

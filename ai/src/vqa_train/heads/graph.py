"""What the ONNX file of an ensemble computes: scores and, where they are known, their spread and interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vqa_train.core.errors import ConfigError
from vqa_train.heads.ensemble import Ensemble
from vqa_train.registry.sidecar import HIGH, LOW, SCORES, SPREAD


class ScoringGraph(nn.Module):
    """An ensemble with one named output for everything that is known of a row.

    Args:
        ensemble: in eval mode, on the CPU.
        half_widths: target -> half width of its interval; targets that are not named, or whose half width is
            infinite, have no interval: their ends are infinite. None, or no finite one, for no intervals at all.
        normalised: half widths are multiples of the spread.

    Attributes:
        output_names: in the order of what `forward` gives: `scores`; `spread` where the ensemble states one; `low` and
            `high` where there are intervals.

    Raises:
        ConfigError: a half width of an unknown target, negative or NaN, or normalised ones without a spread.
    """

    half_width: Tensor
    beyond: Tensor

    def __init__(
        self, ensemble: Ensemble, half_widths: Mapping[str, float] | None = None, *, normalised: bool = False
    ) -> None:
        super().__init__()
        given = dict(half_widths or {})
        wrong = [t for t, half in given.items() if t not in ensemble.targets or not half >= 0]
        if wrong:
            raise ConfigError(f"half width {given[wrong[0]]} of target {wrong[0]!r}: targets are {ensemble.targets}")
        halves = [given.get(target, math.inf) for target in ensemble.targets]
        self.bounded = any(map(math.isfinite, halves))
        if normalised and self.bounded and not ensemble.states_spread:
            raise ConfigError("half widths are in units of the spread, and the model states none")
        self.ensemble, self.normalised = ensemble, normalised
        # Infinity is added, not multiplied: infinity times a spread of 0 would be NaN.
        finite = [half if math.isfinite(half) else 0.0 for half in halves]
        self.register_buffer("half_width", torch.tensor(finite))
        self.register_buffer("beyond", torch.tensor([0.0 if math.isfinite(half) else math.inf for half in halves]))
        spread = (SPREAD,) if ensemble.states_spread else ()
        self.output_names = (SCORES, *spread, *((LOW, HIGH) if self.bounded else ()))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One float32 (N, K) per name in `output_names`, on the scale of the labels.

        Args:
            inputs: float32 (N, *shape), one per name in `ensemble.inputs`, in that order; NaN and infinity count as
                the column's mean.
        """
        scores, spread = self.ensemble(*inputs)
        results = [scores, spread] if self.ensemble.states_spread else [scores]
        if self.bounded:
            half = self.half_width * spread if self.normalised else self.half_width
            half = half + self.beyond
            results += [scores - half, scores + half]
        return tuple(results)

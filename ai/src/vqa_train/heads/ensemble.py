"""Several trained heads as one: the weighted mean of their scores, and how far they are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import Head


class Ensemble(nn.Module):
    """Heads with the same inputs and targets; each may hold several models, which share its weight.

    Args:
        members: at least one.
        weights: of the members, above 0 and finite; equal where None.

    Attributes:
        inputs: name -> shape, in the order of `forward`'s arguments.
        targets: names of the columns.

    Raises:
        ConfigError: no members, weights that are not positive, or members that differ in inputs (their order too) or
            targets.
    """

    weight: Tensor

    def __init__(self, members: Sequence[Head], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        given = [1.0] * len(members) if weights is None else list(weights)
        if not members or len(given) != len(members) or not all(0 < weight < math.inf for weight in given):
            raise ConfigError(f"an ensemble needs members with weights above 0, got {len(members)} with {given}")
        first = members[0]
        for member in members:
            if list(member.inputs.items()) != list(first.inputs.items()) or member.targets != first.targets:
                raise ConfigError(
                    f"members of an ensemble differ: inputs {first.inputs} and {member.inputs}, "
                    f"targets {list(first.targets)} and {list(member.targets)}"
                )
        self.members = nn.ModuleList(members)
        self.member_weights = tuple(given)
        per_model = [w / member.models for w, member in zip(given, members, strict=True) for _ in range(member.models)]
        share = torch.tensor(per_model, dtype=torch.float64)
        self.register_buffer("weight", (share / share.sum()).float(), persistent=False)
        self.inputs, self.targets = first.inputs, first.targets

    @property
    def heads(self) -> list[Head]:
        """The members."""
        return [member for member in self.members if isinstance(member, Head)]

    @property
    def models(self) -> int:
        """Models of all members."""
        return sum(member.models for member in self.heads)

    @property
    def states_spread(self) -> bool:
        """Whether the spread means anything: several models, or an output with a deviation of its own."""
        return self.models > 1 or any(head.config.output != "point" for head in self.heads)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and spread of N rows, float32 (N, K) each, on the scale of the labels.

        The spread is the deviation of the mixture of the members: their weighted variance and, where a member's
        output states one, the mean of their own variances. It is 0 for one head of output `point`.

        Args:
            inputs: float32 (N, *shape), one per name in `self.inputs`, in that order.
        """
        if not self.states_spread:
            scores = self.heads[0](*inputs)
            return scores, torch.zeros_like(scores)
        raws = [(head, head.raw(*inputs)) for head in self.heads]
        scores = torch.cat([head.scores(raw) for head, raw in raws])
        weight = self.weight.view(-1, 1, 1)
        mean = (scores * weight).sum(0)
        variance = ((scores - mean) ** 2 * weight).sum(0)
        if any(head.config.output != "point" for head in self.heads):
            own = []
            for head, raw in raws:
                spread = head.spread(raw)
                own.append(torch.zeros_like(head.scores(raw)) if spread is None else spread)
            variance = variance + (torch.cat(own) ** 2 * weight).sum(0)
        return mean, variance.sqrt()

    def expected_output_range(self) -> dict[str, tuple[float, float]]:
        """Target -> lowest and highest score to expect of any member."""
        ranges = [head.expected_output_range() for head in self.heads]
        return {t: (min(r[t][0] for r in ranges), max(r[t][1] for r in ranges)) for t in self.targets}

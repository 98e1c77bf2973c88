"""Forward selection: the best single feature set, then at each step the one that helps most beside those taken."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vqa_train.core.errors import ConfigError
from vqa_train.pipelines.tune.evaluate import Scored


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        added: set that was taken.
        sets: all that are taken, in order.
        value: objective with them, mean over the folds.
        folds: fold -> objective.
        gain: fold -> objective less that of the step before; empty for the first.
        candidates: set -> objective with it instead; None where it has none.
    """

    added: str
    sets: tuple[str, ...]
    value: float
    folds: dict[str, float]
    gain: dict[str, float]
    candidates: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """JSON values only."""
        values, gains = list(self.folds.values()), list(self.gain.values())
        return {
            "added": self.added,
            "sets": list(self.sets),
            "value": self.value,
            "std": statistics.stdev(values) if len(values) > 1 else None,
            "gain": statistics.fmean(gains) if gains else None,
            "gain_std": statistics.stdev(gains) if len(gains) > 1 else None,
            "folds": self.folds,
            "candidates": self.candidates,
        }


def forward_selection(
    names: Sequence[str], score: Callable[[tuple[str, ...]], Scored], *, higher: bool, limit: int | None = None
) -> tuple[list[Step], dict[str, Scored]]:
    """Steps until `limit` sets are taken, and the score of each set alone. Of equal sets the first named is taken.

    Args:
        names: of all sets.
        score: of a choice of sets; the order in it is that of `names`.
        higher: whether a higher objective is better.
        limit: None for all sets.

    Raises:
        ConfigError: no choice has a value.
    """
    sign = 1 if higher else -1
    alone: dict[str, Scored] = {}
    steps: list[Step] = []
    taken: tuple[str, ...] = ()
    while len(taken) < min(len(names), limit or len(names)):
        scored = {}
        for name in names:
            if name not in taken:
                chosen = set(taken) | {name}
                scored[name] = score(tuple(other for other in names if other in chosen))
        alone = alone or scored
        usable = {name: found for name, found in scored.items() if found.reason is None and math.isfinite(found.value)}
        if not usable:
            if steps:
                break
            reasons = sorted({str(found.reason) for found in scored.values()})
            raise ConfigError(f"no feature set has a value: {'; '.join(reasons)[:500]}")
        best = max(usable, key=lambda name: sign * usable[name].value)
        folds = {fold: value for fold, value in usable[best].folds.items() if value is not None}
        before = steps[-1].folds if steps else {}
        taken = (*taken, best)
        steps.append(
            Step(
                added=best,
                sets=taken,
                value=usable[best].value,
                folds=folds,
                gain={fold: folds[fold] - before[fold] for fold in folds if fold in before},
                candidates={
                    name: found.value if math.isfinite(found.value) else None for name, found in scored.items()
                },
            )
        )
    return steps, alone


class Measured(Protocol):
    """Something with an objective: its mean over the folds, and in each."""

    @property
    def value(self) -> float: ...
    @property
    def folds(self) -> dict[str, float]: ...


def fewest(steps: Sequence[Measured], *, higher: bool) -> int:
    """The first step that is worse than the best by less than one standard error of the difference over the folds."""
    sign = 1 if higher else -1
    best = max(steps, key=lambda step: sign * step.value)
    for number, step in enumerate(steps):
        gap = [sign * (best.folds[name] - step.folds[name]) for name in best.folds if name in step.folds]
        error = statistics.stdev(gap) / math.sqrt(len(gap)) if len(gap) > 1 else 0.0
        if step is best or (gap and statistics.fmean(gap) < error):
            return number
    raise ConfigError("forward selection has no step")

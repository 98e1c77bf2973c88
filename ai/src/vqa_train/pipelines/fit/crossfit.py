"""Trains every head of every fold in one batched call, and predicts each fold's rows with heads that never saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.evaluation import METRICS
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.member import OnEpoch
from vqa_train.heads.split import hold_out
from vqa_train.heads.table import TrainingTable
from vqa_train.heads.trainer import FittedHead, HeadJob, fit_heads, predict_many
from vqa_train.pipelines.fit.config import MemberConfig, seeds_of

Rows = NDArray[np.int64]
NO_ROWS: Rows = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Rows of a table, by number.

    Attributes:
        name: unique among the folds of one `CrossFit`; empty for the final model.
        train, validation: the second chooses the epoch; where it is empty, a part of the first does.
        test: predicted, and never seen in training.
    """

    name: str
    train: Rows
    test: Rows
    validation: Rows = field(default_factory=lambda: NO_ROWS)


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """One head: which member and seed it is, and what training made of it."""

    fold: str
    member: str
    seed: int
    fitted: FittedHead

    @property
    def name(self) -> str:
        """`fold/member/seed number` as messages and loggers have it."""
        return f"{self.fold}/{self.member}" if self.fold else self.member


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A fold's predictions.

    Attributes:
        fold: its rows.
        predicted: float32 (n, K) for `fold.test`, the weighted mean of the fold's heads, on the labels' scales.
        spread: float32 (n, K), the weighted standard deviation of the heads; None for one head.
    """

    fold: Fold
    predicted: NDArray[np.float32]
    spread: NDArray[np.float32] | None


class CrossFit:
    """Folds of one table trained with the same members.

    Args:
        table: of `heads.table.build_table`; folds number its rows in the caller's order.
        units: (N,) what must not straddle a fold's training and validation rows.
        members: at least one.
        seeds: heads per member and fold; one of a member with a closed form.
    """

    def __init__(
        self, table: TrainingTable, units: Sequence[str], members: Sequence[MemberConfig], *, seeds: int = 1
    ) -> None:
        self.table, self.units, self.members = table, list(units), list(members)
        self._seeds = [seeds_of(member.train, seeds) for member in members]
        self.jobs: list[HeadJob] = []
        self._fold_jobs: list[tuple[Fold, list[int]]] = []
        self._known: dict[tuple[int, int, bytes, bytes, int], int] = {}
        self._held_out: dict[tuple[bytes, float], NDArray[np.bool_]] = {}
        self._fitted: list[FittedHead] = []

    def add(self, fold: Fold, *, init: Sequence[Head] | None = None) -> int:
        """Plan a fold's heads; heads of the same rows, member and seed are trained once. Returns the fold's number.

        Args:
            fold: its rows.
            init: heads to start from, one per member and seed.

        Raises:
            ConfigError: too few groups for a validation part.
        """
        numbers: list[int] = []
        for m, member in enumerate(self.members):
            train, validation = self._parts(fold, member.train)
            for s, seed in enumerate(self._seeds[m]):
                start = init[len(numbers)] if init is not None else None
                key = (m, s, train.tobytes(), validation.tobytes(), id(start))
                if key not in self._known:
                    self._known[key] = len(self.jobs)
                    self.jobs.append(
                        HeadJob(
                            config=member.train.model_copy(update={"seed": seed}),
                            train=train,
                            validation=validation,
                            name="/".join(filter(None, (fold.name, member.name, f"seed-{s}"))),
                            init=start,
                        )
                    )
                numbers.append(self._known[key])
        self._fold_jobs.append((fold, numbers))
        return len(self._fold_jobs) - 1

    @property
    def epochs(self) -> int:
        """Epochs of all heads together, if none stops early."""
        return sum(job.config.epochs for job in self.jobs if not HEADS.get(job.config.head.kind).closed_form)

    def train(
        self,
        *,
        device: str = "cpu",
        threads: int = 1,
        on_epoch: OnEpoch | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        """Train all heads at once.

        Raises:
            ConfigError: as `heads.trainer.fit_heads`.
        """
        self._fitted = fit_heads(
            self.table,
            self.jobs,
            metric=METRICS.get("srocc"),
            device=device,
            threads=threads,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
        )

    def take(self, fitted: Sequence[FittedHead]) -> None:
        """Use heads that were trained elsewhere, with those of other recipes: one per job, in their order."""
        self._fitted = list(fitted)

    def heads(self, number: int) -> list[TrainedHead]:
        """The heads of a fold: members in order, the seeds of each together."""
        fold, numbers = self._fold_jobs[number]
        names = [member for member, seeds in zip(self.members, self._seeds, strict=True) for _ in seeds]
        return [
            TrainedHead(fold=fold.name, member=member.name, seed=self.jobs[n].config.seed, fitted=self._fitted[n])
            for n, member in zip(numbers, names, strict=True)
        ]

    @property
    def histories(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Name and history of every trained head, each once; a closed form's is empty."""
        return [(job.name, fitted.history) for job, fitted in zip(self.jobs, self._fitted, strict=True)]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Share of each of a fold's heads in the mean, which sum to 1; the heads of a member share its weight."""
        counts = [len(seeds) for seeds in self._seeds]
        shares = np.repeat([member.weight / count for member, count in zip(self.members, counts, strict=True)], counts)
        return np.asarray(shares / shares.sum(), dtype=np.float64)

    def held_out(self, numbers: Sequence[int]) -> list[HeldOut]:
        """Predictions of the test rows of these folds."""
        # A head that serves several folds predicts all their rows in one go.
        wanted: dict[int, list[int]] = {}
        for number in numbers:
            for job in self._fold_jobs[number][1]:
                wanted.setdefault(job, []).append(number)
        rows = [np.concatenate([self._fold_jobs[n][0].test for n in folds]) for folds in wanted.values()]
        scores: dict[tuple[int, int], NDArray[np.float32]] = {}
        predicted = predict_many([self._fitted[job] for job in wanted], self.table, rows)
        for (job, folds), values in zip(wanted.items(), predicted, strict=True):
            edges = np.cumsum([len(self._fold_jobs[n][0].test) for n in folds])[:-1]
            for number, part in zip(folds, np.split(values, edges), strict=True):
                scores[number, job] = part
        return [self._mean(number, scores) for number in numbers]

    def ensemble(self, number: int) -> Ensemble:
        """A fold's heads as one module, the seeds of a member batched where their architecture allows."""
        heads = [head.fitted.module for head in self.heads(number)]
        ends = np.cumsum([len(seeds) for seeds in self._seeds]).tolist()
        members = [_stacked(heads[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        return Ensemble(members, [member.weight for member in self.members]).eval()

    def _parts(self, fold: Fold, config: TrainConfig) -> tuple[Rows, Rows]:
        """Training and validation rows of one member: the epoch is chosen inside the fold's training part."""
        if HEADS.get(config.head.kind).closed_form:
            return fold.train, NO_ROWS
        if len(fold.validation) or not config.validation.fraction:
            return fold.train, fold.validation
        key = (fold.train.tobytes(), config.validation.fraction)
        if key not in self._held_out:
            units = [self.units[row] for row in fold.train.tolist()]
            self._held_out[key] = hold_out(units, config.validation.fraction)
        chosen = self._held_out[key]
        return fold.train[~chosen], fold.train[chosen]

    def _mean(self, number: int, scores: dict[tuple[int, int], NDArray[np.float32]]) -> HeldOut:
        fold, jobs = self._fold_jobs[number]
        every = np.stack([scores[number, job] for job in jobs]).astype(np.float64)
        weights = self.weights.reshape(-1, 1, 1)
        mean = (every * weights).sum(axis=0)
        spread = np.sqrt(((every - mean) ** 2 * weights).sum(axis=0)).astype(np.float32) if len(jobs) > 1 else None
        return HeldOut(fold=fold, predicted=mean.astype(np.float32), spread=spread)


def _stacked(heads: Sequence[Head]) -> Head:
    """Heads of one architecture as one batched head."""
    import torch

    if len(heads) == 1:
        return heads[0]
    states = [head.state_dict() for head in heads]
    state = {name: torch.cat([part[name] for part in states]) for name in states[0]}
    head = heads[0].like(len(heads), device="meta").sized(state)
    head.load_state_dict(state, assign=True)
    return head.requires_grad_(False).eval()

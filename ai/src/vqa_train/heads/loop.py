"""The training loop of M heads at once: own rows, own order, own learning rate and own early stopping for each.

One step of all heads is one batched product per layer and one pass of the optimiser over one matrix, so that M small
heads cost little more than the arithmetic of one; nothing that a head computes depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa_train.core.hashing import seed_from
from vqa_train.heads.base import Head
from vqa_train.heads.batch import Batches
from vqa_train.heads.batches import EpochPlan, TrainingData
from vqa_train.heads.losses import combined
from vqa_train.heads.member import Member, OnEpoch, Score
from vqa_train.heads.noise import STREAMS, Noise
from vqa_train.heads.optimizer import AdamW, Packed, learning_rate
from vqa_train.heads.scales import ScaleMaps
from vqa_train.heads.table import TrainingTable

__all__ = ["BatchedLoop", "OnEpoch", "Score"]

_SET_STREAM = STREAMS - 1


class BatchedLoop:
    """The state of one batched training.

    Args:
        head: M models, initialised, with their statistics set, on the device.
        members: M, in the same order; heads of one architecture, batch size, number of epochs and weighting.
        table: the rows.
        metric: of one target's validation rows.
        finite: whether no feature of the table is NaN or infinite.

    Attributes:
        alive: members that still train, in rising order; one row each in `packed`, `kept` and `optimizer`.
        packed: their parameters.
        kept: (alive, P), the running mean of the parameters.
        best: (M, P), what is kept of every member.
        all_maps: the maps of all members' datasets, filled by `fill`; None where there is nothing to map.
    """

    def __init__(
        self, head: Head, members: Sequence[Member], *, table: TrainingTable, metric: Score, finite: bool = False
    ) -> None:
        self.head, self.members, self.table, self.metric = head, list(members), table, metric
        self.device = head.target_mean.device
        first = self.members[0].config
        self.epochs = first.epochs
        self.alive = list(range(len(members)))
        self.data = TrainingData(
            table, batch_size=first.batch_size, std_weighting=first.std_weighting, finite=finite, device=self.device
        )
        self.all_maps = self._new_maps()
        self.maps = None if self.all_maps is None else self._new_maps()
        self.packed = Packed(self._modules(), len(members))
        self.kept = self.packed.matrix.clone()
        decay = torch.tensor([member.config.optimizer.weight_decay for member in members])
        self.optimizer = AdamW(self.packed, decay, first.optimizer.betas)
        self.best = self.packed.matrix.clone()
        self._bind()

    def run(self, on_epoch: OnEpoch | None = None, after_epoch: Callable[[], None] | None = None) -> None:
        """Train until every head has finished; then `best` and `members` hold what is kept.

        Args:
            on_epoch: is told each head's entry of the history.
            after_epoch: is called when all of them were told.
        """
        self._drop_finished()
        while self.alive:
            epoch = 1 + len(self.members[self.alive[0]].history)
            losses, rates = self._train_epoch(epoch)
            self._judge(epoch, losses, rates, on_epoch)
            if after_epoch is not None:
                after_epoch()
            self._drop_finished()

    def fill(self, head: Head) -> None:
        """Copy what is kept into a head of all M members, and into `all_maps`."""
        modules = [head] if self.all_maps is None else [head, self.all_maps]
        Packed(modules, len(self.members)).matrix.copy_(self.best.to(head.target_mean.device))

    def reduce_to(self, alive: list[int]) -> None:
        """Leave the heads that have finished out of the batch; `alive` are members in rising order."""
        if alive == self.alive:
            return
        left = [self.alive.index(i) for i in alive]
        self.alive = alive
        if not left:
            return
        models = torch.tensor(left, device=self.device)
        self.head = self.head.select(left).to(self.device).requires_grad_(True)
        if self.maps is not None:
            self.maps = self._new_maps()
        matrix = self.packed.matrix[models]
        self.packed = Packed(self._modules(), len(left))
        self.packed.bind(matrix)
        self.kept = self.kept[models]
        self.optimizer.select(self.packed, models)
        self._bind()

    # What the heads that are still alive train with.

    @property
    def _living(self) -> list[Member]:
        return [self.members[i] for i in self.alive]

    def _modules(self) -> list[torch.nn.Module]:
        return [self.head] if self.maps is None else [self.head, self.maps]

    def _new_maps(self) -> ScaleMaps | None:
        kind = self.members[0].config.scales
        if kind == "same" or len(self.table.dataset_names) == 1:
            return None
        reference = torch.from_numpy(np.stack([member.scaling.reference for member in self._living]))
        return ScaleMaps(kind, len(self.table.dataset_names), reference).to(self.device)

    def _bind(self) -> None:
        """Tensors with one row per living head."""
        members = self._living
        configs = [member.config for member in members]
        identity = self.table.identity
        self.gradient = torch.empty_like(self.packed.matrix)
        self.target_weights = self._tensor([member.target_weights for member in members])
        weights = [config.loss.weights() for config in configs]
        self.losses = {name: self._shared([entry[name] for entry in weights]) for name in weights[0]}
        self.likelihood = self._tensor([config.loss.likelihood for config in configs])
        self.dropout = self._shared([config.head.dropout for config in configs])
        sets = [config.drop_sets for config in configs]
        self.drop_sets = self._tensor(sets).view(-1, 1, 1) if any(sets) and len(self.table.features) > 1 else None
        self.widths = torch.tensor(self.table.rows.widths, device=self.device)
        self.range = self.head.label_range()
        self.noise = Noise([seed_from("dropout", config.seed, identity) for config in configs], self.device)
        self.data.bind(self.head, members, [seed_from("order", config.seed, identity) for config in configs])

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float32)).to(self.device)

    def _shared(self, values: list[float]) -> Tensor | float:
        """One number where all heads have the same, else one each (M,)."""
        return values[0] if len(set(values)) == 1 else self._tensor(values)

    def _drop_finished(self) -> None:
        self.reduce_to([i for i in self.alive if not self.members[i].finished])

    # One epoch.

    def _train_epoch(self, epoch: int) -> tuple[list[float], list[float]]:
        """Mean training loss and last learning rate per living head."""
        plan = self.data.epoch(epoch)
        active = plan.active
        factors, rates = self._schedule(plan, active)
        sums = torch.zeros(len(self.alive), device=self.device)
        for number, (batches, step, x) in enumerate(self.data.steps(self.data.training(plan))):
            self.noise.at(number)
            everyone = bool(active[number].all())
            idle = None if everyone else torch.from_numpy(np.flatnonzero(~active[number])).to(self.device)
            sums += self._step(x, batches, step, factors[number], idle)
        for member, taken in zip(self._living, plan.steps.sum(axis=0).tolist(), strict=True):
            member.steps += taken
        sizes = np.asarray([len(member.train) for member in self._living])
        return (sums.double().cpu().numpy() / sizes).tolist(), rates

    def _schedule(self, plan: EpochPlan, active: NDArray[np.bool_]) -> tuple[Tensor, list[float]]:
        """What the optimiser and the running mean do in each step, (G, 4, M, 1), and each head's last learning rate."""
        members = self._living
        total = plan.steps.sum(axis=0)
        # Steps that a head took before in this epoch; an idle one stands at its last.
        done = np.minimum(np.cumsum(active, axis=0) - active, total - 1)
        rates = np.stack(
            [
                learning_rate(member.config, (plan.epoch - 1) * size + done[:, m], self.epochs * size)
                for m, (member, size) in enumerate(zip(members, total.tolist(), strict=True))
            ],
            axis=1,
        )
        taken = done + np.asarray([member.steps for member in members])
        self.noise.plan(taken)
        ema = np.asarray([member.config.ema or 0.0 for member in members])
        # A short memory at first, so that the initial weights are soon forgotten.
        mean = 1 - np.minimum(ema, (1 + taken) / (10 + taken))
        factors = np.stack([*self.optimizer.factors(rates, taken), mean], axis=1)[..., None]
        return self._tensor(factors), rates[-1].tolist()

    def _step(self, x: Tensor, batches: Batches, step: int, factors: Tensor, idle: Tensor | None) -> Tensor:
        """One step of every head that is not idle; loss times rows of its batch, (M,)."""
        loss, _ = self._loss(x, batches, step, training=True)
        gradient = self.packed.gradient(loss.sum(), self.gradient)
        state = (self.packed.matrix, self.optimizer.mean, self.optimizer.square, self.kept)
        before = [] if idle is None else [tensor[idle] for tensor in state]
        self.optimizer.step(self.packed, gradient, factors[:3])
        with torch.no_grad():
            self.kept.lerp_(self.packed.matrix, factors[3])
        for tensor, value in zip(state, before, strict=False):
            tensor[idle] = value
        return loss.detach() * batches.rows[step]

    def _loss(self, x: Tensor, batches: Batches, step: int, *, training: bool) -> tuple[Tensor, Tensor]:
        """Loss (M,) of one batch per head with inputs x (M, b, C), and the raw outputs (M, b, W)."""
        head = self.head
        if training and self.drop_sets is not None:
            x = x * self._kept_sets(x, self.drop_sets)
        raw = head.network(x, self.noise if training else None, self.dropout)
        target, weight = batches.target[step], batches.weight[step]
        predicted, target_quality = head.output.scores(raw, *self.range), target
        if self.maps is not None and batches.dataset is not None:
            predicted = self.maps(predicted, batches.dataset[step])
            # The output itself speaks of quality on the shared scale.
            target_quality = (
                self.maps.inverse(target, batches.dataset[step]) if head.config.output != "point" else target
            )
        own = head.output.loss(raw, target_quality, weight, *self.range)
        extra = None if own is None else self.likelihood.unsqueeze(-1) * own
        return combined(predicted, target, weight, self.losses, self.target_weights, extra), raw

    def _kept_sets(self, x: Tensor, share: Tensor) -> Tensor:
        """0 for the columns of inputs that a row misses, else 1; a row never misses all of them. (M, b, C)."""
        models, size = x.shape[:2]
        sets = len(self.widths)
        draws = self.noise.uniform(_SET_STREAM, models, size * sets).view(models, size, sets)
        kept = draws >= share
        kept = kept | ~kept.any(dim=-1, keepdim=True)
        return kept.to(torch.float32).repeat_interleave(self.widths, dim=-1)

    # After the epoch: what is kept.

    @torch.no_grad()
    def _judge(self, epoch: int, losses: list[float], rates: list[float], on_epoch: OnEpoch | None) -> None:
        finite = self.kept.isfinite().all(dim=1).cpu().numpy() & np.isfinite(losses)
        validated = dict(self._validate())
        for m, member in enumerate(self._living):
            loss, metric = validated.get(m, (np.nan, np.nan))
            entry = {
                "epoch": epoch,
                "lr": rates[m],
                "train_loss": _number(losses[m]),
                "validation_loss": _number(loss),
                "validation_metric": _number(metric),
            }
            if member.judge(entry, sound=bool(finite[m])):
                self.best[self.alive[m]] = self.kept[m]
            if on_epoch is not None:
                on_epoch(member.name, dict(entry))

    def _validate(self) -> Iterator[tuple[int, tuple[float, float]]]:
        """Each head with validation rows: its number, and their loss and mean metric by the kept weights."""
        members = self._living
        counts = [len(member.validation) for member in members]
        if not any(counts):
            return
        trained = self.packed.matrix
        self.packed.bind(self.kept)
        losses, rows, scores = [], [], []
        try:
            for batches, step, x in self.data.steps(self.data.validation()):
                loss, raw = self._loss(x, batches, step, training=False)
                losses.append(loss * batches.rows[step])
                rows.append(batches.rows[step])
                scores.append(self.head.scores(raw))
        finally:
            self.packed.bind(trained)
        taken = torch.stack(rows).cpu().numpy()
        predicted = torch.stack(scores).cpu().numpy()
        there = np.arange(predicted.shape[2]) < taken[..., None]
        # A step without rows of a head has loss 0 there, or NaN where the head has diverged.
        total = torch.stack(losses).double().sum(0).cpu().numpy()
        for m, member in enumerate(members):
            if counts[m]:
                values = predicted[:, m][there[:, m]].astype(np.float64)
                yield m, (float(total[m] / counts[m]), member.metric(self.metric, values))


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

"""The training loop of one head: batches, learning rate, running mean of the weights, and the choice of the epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import seed_from
from vqa_train.core.plugins import did_you_mean
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.dropout import Dropout
from vqa_train.heads.losses import combined
from vqa_train.heads.table import TrainingTable

Score = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""(predicted (n,), label (n,)) -> number, higher is better, NaN where undefined."""


class TrainingLoop:
    """The state of one training.

    Args:
        head: initialised, with its statistics set; trained in place.
        train, validation: bool (N,), rows of the table.
        metric: of one target's validation rows.
    """

    def __init__(
        self,
        head: Head,
        *,
        table: TrainingTable,
        train: NDArray[np.bool_],
        validation: NDArray[np.bool_],
        config: TrainConfig,
        metric: Score,
    ) -> None:
        device = head.target_mean.device
        self.head, self.config, self.metric = head, config, metric
        self.x, self.y = _tensors(head, table, train)
        self.val_x, self.val_y = _tensors(head, table, validation)
        self.val_labels = table.targets[validation].astype(np.float64)
        weights = _target_weights(table.target_names, config.target_weights)
        self.target_weights = torch.tensor(weights, device=device)
        # A target whose validation labels are all the same has no correlation in any epoch.
        self.judged = [
            column
            for column, weight in enumerate(weights)
            if weight and len(np.unique(self.val_labels[:, column][~np.isnan(self.val_labels[:, column])])) > 1
        ]
        self.steps = max(1, round(len(self.x) / config.batch_size))
        self.order = torch.Generator().manual_seed(seed_from("order", config.seed, table.identity))
        dropout = torch.Generator(device).manual_seed(seed_from("dropout", config.seed, table.identity))
        self.dropouts = [module for module in head.modules() if isinstance(module, Dropout)]
        for module in self.dropouts:
            module.generator = dropout
        self.kept = head
        if config.ema is not None:
            self.kept = new_head(table, config).to(device)
            self.kept.load_state_dict(head.state_dict())
        self.averaged = list(zip(self.kept.parameters(), head.parameters(), strict=True))
        self.optimizer = _adamw(head, config)

    def run(self, on_epoch: Callable[[dict[str, Any]], None] | None) -> tuple[list[dict[str, Any]], int]:
        """History and best epoch; afterwards `kept` has the best epoch's weights."""
        history: list[dict[str, Any]] = []
        best: tuple[float, float] | None = None
        best_epoch, best_state = 0, {}
        for epoch in range(1, self.config.epochs + 1):
            train_loss = self._train_epoch(epoch)
            if not (math.isfinite(train_loss) and all(value.isfinite().all() for value in self.kept.parameters())):
                raise ConfigError(
                    f"training diverged in epoch {epoch}: its loss is {train_loss:g}, or a weight is no number",
                    hint=f"lower optimizer.lr (now {self.config.optimizer.lr:g})",
                )
            loss, metric = self._validate()
            rank = (metric if math.isfinite(metric) else -math.inf, -loss)
            if best is None or not len(self.val_x) or rank > best:
                best, best_epoch = rank, epoch
                best_state = {name: value.clone() for name, value in self.kept.state_dict().items()}
            entry = {
                "epoch": epoch,
                "lr": float(self.optimizer.param_groups[0]["lr"]),
                "train_loss": train_loss,
                "validation_loss": loss if math.isfinite(loss) else None,
                "validation_metric": metric if math.isfinite(metric) else None,
            }
            history.append(entry)
            if on_epoch is not None:
                on_epoch(dict(entry))
            if self.config.patience is not None and epoch - best_epoch >= self.config.patience:
                break
        self.kept.load_state_dict(best_state)
        for module in self.dropouts:
            # A generator cannot be copied, and a trained head needs none.
            module.generator = None
        return history, best_epoch

    def _train_epoch(self, epoch: int) -> float:
        self.head.train()
        total = torch.zeros((), device=self.x.device)
        # Batches of equal size: a short last one would have a correlation of few rows.
        shuffled = torch.randperm(len(self.x), generator=self.order).to(self.x.device)
        for step, rows in enumerate(shuffled.tensor_split(self.steps), start=(epoch - 1) * self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.config, step, self.config.epochs * self.steps)
            loss = self._loss(self.head, self.x[rows], self.y[rows])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            self.optimizer.step()
            self._average(step)
            total += loss.detach() * len(rows)
        return float(total / len(self.x))

    def _loss(self, head: Head, x: Tensor, y: Tensor) -> Tensor:
        mask = ~y.isnan()
        labels = torch.where(mask, y, torch.zeros_like(y))
        return combined(head.network(x), labels, mask, self.config.loss.weights(), self.target_weights)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        if self.config.ema is None:
            return
        # A short memory at first, so that the initial weights are soon forgotten.
        decay = min(self.config.ema, (1 + step) / (10 + step))
        for mean, value in self.averaged:
            mean.lerp_(value, 1 - decay)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Loss and mean metric on the validation rows; NaN where undefined."""
        if not len(self.val_x):
            return math.nan, math.nan
        self.kept.eval()
        parts = max(1, round(len(self.val_x) / self.config.batch_size))
        losses = [
            self._loss(self.kept, x, y) * len(x)
            for x, y in zip(self.val_x.tensor_split(parts), self.val_y.tensor_split(parts), strict=True)
        ]
        loss = float(torch.stack(losses).sum() / len(self.val_x))
        scores = self.kept.network(self.val_x) * self.kept.target_std + self.kept.target_mean
        predicted = scores.cpu().numpy().astype(np.float64)
        # NaN for one target (its predictions collapsed) is NaN for the epoch: it must not win.
        metrics = [self.metric(predicted[:, column], self.val_labels[:, column]) for column in self.judged]
        return loss, float(np.mean(metrics)) if metrics else math.nan


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Learning rate of a step (from 0) of `total`: linear warm-up, then constant or half a cosine down to 0."""
    warm = round(config.warmup * total)
    if step < warm:
        return config.optimizer.lr * (step + 1) / warm
    if config.schedule == "constant":
        return config.optimizer.lr
    return config.optimizer.lr * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm))) / 2


def _adamw(head: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    matrices = [parameter for parameter in head.parameters() if parameter.ndim > 1]
    biases = [parameter for parameter in head.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.optimizer.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.optimizer.lr, betas=config.optimizer.betas, fused=True)


def _tensors(head: Head, table: TrainingTable, rows: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """Standardised inputs (n, D) and labels (n, K) of some rows, on the head's device."""
    device = head.target_mean.device
    with torch.no_grad():
        x = head.standardise(*(torch.as_tensor(matrix[rows]).to(device) for matrix in table.features.values()))
        y = (torch.as_tensor(table.targets[rows]).to(device) - head.target_mean) / head.target_std
    return x, y


def _target_weights(names: Sequence[str], weights: Mapping[str, float] | None) -> list[float]:
    weights = weights or {}
    for name in weights:
        if name not in names:
            raise ConfigError(f"target_weights: unknown target {name!r}", hint=did_you_mean(name, list(names)))
    values = [weights.get(name, 1.0) for name in names]
    if not any(values):
        raise ConfigError("target_weights: all targets have weight 0", hint="give one a weight above 0")
    return values


def new_head(table: TrainingTable, config: TrainConfig) -> Head:
    """The head that the config names, for the table's inputs and targets, with zero weights."""
    dims = {name: matrix.shape[1] for name, matrix in table.features.items()}
    head: Head = HEADS.get(config.head.kind)(dims, table.target_names, config.head)
    return head


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU work in the calling thread alone.

    The steps of a head are too small to share: with several threads on a busy machine they took 20 times as long.
    One thread also makes the sums, and so the weights, independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""One head of a batched training: its recipe, its rows, and what has become of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.heads.config import TrainConfig
from vqa_train.heads.table import Scaling

Score = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
"""(predicted (n,), label (n,)) -> number, higher is better, NaN where undefined."""
OnEpoch = Callable[[str, dict[str, Any]], None]
"""(name of the head, its entry of the history)."""


@dataclass(kw_only=True)
class Member:
    """One head of a loop.

    Attributes:
        name: for messages and loggers.
        config: its recipe.
        train, validation: int64, sorted rows of the table.
        scaling: of its training rows.
        target_weights: float32 (K,).
        judged: what the metric is averaged over: a target and its labels' places among the validation rows, per
            dataset; only where the labels have a correlation.
        history: per epoch, as `FittedHead.history`.
        best: (metric, minus loss) of the epoch that is kept.
        best_epoch: that epoch; 0 before the first.
        steps: taken so far.
        diverged: epoch in which its loss or weights were no longer numbers; 0 if never.
    """

    name: str
    config: TrainConfig
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    scaling: Scaling
    target_weights: NDArray[np.float32]
    judged: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]
    history: list[dict[str, Any]] = field(default_factory=list)
    best: tuple[float, float] | None = None
    best_epoch: int = 0
    steps: int = 0
    diverged: int = 0

    @property
    def finished(self) -> bool:
        """Whether it trains no more."""
        epoch = len(self.history)
        patience = self.config.patience
        stopped = patience is not None and epoch - self.best_epoch >= patience
        return bool(self.diverged) or epoch >= self.config.epochs or (epoch > 0 and stopped)

    def metric(self, metric: Score, predicted: NDArray[np.float64]) -> float:
        """Mean over targets and datasets for scores (n, K) of the validation rows; NaN where one of them is.

        NaN for one target (its predictions collapsed) is NaN for the epoch: it must not win.
        """
        values = [metric(predicted[places, column], labels) for column, places, labels in self.judged]
        return float(np.mean(values)) if values else math.nan

    def judge(self, entry: dict[str, Any], *, sound: bool) -> bool:
        """Add an epoch to the history; whether its weights are the ones to keep.

        Args:
            entry: of the history, None where a number is undefined.
            sound: whether loss and weights are numbers.
        """
        self.history.append(entry)
        if not sound:
            self.diverged = entry["epoch"]
            return False
        metric, loss = entry["validation_metric"], entry["validation_loss"]
        rank = (-math.inf if metric is None else metric, -math.inf if loss is None else -loss)
        if self.best is not None and len(self.validation) and rank <= self.best:
            return False
        self.best, self.best_epoch = rank, entry["epoch"]
        return True


def judged_parts(
    labels: NDArray[np.float32], dataset: NDArray[np.int64], weights: NDArray[np.float32]
) -> list[tuple[int, NDArray[np.int64], NDArray[np.float64]]]:
    """`Member.judged` of validation labels (n, K), the dataset of each row (n,) and the weight of each target (K,).

    A target whose labels are all the same has no correlation in any epoch and is left out.
    """
    parts = []
    for column in np.flatnonzero(weights).tolist():
        for number in np.unique(dataset).tolist():
            places = np.flatnonzero((dataset == number) & ~np.isnan(labels[:, column]))
            values = labels[places, column].astype(np.float64)
            if len(np.unique(values)) > 1:
                parts.append((column, places, values))
    return parts

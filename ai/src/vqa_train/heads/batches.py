"""What each step of a batched training sees: rows in their order, standardised, with labels and weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqa_train.heads import order
from vqa_train.heads.base import Head
from vqa_train.heads.batch import Batches
from vqa_train.heads.inputs import InputBuffers, ahead
from vqa_train.heads.member import Member
from vqa_train.heads.table import TrainingTable

# Standardised inputs of all heads are kept when they take no more bytes than this; otherwise they are made per batch.
_KEEP_BYTES = 1 << 28
# Labels of this many places are looked up at once.
_CHUNK = 1 << 19
# Features of validation rows in a file are read for this many numbers at once.
_READ = 1 << 25


class TrainingData:
    """The rows of a table as batches of some heads.

    Args:
        table: the rows.
        batch_size: rows per step, about.
        std_weighting: see `TrainConfig`.
        finite: whether no feature is NaN or infinite.
        device: where batches are made.
    """

    def __init__(
        self,
        table: TrainingTable,
        *,
        batch_size: int,
        std_weighting: bool,
        finite: bool,
        device: torch.device | str,
    ) -> None:
        self.table, self.batch_size, self.device = table, batch_size, torch.device(device)
        self._finite = finite
        self._seed = order.table_seed(table.identity)
        self._size = order.window_rows(table.rows.columns)
        self._labels = torch.from_numpy(table.targets).to(device)
        self._dataset = torch.from_numpy(table.dataset).to(device) if len(table.dataset_names) > 1 else None
        known = table.target_std if std_weighting else None
        self._opinion_std = None if known is None else torch.from_numpy(known).to(device)
        self._resident: Tensor | None = None
        self._buffers: list[NDArray[Any]] | None = None

    def bind(self, head: Head, members: Sequence[Member], seeds: Sequence[int]) -> None:
        """Make batches for these heads from now on.

        Args:
            head: M models with their statistics.
            members: M.
            seeds: of each one's order of rows.
        """
        self._members, self._seeds = list(members), list(seeds)
        self._mean = head.input_mean.unsqueeze(1)
        # Divided by infinity, a constant column is silent.
        std = torch.where(head.input_varies > 0, head.input_std, torch.full_like(head.input_std, torch.inf))
        self._std, self._clip = std.unsqueeze(1), head.config.clip_sd
        scalings = [member.scaling for member in members]
        self._label_mean = torch.from_numpy(np.stack([scaling.label_mean for scaling in scalings])).to(self.device)
        self._label_std = torch.from_numpy(np.stack([scaling.label_std for scaling in scalings])).to(self.device)
        self._validation: list[Batches] | None = None
        rows = self.table.rows
        small = rows.resident and 4 * len(members) * rows.rows * rows.columns <= _KEEP_BYTES
        self._inputs = self._standardise(self._whole()).view(-1, rows.columns) if small else None

    # Training.

    def epoch(self, epoch: int) -> EpochPlan:
        """Where each head's rows are read from and how many steps it takes."""
        windows = list(enumerate(order.windows(self._seed, epoch, self.table.rows.rows, self._size)))
        sizes = [[len(places) for places in self._training_places(ranges)] for _, ranges in windows]
        steps = np.asarray([[order.steps(size, self.batch_size) for size in line] for line in sizes])
        # What holds no training row of any head is not read.
        read = np.flatnonzero(steps.any(axis=1))
        return EpochPlan(epoch=epoch, windows=[windows[i] for i in read], steps=steps[read])

    def training(self, plan: EpochPlan) -> Iterator[Batches]:
        """The batches of an epoch, in order."""
        sources = self._ahead([ranges for _, ranges in plan.windows])
        for source, (number, ranges), counts in zip(sources, plan.windows, plan.steps, strict=True):
            places = self._training_places(ranges)
            for m, (rows, seed) in enumerate(zip(places, self._seeds, strict=True)):
                places[m] = rows[order.shuffled(seed, plan.epoch, number, len(rows))]
            numbers = None if ranges == [(0, self.table.rows.rows)] else order.row_numbers(ranges)
            for chunk in self._chunks(_dealt(places, counts)):
                if numbers is None:
                    yield self._batches(source, chunk, chunk)
                else:
                    rows = np.where(chunk < 0, -1, numbers[chunk])
                    yield self._batches(source, rows if self.table.rows.resident else chunk, rows)

    def _training_places(self, ranges: list[tuple[int, int]]) -> list[NDArray[np.int64]]:
        """Per head, the places within a window of its training rows."""
        if ranges == [(0, self.table.rows.rows)]:
            return [member.train for member in self._members]
        numbers = order.row_numbers(ranges)
        there = np.zeros(self.table.rows.rows, dtype=np.bool_)
        places: list[NDArray[np.int64]] = []
        for member in self._members:
            there[member.train] = True
            places.append(np.flatnonzero(there[numbers]))
            there[member.train] = False
        return places

    def _ahead(self, windows: list[list[tuple[int, int]]]) -> Iterator[Tensor]:
        """The source of each window; of a file, the next one is read while the last is used."""
        if self.table.rows.resident:
            yield from [self._inputs if self._inputs is not None else self._whole()] * len(windows)
            return
        if self._buffers is None:
            shape = (min(self._size, self.table.rows.rows), self.table.rows.columns)
            self._buffers = [np.empty(shape, self.table.rows.dtype) for _ in range(min(2, len(windows)))]
        with ThreadPoolExecutor(1, thread_name_prefix="vqa-train-rows") as reader:
            following: Future[Tensor] = reader.submit(self._read, windows[0], self._buffers[0])
            for number in range(len(windows)):
                source = following.result()
                if number + 1 < len(windows):
                    # The buffer of the window before this one, which is no longer used.
                    following = reader.submit(self._read, windows[number + 1], self._buffers[(number + 1) % 2])
                yield source

    def _read(self, ranges: list[tuple[int, int]], out: NDArray[Any]) -> Tensor:
        return self._clean(self.table.rows.read(ranges, out))

    # Validation.

    def validation(self) -> Iterator[Batches]:
        """The heads' validation rows in sorted order; the same in every epoch, so those in memory are made once."""
        if self._validation is not None:
            yield from self._validation
            return
        places = [member.validation for member in self._members]
        plan = _dealt(places, np.asarray([order.steps(len(rows), self.batch_size) for rows in places]))
        if self.table.rows.resident:
            source = self._inputs if self._inputs is not None else self._whole()
            self._validation = [self._batches(source, chunk, chunk) for chunk in self._chunks(plan)]
            yield from self._validation
            return
        for chunk in self._chunks(plan, _READ // self.table.rows.columns):
            wanted = np.unique(chunk[chunk >= 0])
            source = self._clean(self.table.rows.take(wanted))
            yield self._batches(source, np.where(chunk < 0, -1, np.searchsorted(wanted, chunk)), chunk)

    # Both.

    def steps(self, batches: Iterator[Batches]) -> Iterator[tuple[Batches, int, Tensor]]:
        """Each step's batches and number in them, and its standardised inputs (M, b, C), valid until the next step."""
        if self.table.rows.resident or self.device.type != "cpu":
            yield from ((batch, step, self._inputs_of(batch, step)) for batch in batches for step in range(len(batch)))
            return
        yield from ahead(batches, InputBuffers(self._mean, self._std, self._clip, finite=self._finite).make)

    def _inputs_of(self, batches: Batches, step: int) -> Tensor:
        x = batches.source.index_select(0, batches.places[step]).view(*batches.weight.shape[1:3], -1)
        return x if batches.standardised else self._standardise(x)

    def _whole(self) -> Tensor:
        """All rows in memory, float32 or float16 (N, C), infinite values as NaN."""
        if self._resident is None:
            self._resident = self._clean(self.table.rows.whole())
        return self._resident

    def _clean(self, x: NDArray[Any]) -> Tensor:
        # So that `_standardise` need not look for infinities, which would double its time.
        if not self._finite:
            x = np.where(np.isinf(x), np.asarray(np.nan, x.dtype), x)
        return torch.from_numpy(x).to(self.device)

    def _standardise(self, x: Tensor) -> Tensor:
        """`base.standardise` bit for bit, of values none of which is infinite, without its comparisons."""
        z = (x.to(torch.float32) - self._mean).div_(self._std).clamp_(-self._clip, self._clip)
        return z.nan_to_num_(nan=0.0)

    def _chunks(self, plan: NDArray[np.int64], places: int = _CHUNK) -> Iterator[NDArray[np.int64]]:
        """The steps of a plan, a few at a time."""
        size = max(1, places // max(1, plan[0].size * self._labels.shape[1])) if len(plan) else 1
        yield from (plan[start : start + size] for start in range(0, len(plan), size))

    def _batches(self, source: Tensor, places: NDArray[np.int64], numbers: NDArray[np.int64]) -> Batches:
        """Batches of some steps.

        Args:
            places: (S, M, b) rows of `source`, -1 for none.
            numbers: (S, M, b) the same rows of the table.
        """
        standardised = source is self._inputs
        rows = torch.from_numpy(numbers).to(self.device)
        there = rows >= 0
        rows.clamp_(min=0)
        labels = self._labels[rows]
        known = there.unsqueeze(-1) & ~labels.isnan()
        dataset = None if self._dataset is None else self._dataset[rows]
        mean, std = (self._of_dataset(values, dataset) for values in (self._label_mean, self._label_std))
        weight = known.to(torch.float32)
        if self._opinion_std is not None:
            ratio = self._opinion_std[rows] / std
            weight *= torch.where(ratio.isfinite(), 1 / (1 + ratio * ratio), torch.ones_like(ratio))
        taken = np.maximum(places, 0)
        if standardised:
            taken = taken + np.arange(len(self._members))[:, None] * self.table.rows.rows
        return Batches(
            source=source,
            standardised=standardised,
            places=torch.from_numpy(taken.reshape(len(taken), -1)).to(self.device),
            target=torch.where(known, (labels - mean) / std, torch.zeros_like(labels)),
            weight=weight,
            dataset=dataset,
            rows=there.sum(-1).to(torch.float32),
        )

    def _of_dataset(self, values: Tensor, dataset: Tensor | None) -> Tensor:
        """(M, D, K) of each row's dataset: (S, M, b, K), or (M, 1, K) where there is one."""
        if dataset is None:
            return values
        models = torch.arange(len(values), device=self.device).view(1, -1, 1)
        return values[models, dataset]


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """How an epoch goes.

    Attributes:
        epoch: from 1.
        windows: number of each window and the ranges of rows that are read together.
        steps: int64 (windows, M), each head's steps in each window.
    """

    epoch: int
    windows: list[tuple[int, list[tuple[int, int]]]]
    steps: NDArray[np.int64]

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which heads take part in each step, (G, M)."""
        return np.concatenate([np.arange(counts.max())[:, None] < counts for counts in self.steps])


def _dealt(places: Sequence[NDArray[np.int64]], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 (S, M, rows of the largest batch): each head's places dealt into its number of batches, -1 for none."""
    size = max(-(-len(part) // max(int(count), 1)) for part, count in zip(places, counts, strict=True))
    plan = np.full((int(counts.max()), len(places), size), -1, dtype=np.int64)
    for m, (part, count) in enumerate(zip(places, counts, strict=True)):
        if count:
            batch, place = order.deal(part, int(count))
            plan[batch, m, place] = part
    return plan

"""Training of heads on cached features: all jobs of one architecture at once, each as if it were alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import canonical_json, seed_from
from vqa_train.heads import HEADS
from vqa_train.heads.base import Head
from vqa_train.heads.closed_form import solve
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.level import set_levels
from vqa_train.heads.loop import BatchedLoop
from vqa_train.heads.member import Member, OnEpoch, Score
from vqa_train.heads.predict import one_thread, predict, predict_many, predict_spread
from vqa_train.heads.prepare import of, prepare
from vqa_train.heads.resume import Saved
from vqa_train.heads.scales import ScaleMaps, described
from vqa_train.heads.split import hold_out
from vqa_train.heads.table import TrainingTable, build_table

__all__ = [
    "FittedHead",
    "HeadJob",
    "OnEpoch",
    "Score",
    "fit_head",
    "fit_heads",
    "predict",
    "predict_many",
    "predict_spread",
]

# Heads that train together on a CPU: enough to hide the cost of a call, few enough to stay near the caches. Measured
# for 960 rows x 60 columns, 64-32 units: 1: 1.3 ms per head and step, 8: 0.12, 25: 0.08, 100: 0.10.
_TOGETHER = 32
_NO_ROWS: NDArray[np.int64] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class HeadJob:
    """One head to train.

    Attributes:
        config: its recipe; `validation.fraction` is not used, the rows are given.
        train: int64, rows that it learns from, in the caller's numbering.
        validation: int64, rows that choose its epoch; none of them also trains.
        name: for messages and loggers.
        init: a head of the same architecture to start from, instead of drawn weights.
    """

    config: TrainConfig
    train: NDArray[np.int64]
    validation: NDArray[np.int64] = field(default_factory=lambda: _NO_ROWS)
    name: str = ""
    init: Head | None = None


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A trained head and how it came about.

    Attributes:
        batch, index: the heads that it was trained with, and which of them it is.
        history: per epoch: `epoch` (from 1), `lr` (of its last step), `train_loss`, and `validation_loss` and
            `validation_metric` (None where there are no validation rows or the metric is undefined). Empty for a head
            with a closed form.
        best_epoch: the epoch kept; the last one where there are no validation rows; 0 for a closed form.
        validation: bool (N,), the rows that chose the epoch, in the caller's order.
        counts: `rows`, `train`, `validation`, `unlabelled` (in neither), `steps`.
        nonfinite: input name -> NaN and infinite values, which count as the column's mean.
        constant: input name -> columns that do not vary over the training rows, which are silenced.
        diverged: epoch in which its loss was no longer a number; 0 if never.
        chosen: what a closed form chose (regularisation, kernel width) and its leave-one-out error.
        scales: dataset -> target -> its map from the shared quality scale, where several datasets were joined.
    """

    batch: Head
    index: int
    history: list[dict[str, Any]]
    best_epoch: int
    validation: NDArray[np.bool_]
    counts: dict[str, int]
    nonfinite: dict[str, int]
    constant: dict[str, int]
    diverged: int = 0
    chosen: dict[str, float] = field(default_factory=dict)
    scales: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @cached_property
    def module(self) -> Head:
        """The kept weights, one model, in eval mode, on the CPU."""
        return self.batch.select([self.index]).eval()


def fit_heads(
    table: TrainingTable,
    jobs: Sequence[HeadJob],
    *,
    metric: Score,
    device: str = "cpu",
    threads: int = 1,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
    raise_diverged: bool = True,
) -> list[FittedHead]:
    """Train every job; jobs of one architecture train as one batched model.

    A job sees its own rows only, and its result is that of training it alone, up to float rounding. The same rows and
    jobs give the same weights bit for bit on one machine's CPU. torch's global random state is neither read nor
    changed.

    Args:
        table: of `heads.table.build_table`.
        jobs: at least one.
        metric: chooses the epoch: its mean over the targets, on a job's validation rows.
        device: where to train.
        threads: of a CPU; heads are shared out over them, so the number does not change a result.
        on_epoch: is given a head's name and its entry of the history after each of its epochs, in one thread at a
            time; an exception from it ends training.
        checkpoint: folder where the state is kept, and taken up again by the next call with the same jobs and rows.
        raise_diverged: False marks a head that diverged and keeps its last good weights, so that the others go on.

    Returns:
        One per job, in their order.

    Raises:
        ConfigError: rows that are not the table's, or twice in a job; a target without labels (or with one value only)
            among a job's training rows, or without labels among its validation rows; unknown names in
            target_weights; patience without validation rows; an unknown head; or a loss that diverged.
    """
    if not jobs:
        raise ConfigError("no heads to train")
    members = prepare(table, jobs)
    facts = _Facts(table)
    parts = list(_parts(jobs, members, device))
    results: list[FittedHead | None] = [None] * len(jobs)
    lock, stop = threading.Lock(), threading.Event()

    def report(name: str, entry: dict[str, Any]) -> None:
        with lock:
            if stop.is_set():
                raise _StoppedError
            if on_epoch is not None:
                on_epoch(name, entry)

    def train(part: list[int]) -> None:
        try:
            with one_thread():
                chosen = [jobs[i] for i in part]
                fitted = _train(facts, chosen, [members[i] for i in part], metric, device, report, checkpoint)
        except BaseException:
            # The other threads end with their epoch.
            stop.set()
            raise
        for i, head in zip(part, fitted, strict=True):
            results[i] = head

    if threads > 1 and len(parts) > 1 and device == "cpu":
        _in_threads(train, parts, threads, stop)
    else:
        for part in parts:
            train(part)
    fitted = [head for head in results if head is not None]
    for job, head in zip(jobs, fitted, strict=True):
        if head.diverged and raise_diverged:
            raise ConfigError(
                f"training{of(job.name)} diverged in epoch {head.diverged}: its loss or a weight is no number",
                hint=f"lower optimizer.lr (it is {job.config.optimizer.lr:g})",
            )
    return fitted


def fit_head(
    features: Mapping[str, NDArray[np.float32]],
    targets: NDArray[np.float32],
    groups: Sequence[str],
    target_names: Sequence[str],
    config: TrainConfig,
    *,
    metric: Score,
    keys: Sequence[str] | None = None,
    validation: NDArray[np.bool_] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    device: str = "cpu",
) -> FittedHead:
    """Train one head: `build_table`, a validation split by group as the config says, and `fit_heads` of one job.

    Args:
        features: input name -> float32 (N, D); NaN and infinity are allowed. The order is that of the head's inputs.
        targets: float32 (N, K) on the labels' scales; NaN is a missing label and is masked.
        groups: (N,) content that must not straddle training and validation.
        target_names: (K,).
        keys: (N,) a name of each row, all different (the video's sha256); with them the order of rows does not matter.
        validation: bool (N,), the validation rows; None splits them off by hash of group as the config says.
        on_epoch: is given each epoch's entry of the history.

    Raises:
        ConfigError: as `build_table` and `fit_heads`.
        LabelError: an infinite label.
    """
    table = build_table(features, targets, target_names, groups, keys)
    rows = len(table.targets)
    if validation is not None:
        if validation.shape != (rows,):
            raise ConfigError(f"validation has shape {validation.shape}, expected ({rows},)")
        held_out = np.asarray(validation, dtype=np.bool_)
    elif config.validation.fraction and not HEADS.get(config.head.kind).closed_form:
        held_out = hold_out(list(groups), config.validation.fraction)
    else:
        held_out = np.zeros(rows, dtype=np.bool_)
    job = HeadJob(config=config, train=np.flatnonzero(~held_out), validation=np.flatnonzero(held_out))
    report = None if on_epoch is None else lambda _, entry: on_epoch(entry)
    return fit_heads(table, [job], metric=metric, device=device, on_epoch=report)[0]


class _StoppedError(Exception):
    """Another thread failed."""


def _in_threads(
    train: Callable[[list[int]], None], parts: list[list[int]], threads: int, stop: threading.Event
) -> None:
    with ThreadPoolExecutor(threads, thread_name_prefix="vqa-train-heads") as pool:
        futures = [pool.submit(train, part) for part in parts]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


class _Facts:
    """What is the same for all jobs of a table."""

    def __init__(self, table: TrainingTable) -> None:
        self.table = table
        self.unlabelled = int(np.isnan(table.targets).all(axis=1).sum())
        self.nonfinite = table.rows.count_nonfinite()


def _parts(jobs: Sequence[HeadJob], members: Sequence[Member], device: str) -> Iterator[list[int]]:
    """Numbers of the jobs that train as one batch; those with about as many steps together."""
    alike: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        config = job.config
        network = config.head.model_dump(mode="json", exclude={"dropout"})
        shared = [network, config.optimizer.betas, config.batch_size, config.epochs, config.scales]
        alike.setdefault(canonical_json([*shared, config.std_weighting]), []).append(number)
    for numbers in alike.values():
        together = _TOGETHER if device == "cpu" else len(numbers)
        count = -(-len(numbers) // together)
        by_size = sorted(numbers, key=lambda number: len(members[number].train))
        yield from (part.tolist() for part in np.array_split(np.asarray(by_size), count))


def _train(
    facts: _Facts,
    jobs: Sequence[HeadJob],
    members: Sequence[Member],
    metric: Score,
    device: str,
    on_epoch: OnEpoch,
    checkpoint: Path | None,
) -> list[FittedHead]:
    table, config = facts.table, jobs[0].config
    kind: type[Head] = HEADS.get(config.head.kind)
    if kind.closed_form:
        solved = [solve(table, member) for member in members]
        return [
            _fitted(facts, head, 0, member, None, chosen)
            for (head, chosen), member in zip(solved, members, strict=True)
        ]
    statistics = [member.scaling.statistics for member in members]
    head = kind(table.shapes, table.target_names, config.head, models=len(jobs))
    head.set_statistics(statistics)
    seeds = [seed_from("init", job.config.seed, table.identity) for job in jobs]
    head.initialise([torch.Generator().manual_seed(seed) for seed in seeds])
    for number, job in enumerate(jobs):
        if job.init is not None:
            _start_from(head, number, job.init)
    finite = not any(facts.nonfinite.values())
    loop = BatchedLoop(head.to(device), members, table=table, metric=metric, finite=finite)
    saved = None if checkpoint is None else Saved(checkpoint, loop)
    if saved is not None:
        saved.restore()
    loop.run(on_epoch, None if saved is None else saved.keep)
    if saved is not None:
        saved.keep(now=True)
    final = kind(table.shapes, table.target_names, config.head, models=len(jobs))
    final.set_statistics(statistics)
    loop.fill(final)
    final.requires_grad_(False).eval()
    set_levels(final, members, table)
    return [_fitted(facts, final, number, member, loop.all_maps) for number, member in enumerate(members)]


def _fitted(
    facts: _Facts,
    batch: Head,
    index: int,
    member: Member,
    maps: ScaleMaps | None,
    chosen: dict[str, float] | None = None,
) -> FittedHead:
    table = facts.table
    edges = np.cumsum([0, *table.rows.widths])
    constant = np.add.reduceat(~member.scaling.statistics.input_varies, edges[:-1], dtype=np.int64)
    original = np.zeros(len(table.targets), dtype=np.bool_)
    original[table.order[member.validation]] = True
    return FittedHead(
        batch=batch,
        index=index,
        history=member.history,
        best_epoch=member.best_epoch,
        validation=original,
        counts={
            "rows": len(table.targets),
            "train": len(member.train),
            "validation": len(member.validation),
            "unlabelled": facts.unlabelled,
            "steps": member.steps,
        },
        nonfinite=facts.nonfinite,
        constant=dict(zip(table.features, map(int, constant), strict=True)),
        diverged=member.diverged,
        chosen=chosen or {},
        scales=described(maps, index, table, member.scaling) if len(table.dataset_names) > 1 else {},
    )


@torch.no_grad()
def _start_from(head: Head, number: int, init: Head) -> None:
    """Copy the weights (not the scalings, which are of the training rows) of another head into one model."""
    if init.inputs != head.inputs or init.targets != head.targets or init.width != head.width:
        raise ConfigError(
            f"cannot start from a head of inputs {init.inputs} and targets {list(init.targets)}, "
            f"this one has {head.inputs} and {list(head.targets)}"
        )
    theirs = dict(init.named_parameters())
    for name, parameter in head.named_parameters():
        if name not in theirs or theirs[name].shape[1:] != parameter.shape[1:]:
            raise ConfigError(f"cannot start from a head of another architecture: {name} differs")
        parameter[number] = theirs[name][0]

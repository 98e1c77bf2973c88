"""Makes the plan of a protocol for the rows at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqa_train.core.errors import ConfigError
from vqa_train.core.types import Video
from vqa_train.datasets.protocols import folds as kinds
from vqa_train.datasets.protocols.config import (
    By,
    CrossDataset,
    FixedSplits,
    HashSplits,
    KFold,
    LeaveOneDatasetOut,
    LeaveOneGroupOut,
    Protocol,
    RepeatedRandom,
    SplitsFile,
)
from vqa_train.datasets.protocols.file import read_plan
from vqa_train.datasets.protocols.plan import PlanFold, PlanRow, SplitPlan
from vqa_train.datasets.protocols.units import members, shown, units_of


def plan_splits(protocol: Protocol, datasets: Sequence[str], videos: Sequence[Video]) -> SplitPlan:
    """The folds of `protocol`, decided by names and hashes alone: the same plan for every order of the rows.

    Args:
        protocol: of the recipe.
        datasets: (N,) name of each row's dataset.
        videos: (N,) labelled rows; for `splits`, each with a split.

    Raises:
        ConfigError: too few groups or datasets, a column that no row has, or a splits file for other rows.
        UsageError: shares that are not shares.
    """
    order = sorted(range(len(videos)), key=lambda i: (datasets[i], videos[i].id))
    if isinstance(protocol, SplitsFile):
        plan = _read(protocol)
    else:
        chosen = [i for i in order if getattr(protocol, "rows", "all") == "all" or videos[i].split != "test"]
        if not chosen:
            raise ConfigError(f"protocol {protocol.text()}: there are no labelled rows to split")
        names, rows = [datasets[i] for i in chosen], [videos[i] for i in chosen]
        plan = SplitPlan(
            protocol=protocol,
            rows=tuple(PlanRow(name, video.id, video.sha256) for name, video in zip(names, rows, strict=True)),
            folds=tuple(_folds(protocol, names, rows)),
        )
    return replace(plan, warnings=tuple(_warnings(plan, datasets, videos)))


def _read(protocol: SplitsFile) -> SplitPlan:
    if not protocol.path:
        raise ConfigError("protocol file names no file", hint="write file:PATH of a splits.json")
    return read_plan(Path(protocol.path))


def _folds(protocol: Protocol, datasets: Sequence[str], videos: Sequence[Video]) -> Iterator[PlanFold]:
    by: By = getattr(protocol, "by", "group")
    units = units_of(datasets, videos, by)
    match protocol:
        case FixedSplits():
            yield kinds.from_splits("splits", [video.split for video in videos])
        case HashSplits():
            yield kinds.from_splits("hash", kinds.drawn_splits(units, protocol))
        case KFold():
            yield from kinds.kfold(units, protocol.k, repeats=protocol.repeats, salt=protocol.salt)
        case RepeatedRandom():
            yield from kinds.repeated(units, protocol.repeats, protocol.test_fraction, salt=protocol.salt)
        case LeaveOneDatasetOut():
            yield from kinds.leave_one_out(list(datasets), units, "dataset")
        case LeaveOneGroupOut(source="group"):
            yield from kinds.leave_one_out([shown(unit) for unit in units], units, "group")
        case LeaveOneGroupOut():
            yield from kinds.leave_one_out(_attributes(protocol.source, videos), units, protocol.source)
        case CrossDataset():
            yield from kinds.cross_dataset(datasets, units, protocol.k, salt=protocol.salt)
        case _:
            raise ConfigError(f"protocol kind {protocol.kind!r} has no folds")


def _attributes(column: str, videos: Sequence[Video]) -> list[str | None]:
    values = [video.attributes.get(column) or None for video in videos]
    if not any(values):
        known = sorted({name for video in videos for name in video.attributes})
        raise ConfigError(
            f"protocol leave_one_group_out: no row has a value for source {column!r}",
            hint=f"known: {', '.join(known)}" if known else "list the column under columns.attributes of the manifest",
        )
    return values


def _warnings(plan: SplitPlan, datasets: Sequence[str], videos: Sequence[Video]) -> Iterator[str]:
    text = plan.protocol.text()
    positions = plan.positions(datasets, videos)
    folds = plan.placed(positions)
    units = units_of(datasets, videos, "group")
    count = _straddling(folds, units)
    if count:
        total = sum(len(rows) > 1 for rows in members([units[i] for i in positions]).values())
        yield (
            f"protocol {text}: {count} of {total} groups have rows in both the training and the test part of a fold; "
            f"scores on content that was trained on are too good (by=group keeps groups together)"
        )
    if plan.protocol.refit:
        tested = np.unique(np.concatenate([fold.test for fold in folds]))
        own = sum(videos[row].split == "test" for row in positions)
        if own:
            yield (
                f"protocol {text} takes in {own} rows that the dataset keeps as its test part, and the final model is "
                f"trained on them too (rows=train leaves them out)"
            )
        never = len(plan.rows) - len(tested)
        if never and not isinstance(plan.protocol, RepeatedRandom):
            yield f"protocol {text}: {never} of {len(plan.rows)} rows are in no test part"


def _straddling(folds: Sequence[PlanFold], units: Sequence[str]) -> int:
    """Units with rows in both parts of at least one fold."""
    names, number = np.unique(np.asarray(units, dtype=np.str_), return_inverse=True)
    found = np.zeros(len(names), dtype=np.bool_)
    for fold in folds:
        trained = np.zeros(len(names), dtype=np.bool_)
        trained[number[np.concatenate([fold.train, fold.validation])]] = True
        found[number[fold.test]] |= trained[number[fold.test]]
    return int(found.sum())

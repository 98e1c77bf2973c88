"""Jobs checked and made into members of a batch: rows in the table's order, scalings, weights of the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.plugins import did_you_mean
from vqa_train.heads import HEADS
from vqa_train.heads.member import Member, judged_parts
from vqa_train.heads.table import Scaling, TrainingTable, scalings, table_rows

if TYPE_CHECKING:
    from vqa_train.heads.trainer import HeadJob


def prepare(table: TrainingTable, jobs: Sequence[HeadJob]) -> list[Member]:
    """One member per job; what jobs share (the statistics of one set of rows) is worked out once.

    Raises:
        ConfigError: as `fit_heads`.
    """
    labelled = np.asarray(~np.isnan(table.targets).all(axis=1), dtype=np.bool_)
    checked = [_checked(table, labelled, job) for job in jobs]
    distinct = {train.tobytes(): train for train, _, _ in checked}
    known: dict[bytes, Scaling] = dict(zip(distinct, scalings(table, list(distinct.values())), strict=True))
    return [
        Member(
            name=job.name,
            config=job.config,
            train=train,
            validation=validation,
            scaling=known[train.tobytes()],
            target_weights=weights,
            judged=judged_parts(table.targets[validation], table.dataset[validation], weights),
        )
        for job, (train, validation, weights) in zip(jobs, checked, strict=True)
    ]


def of(name: str) -> str:
    """ " of 'name'", or nothing for a job without a name."""
    return f" of {name!r}" if name else ""


def _checked(
    table: TrainingTable, labelled: NDArray[np.bool_], job: HeadJob
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Sorted labelled rows of the table that train and validate, and the weight of each target."""
    parts = []
    for what, numbers in (("training", job.train), ("validation", job.validation)):
        places = np.sort(table_rows(table, numbers, f"{what} rows{of(job.name)}"))
        twice = places[1:][places[1:] == places[:-1]]
        if len(twice):
            raise ConfigError(f"row {table.order[twice[0]]} is twice among the {what} rows{of(job.name)}")
        parts.append(places)
    both = np.intersect1d(parts[0], parts[1], assume_unique=True)
    if len(both):
        raise ConfigError(f"row {table.order[both[0]]}{of(job.name)} would both train and validate")
    train, validation = (places[labelled[places]] for places in parts)
    if not len(train):
        raise ConfigError(f"no labelled training rows{of(job.name)}, out of {len(parts[0])}")
    if job.config.patience is not None and not len(parts[1]) and not HEADS.get(job.config.head.kind).closed_form:
        raise ConfigError(
            f"patience{of(job.name)} is {job.config.patience}, but there are no validation rows to stop by",
            hint="set patience: null, or validation.fraction above 0",
        )
    _check_labels(job.name, table, train, validation if len(parts[1]) else None)
    weights = _target_weights(table.target_names, job.config.target_weights)
    return train, validation, np.asarray(weights, dtype=np.float32)


def _target_weights(names: Sequence[str], weights: Mapping[str, float] | None) -> list[float]:
    weights = weights or {}
    for name in weights:
        if name not in names:
            raise ConfigError(f"target_weights: unknown target {name!r}", hint=did_you_mean(name, list(names)))
    values = [weights.get(name, 1.0) for name in names]
    if not any(values):
        raise ConfigError("target_weights: all targets have weight 0", hint="give one a weight above 0")
    return values


def _check_labels(
    job: str, table: TrainingTable, train: NDArray[np.int64], validation: NDArray[np.int64] | None
) -> None:
    for name, labels in zip(table.target_names, table.targets.T, strict=True):
        own = [labels[train[table.dataset[train] == number]] for number in np.unique(table.dataset[train])]
        known = max((part[~np.isnan(part)] for part in own), key=lambda part: (len(np.unique(part)), len(part)))
        if len(np.unique(known)) < 2:
            where = "" if len(table.dataset_names) == 1 else " of any one dataset"
            raise ConfigError(
                f"target {name!r} has {len(known)} labels with {len(np.unique(known))} distinct values in the training "
                f"rows{of(job)}{where}, and needs at least 2",
                hint="leave the target out, or label more rows",
            )
        if validation is not None and np.isnan(labels[validation]).all():
            raise ConfigError(
                f"target {name!r} has no label in the validation rows{of(job)}",
                hint="label more groups, hold out more (validation.fraction), or set it to 0 and patience: null",
            )

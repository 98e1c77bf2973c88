"""The folds of each kind of protocol, over units that stay whole; everything random is drawn by hash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import content_draws, unit_interval
from vqa_train.datasets.protocols.config import HashSplits
from vqa_train.datasets.protocols.plan import PlanFold, Rows
from vqa_train.datasets.protocols.units import members

Part = Literal["train", "val", "test"]


def from_splits(name: str, splits: Sequence[str | None]) -> PlanFold:
    """One fold from a split per row; a row without one is in no part."""
    train, validation, test = (
        np.flatnonzero(np.fromiter((split == part for split in splits), np.bool_, len(splits)))
        for part in get_args(Part)
    )
    return PlanFold(name=name, train=train, validation=validation, test=test)


def drawn_splits(units: Sequence[str], protocol: HashSplits) -> list[str]:
    """A split per row by the hash of its unit; one more unit moves no other."""
    upper_train, upper_val = protocol.train, protocol.train + protocol.val
    drawn: dict[str, str] = {}
    for unit in set(units):
        point = unit_interval("hash-splits", protocol.salt, unit)
        below_val = point < upper_val or protocol.test == 0
        below_train = point < upper_train or protocol.test == protocol.val == 0
        drawn[unit] = "train" if below_train else "val" if below_val else "test"
    return [drawn[unit] for unit in units]


def kfold(units: Sequence[str], k: int, *, repeats: int, salt: str) -> Iterator[PlanFold]:
    """Whole units with test parts of nearly equal size: in the order of their hash, each to the smallest part so far.

    Raises:
        ConfigError: fewer than `k` units.
    """
    rows_of = members(units)
    if k > len(rows_of):
        raise ConfigError(f"protocol kfold needs at least k groups, got k={k} and {len(rows_of)} groups")
    draws = {unit: content_draws(repeats, "kfold", salt, unit) for unit in rows_of}
    for repeat in range(repeats):
        parts: list[list[int]] = [[] for _ in range(k)]
        for unit in sorted(rows_of, key=lambda name: (draws[name][repeat], name)):
            min(parts, key=len).extend(rows_of[unit])
        prefix = f"repeat-{_padded(repeat, repeats)}/" if repeats > 1 else ""
        for number, test in enumerate(parts):
            yield _without(f"{prefix}fold-{_padded(number, k)}", test, len(units))


def repeated(units: Sequence[str], repeats: int, test_fraction: float, *, salt: str) -> Iterator[PlanFold]:
    """Random splits of exact sizes: the units with the least draws test.

    Raises:
        ConfigError: fewer than two units.
    """
    rows_of = members(units)
    if len(rows_of) < 2:
        raise ConfigError(f"protocol repeated needs at least 2 groups, got {len(rows_of)}")
    names = sorted(rows_of)
    count = min(max(round(test_fraction * len(names)), 1), len(names) - 1)
    draws = np.stack([content_draws(repeats, "repeated", salt, unit) for unit in names])
    # A stable sort of sorted names: equal draws go by name.
    ranked = np.argsort(draws, axis=0, kind="stable")
    for repeat in range(repeats):
        test = [row for unit in ranked[:count, repeat] for row in rows_of[names[unit]]]
        yield _without(f"split-{_padded(repeat, repeats)}", test, len(units))


def leave_one_out(sources: Sequence[str | None], units: Sequence[str], what: str) -> Iterator[PlanFold]:
    """One fold per source, in the order of their names; rows that share a unit with a test row are left out.

    Raises:
        ConfigError: fewer than two sources.
    """
    names = sorted({source for source in sources if source is not None})
    if len(names) < 2:
        raise ConfigError(f"protocol leave-one-{what}-out needs at least 2 values of {what}, got {len(names)}")
    for name in names:
        chosen = np.fromiter((source == name for source in sources), np.bool_, len(sources))
        yield _apart(name, ~chosen, chosen, units)


def cross_dataset(datasets: Sequence[str], units: Sequence[str], k: int, *, salt: str) -> Iterator[PlanFold]:
    """Per dataset: `k` folds of its own, and all of it against each other dataset.

    Raises:
        ConfigError: fewer than two datasets, or one with fewer than `k` units.
    """
    names = sorted(set(datasets))
    if len(names) < 2:
        raise ConfigError(f"protocol cross_dataset needs at least 2 datasets, got {', '.join(names)}")
    rows = {name: np.flatnonzero(np.fromiter((d == name for d in datasets), np.bool_, len(datasets))) for name in names}
    for train in names:
        own = rows[train]
        for fold in kfold([units[i] for i in own.tolist()], k, repeats=1, salt=salt):
            yield PlanFold(
                name=f"{train} on {train}/{fold.name}",
                train=own[fold.train],
                test=own[fold.test],
                validation=own[:0],
                cell=(train, train),
            )
        for test in names:
            if test != train:
                yield _apart(f"{train} on {test}", _mask(own, units), _mask(rows[test], units), units, (train, test))


def _without(name: str, test: Sequence[int], count: int) -> PlanFold:
    held_out = np.zeros(count, dtype=np.bool_)
    held_out[list(test)] = True
    return PlanFold(
        name=name, train=np.flatnonzero(~held_out), test=np.flatnonzero(held_out), validation=np.zeros(0, np.int64)
    )


def _apart(
    name: str, train: np.ndarray, test: np.ndarray, units: Sequence[str], cell: tuple[str, str] | None = None
) -> PlanFold:
    """Training rows without those whose unit has a test row."""
    tested = {units[row] for row in np.flatnonzero(test).tolist()}
    shares = np.fromiter((unit in tested for unit in units), np.bool_, len(units))
    return PlanFold(
        name=name,
        train=np.flatnonzero(train & ~shares),
        test=np.flatnonzero(test),
        validation=np.zeros(0, np.int64),
        left_out=int((train & shares).sum()),
        cell=cell,
    )


def _mask(rows: Rows, units: Sequence[str]) -> np.ndarray:
    mask = np.zeros(len(units), dtype=np.bool_)
    mask[rows] = True
    return mask


def _padded(number: int, count: int) -> str:
    return str(number).zfill(len(str(count - 1)))

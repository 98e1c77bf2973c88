"""The verb diff: which keys only one of two feature sets has, and whose rows differ, by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashcache import HashCache
from vqa_train.core.types import FeatureSpec
from vqa_train.store.arrow import decode, to_numpy
from vqa_train.store.commits import Place, places
from vqa_train.store.read import check_shard
from vqa_train.store.records import ShardCommit

Row = tuple[str, int]


@dataclass(frozen=True)
class Side:
    """One of the two states of a feature set: its folder and the commits that make it up."""

    folder: Path
    commits: Sequence[ShardCommit]


@dataclass
class SetDiff:
    """What tells two states of one feature set apart.

    Attributes:
        equal: rows (key and view) that are the same, bit by bit.
        only_a, only_b: rows that one side alone has, sorted.
        differing: rows that both have and that are not the same, sorted.
        largest: output -> the largest difference over the differing rows, as a part of the largest size of that output
            in them; NaN against a number counts as infinite.
        facts: differing rows whose outputs are the same: their facts (size, codec, decoder, ...) differ.
    """

    equal: int = 0
    only_a: list[Row] = field(default_factory=list)
    only_b: list[Row] = field(default_factory=list)
    differing: list[Row] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)
    facts: int = 0

    @property
    def same(self) -> bool:
        """Nothing differs."""
        return not (self.only_a or self.only_b or self.differing)


def diff_sets(spec: FeatureSpec, a: Side, b: Side, hashes: HashCache) -> SetDiff:
    """Compare two states of the feature set of `spec`; which shards hold the rows, and in what order, does not count.

    Raises:
        StoreError: a damaged shard among those that hold differing rows.
    """
    found_a, found_b = places(a.commits), places(b.commits)
    result = SetDiff(only_a=sorted(found_a.keys() - found_b.keys()), only_b=sorted(found_b.keys() - found_a.keys()))
    both = found_a.keys() & found_b.keys()
    result.differing = sorted(row for row in both if found_a[row].digest != found_b[row].digest)
    result.equal = len(both) - len(result.differing)
    if result.differing:
        _measure(spec, result, (a, found_a), (b, found_b), hashes)
        hashes.save()
    return result


def _measure(
    spec: FeatureSpec,
    result: SetDiff,
    a: tuple[Side, dict[Row, Place]],
    b: tuple[Side, dict[Row, Place]],
    hashes: HashCache,
) -> None:
    same = np.ones(len(result.differing), dtype=bool)
    for output in spec.outputs:
        left, right = (
            _rows(side, [found[row] for row in result.differing], output.name, output.shape, hashes)
            for side, found in (a, b)
        )
        result.largest[output.name] = relative_difference(left, right)
        same &= ((left == right) | (np.isnan(left) & np.isnan(right))).reshape(len(left), -1).all(axis=1)
    result.facts = int(same.sum())


def relative_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Largest |left - right| as a part of the largest finite size in either; inf where one alone is NaN or infinite.

    0 / 0 is 0: two outputs of zeros are the same.
    """
    a, b = left.astype(np.float64), right.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    if not (finite | alike).all():
        return float("inf")
    gap = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    size = float(max(np.abs(a[finite]).max(initial=0.0), np.abs(b[finite]).max(initial=0.0)))
    return gap / size if gap else 0.0


def _rows(
    side: Side, wanted: Sequence[Place], output: str, shape: Sequence[int], hashes: HashCache
) -> NDArray[np.float32]:
    """One output of the rows at `wanted`, float32 (len(wanted), *shape); each shard is opened once."""
    values = np.empty((len(wanted), *shape), dtype=np.float32)
    by_name = {commit.shard: commit for commit in side.commits}
    by_shard: dict[str, list[int]] = {}
    for position, place in enumerate(wanted):
        by_shard.setdefault(place.shard, []).append(position)
    for shard, positions in sorted(by_shard.items()):
        table = decode(check_shard(side.folder, by_name[shard], hashes), [output])
        values[positions] = to_numpy(table.column(output), shape)[[wanted[p].row for p in positions]]
    return values

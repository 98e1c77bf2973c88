"""Many rows as columns: what a shard holds, checked, hashed and summed without an object per value."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import StoreError
from vqa_train.core.hashing import canonical_json
from vqa_train.core.types import FeatureSpec
from vqa_train.store.layout import KEY
from vqa_train.store.rows import FeatureRow, check_array, fact_names, num_views

_FACTS_NONE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class RowBatch:
    """n rows of one feature set.

    Attributes:
        keys: n hex sha256.
        views: n numbers of views.
        outputs: name -> float32 (n, *shape).
        facts: one mapping per row; empty for a set without facts.
    """

    keys: Sequence[str]
    views: Sequence[int]
    outputs: Mapping[str, NDArray[np.float32]]
    facts: Sequence[Mapping[str, Any]] = ()

    def __len__(self) -> int:
        return len(self.keys)


def stack(spec: FeatureSpec, rows: Sequence[FeatureRow]) -> RowBatch:
    """Checked rows as a batch."""
    return RowBatch(
        keys=[row.key for row in rows],
        views=[row.view for row in rows],
        outputs={output.name: np.stack([row.outputs[output.name] for row in rows]) for output in spec.outputs},
        facts=[row.facts for row in rows] if fact_names(spec) else (),
    )


def check_batch(spec: FeatureSpec, batch: RowBatch) -> None:
    """Refuse a batch of a set without facts that its spec does not describe, as `checked_row` refuses a row.

    Raises:
        StoreError: a set that needs facts; a key, view, output name, dtype or shape that does not fit; with reason
            `non_finite` for NaN or infinity in a set that was not imported.
    """
    name = f"batch of {len(batch)} rows of {spec.set_name}"
    if fact_names(spec):
        raise StoreError(f"{name}: rows of this set carry facts about their clip", hint="append them as FeatureRow")
    for key in batch.keys:
        if not KEY.fullmatch(key):
            raise StoreError(f"row key {key!r} is not 64 lower-case hex digits")
    if len(batch.views) != len(batch) or any(not 0 <= view < num_views(spec) for view in batch.views):
        raise StoreError(f"{name}: expected one view per row, 0 to {num_views(spec) - 1}")
    expected = [output.name for output in spec.outputs]
    if set(batch.outputs) != set(expected):
        raise StoreError(f"{name}: expected outputs {expected}, got {list(batch.outputs)}")
    for output in spec.outputs:
        shape = (len(batch), *output.shape)
        check_array(name, output.name, shape, batch.outputs[output.name], finite=not spec.imported)


def digests(spec: FeatureSpec, batch: RowBatch) -> list[str]:
    """`rows.row_digest` of every row."""
    arrays = [np.ascontiguousarray(batch.outputs[o.name], dtype="<f4").reshape(len(batch), -1) for o in spec.outputs]
    facts = batch.facts or [_FACTS_NONE] * len(batch)
    found = []
    for row, (key, view, fact) in enumerate(zip(batch.keys, batch.views, facts, strict=True)):
        # What canonical_json gives for a row without facts: keys are hex digits, views are numbers.
        identity = canonical_json([key, view, dict(fact)]) if fact else f'["{key}",{view},{{}}]'
        digest = hashlib.sha256(identity.encode("utf-8"))
        for array in arrays:
            digest.update(array[row].data)
        found.append(digest.hexdigest()[:16])
    return found


def statistics(spec: FeatureSpec, batch: RowBatch) -> dict[str, Any]:
    """n, sum and sum of squares in float64 of each output with one axis; duplicates count as often as they stand.

    Only rows that are finite throughout count: all of them, but for imported features.
    """
    return {
        name: {
            "n": len(values),
            "sum": values.sum(axis=0).tolist(),
            "sum_of_squares": np.square(values).sum(axis=0).tolist(),
        }
        for name, values in pooled(spec, batch).items()
    }


def pooled(spec: FeatureSpec, batch: RowBatch) -> dict[str, NDArray[np.float64]]:
    """The rows that `statistics` is of: output name -> float64 (rows that are finite, D)."""
    found = {}
    for output in spec.outputs:
        if len(output.shape) == 1:
            values = batch.outputs[output.name]
            finite = np.isfinite(values).all(axis=1)
            found[output.name] = (values if finite.all() else values[finite]).astype(np.float64)
    return found

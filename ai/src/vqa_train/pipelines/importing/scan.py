"""The first pass over the features of a file: everything that could be wrong is found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import UsageError
from vqa_train.core.progress import progress
from vqa_train.datasets.external.base import FeatureFile, FeatureFileError

# With fewer labelled rows than this an equal column may be chance.
_ENOUGH = 3


@dataclass(frozen=True)
class Scanned:
    """What the features of a file are like.

    Attributes:
        dims: D.
        given: bool (N,), False for a row without a vector.
        nonfinite_rows, nonfinite_values: rows with NaN or infinity among those given, and how many values.
        beyond: finite values that became infinite as float32.
        constant: dimensions with one finite value throughout, or none.
    """

    dims: int
    given: NDArray[np.bool_]
    nonfinite_rows: int
    nonfinite_values: int
    beyond: int
    constant: int


def scan_features(
    file: FeatureFile, features: Sequence[str], rows: int, targets: Mapping[str, NDArray[np.float64]]
) -> Scanned:
    """Read every feature once.

    Args:
        features: columns.
        rows: that the ids have.
        targets: target -> scores (rows,), which no feature may equal.

    Raises:
        FeatureFileError: a cell that is no number, vectors of several lengths, another number of rows than of ids.
        UsageError: a feature that is a label.
    """
    given: list[NDArray[np.bool_]] = []
    start = nonfinite_rows = nonfinite_values = beyond = 0
    low = high = np.empty(0, np.float32)
    same: dict[str, NDArray[np.bool_]] = {}
    with progress("checking", rows) as advance:
        for block in file.blocks(features):
            stop = start + len(block.values)
            if not start:
                low = np.full(block.values.shape[1], np.inf, np.float32)
                high = -low
                same = {name: np.ones(len(low), dtype=bool) for name in targets}
            if stop <= rows:
                _narrow(same, targets, block.values, start)
            finite = np.isfinite(block.values)
            bad = np.count_nonzero(~finite[block.given])
            if bad:
                nonfinite_values += int(bad)
                nonfinite_rows += int(np.count_nonzero(~finite[block.given].all(axis=1)))
            low = np.minimum(low, np.where(finite, block.values, np.inf).min(axis=0, initial=np.inf))
            high = np.maximum(high, np.where(finite, block.values, -np.inf).max(axis=0, initial=-np.inf))
            given.append(block.given)
            beyond += block.beyond
            start = stop
            advance(len(block.values))
    if start != rows:
        hint = "its rows are the dimensions: transpose it first" if len(low) == rows else "one row per video"
        raise FeatureFileError(f"{file.what} has {start} rows of features and {rows} ids", hint=hint)
    if not len(low):
        raise FeatureFileError(f"{file.what}: {features[0]!r} holds no vector with a number in it")
    for name, equal in same.items():
        labelled = targets[name][~np.isnan(targets[name])]
        if equal.any() and len(labelled) >= _ENOUGH and np.ptp(labelled) > 0:
            dim = int(np.flatnonzero(equal)[0])
            which = f"column {features[dim]!r}" if len(features) > 1 else f"dimension {dim} of {features[0]!r}"
            raise UsageError(
                f"{which} of {str(file.path)!r} is the label {name!r} itself, in every row",
                hint="leave it out of --dim-columns; a head would only copy it",
            )
    return Scanned(len(low), np.concatenate(given), nonfinite_rows, nonfinite_values, beyond, int((low >= high).sum()))


def _narrow(
    same: dict[str, NDArray[np.bool_]],
    targets: Mapping[str, NDArray[np.float64]],
    values: NDArray[np.float32],
    start: int,
) -> None:
    """Keep in `same` only dimensions that equal the label in the labelled rows of this block too."""
    for name, equal in same.items():
        candidates = np.flatnonzero(equal)
        if len(candidates):
            label = targets[name][start : start + len(values)].astype(np.float32)
            labelled = ~np.isnan(label)
            equal[candidates] = (values[:, candidates][labelled] == label[labelled, None]).all(axis=0)

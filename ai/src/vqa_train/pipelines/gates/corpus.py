"""The identity of the labelled rows behind a measurement, and whether its splits keep test rows out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import RunError
from vqa_train.core.hashing import canonical_json, sha256_json
from vqa_train.datasets.protocols import SplitPlan
from vqa_train.pipelines import runs
from vqa_train.pipelines.evaluate.table import numbers, read_table, texts

if TYPE_CHECKING:
    from vqa_train.pipelines.fit.data import FitData

_LISTED = 3


class CorpusRow(NamedTuple):
    """One labelled row: sha256 of the video's bytes, content that must not straddle a split, label per target."""

    video_sha256: str
    group: str
    labels: tuple[float | None, ...]


@dataclass(frozen=True)
class Corpus:
    """Labelled rows with features.

    Attributes:
        targets: of the labels.
        rows: (dataset, id) -> row.
    """

    targets: tuple[str, ...]
    rows: Mapping[tuple[str, str], CorpusRow]

    @cached_property
    def sha256(self) -> str:
        """Of the canonical JSON of the targets and the sorted rows [dataset, video sha256, group, labels]; ids, paths
        and the order of rows change nothing."""
        rows = [[dataset, row.video_sha256, row.group, list(row.labels)] for (dataset, _), row in self.rows.items()]
        return sha256_json({"targets": list(self.targets), "rows": sorted(rows, key=canonical_json)})


def corpus_of(data: FitData) -> Corpus:
    """The labelled rows that a fit takes."""
    table = data.table
    ids = [video.id for video in table.videos]
    return _corpus(table.target_names, table.datasets, ids, table.keys, table.groups, table.targets)


def corpus_of_run(folder: Path, targets: Sequence[str]) -> Corpus:
    """The labelled rows that a run folder kept beside its predictions.

    Raises:
        UsageError: the table lacks a column.
    """
    path = folder / runs.PREDICTIONS_FILE
    frame = read_table(path)
    datasets, ids, keys, groups = (texts(frame, column, path) for column in ("dataset", "id", "video_sha256", "group"))
    labels = np.stack([numbers(frame, target, path) for target in targets], axis=1)
    return _corpus(targets, datasets, ids, keys, groups, labels)


def _corpus(
    targets: Sequence[str],
    datasets: Sequence[str],
    ids: Sequence[str],
    keys: Sequence[str],
    groups: Sequence[str],
    labels: NDArray[Any],
) -> Corpus:
    # Labels are float32 wherever they come from.
    values = labels.astype(np.float32)
    rows = {}
    for number in np.flatnonzero(np.isfinite(values).any(axis=1)).tolist():
        found = tuple(float(value) if np.isfinite(value) else None for value in values[number])
        rows[datasets[number], ids[number]] = CorpusRow(keys[number], groups[number], found)
    return Corpus(tuple(targets), rows)


def leaks(plan: SplitPlan, corpus: Corpus) -> list[str]:
    """What stands on both sides of a fold, in words, one line per fold: a video's bytes, or a group of its dataset.

    Raises:
        RunError: the splits name a row that the corpus has not, or with other bytes.
    """
    known = []
    for row in plan.rows:
        there = corpus.rows.get((row.dataset, row.id))
        if there is None or row.video_sha256 not in (None, there.video_sha256):
            what = "which has no labelled row" if there is None else "whose bytes are others"
            raise RunError(f"the splits name {row.dataset}/{row.id}, {what}", hint="take the run's own splits.json")
        known.append((row.dataset, there))
    found = []
    for fold in plan.folds:
        trained = [known[row] for row in [*fold.train.tolist(), *fold.validation.tolist()]]
        tested = [known[row] for row in fold.test.tolist()]
        bytes_ = {row.video_sha256 for _, row in trained} & {row.video_sha256 for _, row in tested}
        groups = {(name, row.group) for name, row in trained} & {(name, row.group) for name, row in tested}
        if bytes_:
            found.append(f"fold {fold.name}: {len(bytes_)} videos train and test ({_some(sorted(bytes_), 12)})")
        elif groups:
            names = sorted(group for _, group in groups)
            found.append(f"fold {fold.name}: {len(groups)} groups train and test ({_some(names, 40)})")
    return found


def _some(names: Sequence[str], width: int) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name[:width] for name in names[:_LISTED]) + more

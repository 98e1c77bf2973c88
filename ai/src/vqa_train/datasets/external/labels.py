"""Labels of a feature file: ids, scores, deviations, groups and splits, checked row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import Reason
from vqa_train.datasets.external.base import FeatureFile, FeatureFileError
from vqa_train.datasets.label_rows import SPLIT_WORDS


@dataclass(frozen=True, kw_only=True)
class LabelColumns:
    """Which column of the file holds what.

    Attributes:
        id: the video's id; None numbers the rows from 1.
        targets: target -> column of its opinion scores.
        std: target -> column of the standard deviation of the opinions.
        group, split, prompt: optional columns with those meanings (see core.types.Video).
    """

    id: str | None = "video_id"
    targets: Mapping[str, str] = field(default_factory=dict)
    std: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    split: str | None = None
    prompt: str | None = None

    @property
    def texts(self) -> list[str]:
        """Columns that are read as text."""
        return [name for name in (self.id, self.group, self.split, self.prompt) if name is not None]

    @property
    def numbers(self) -> list[str]:
        """Columns that are read as numbers."""
        return list(dict.fromkeys([*self.targets.values(), *self.std.values()]))


@dataclass(frozen=True)
class FileLabels:
    """What a feature file says of its N rows.

    Attributes:
        ids: N distinct ids.
        targets, std: target -> float64 (N,), NaN where missing.
        groups, splits, prompts: N texts, "" where empty; None without such a column. Splits are train, val or test.
    """

    ids: Sequence[str]
    targets: Mapping[str, NDArray[np.float64]]
    std: Mapping[str, NDArray[np.float64]]
    groups: Sequence[str] | None
    splits: Sequence[str] | None
    prompts: Sequence[str] | None

    def __len__(self) -> int:
        return len(self.ids)


def read_labels(file: FeatureFile, columns: LabelColumns, ranges: Mapping[str, tuple[float, float]]) -> FileLabels:
    """The labels in `file`.

    Args:
        ranges: target -> lowest and highest possible score, where known.

    Raises:
        FeatureFileError: a column that is not there; an empty or repeated id, a score that is infinite or out of range,
            a negative deviation, an unknown split (each with its row and column).
    """
    found = file.columns(columns.texts, columns.numbers)
    if columns.id is None:
        ids = [str(row + 1) for row in range(found.rows)]
    else:
        ids = found.texts[columns.id]
        _check_ids(file, columns.id, ids)
    targets = {name: found.numbers[column] for name, column in columns.targets.items()}
    std = {name: found.numbers[column] for name, column in columns.std.items()}
    for name, values in targets.items():
        _refuse(file, columns.targets[name], values, np.isinf(values), "{:g} is no score")
        if name in ranges:
            low, high = ranges[name]
            outside = (values < low) | (values > high)
            _refuse(file, columns.targets[name], values, outside, f"{{:g}} is outside the range {low:g} to {high:g}")
    for name, values in std.items():
        bad = np.isinf(values) | (values < 0)
        _refuse(file, columns.std[name], values, bad, "{:g} is no standard deviation")
    return FileLabels(
        ids,
        targets,
        std,
        found.texts[columns.group] if columns.group is not None else None,
        _splits(file, columns.split, found.texts[columns.split]) if columns.split is not None else None,
        found.texts[columns.prompt] if columns.prompt is not None else None,
    )


def _check_ids(file: FeatureFile, column: str, ids: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if not name:
            raise FeatureFileError(
                f"{file.what} row {row + 1} column {column!r}: the id is empty", reason=Reason.LABEL_MISMATCH
            )
        if first.setdefault(name, row) != row:
            raise FeatureFileError(
                f"{file.what} row {row + 1} column {column!r}: id {name!r} stands already in row {first[name] + 1}",
                hint="one row per video; average or choose one of them first",
                reason=Reason.LABEL_MISMATCH,
            )


def _refuse(file: FeatureFile, column: str, values: NDArray[np.float64], bad: NDArray[np.bool_], message: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise file.wrong(row, column, message.format(values[row]))


def _splits(file: FeatureFile, column: str, texts: Sequence[str]) -> list[str]:
    known = {**SPLIT_WORDS, "": ""}
    lowered = [text.lower() for text in texts]
    for row, text in enumerate(lowered):
        if text not in known:
            raise file.wrong(row, column, f"unknown split {texts[row]!r}", f"known: {', '.join(SPLIT_WORDS)}")
    return [known[text] for text in lowered]

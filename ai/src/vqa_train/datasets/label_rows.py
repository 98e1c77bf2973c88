"""The rows of one label table as the manifest reads them: every cell checked before any video is touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vqa_train.core.errors import LabelError, Reason
from vqa_train.core.types import Reference, Video
from vqa_train.datasets.adapters.base import DatasetAdapter
from vqa_train.datasets.files_table import FileEntry, climbs
from vqa_train.datasets.manifest import DatasetManifest, LabelTable, SplitName

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# One empty mapping for all: 100,000 dictionaries are time for the garbage collector.
_NONE: Mapping[str, Any] = {}


def parse_score(text: str) -> float | None:
    """The finite number that `text` writes, None for anything else ("", "n/a", "nan", "inf", "3,5", "1_0")."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


class LabelRows:
    """One label table, parsed.

    Attributes:
        table: its entry in the manifest.
        ids, hints: per row the id, and where its file is looked for.
        references: per row what names its reference, "" for none; None without such a column.
        scores, stds: target -> per row a number or None.
        labelled: whether the table has a single score.

    Raises:
        LabelError: a missing column, an empty id, a score out of range, an unknown split, a path that leaves the root.
    """

    def __init__(self, manifest: DatasetManifest, adapter: DatasetAdapter, table: LabelTable, data: bytes) -> None:
        columns = manifest.columns
        self.table = table
        self._adapter = adapter
        self.raw = adapter.read_table(table.path, data, wanted_columns(manifest))
        self.id_column = columns.id
        self.ids = self._ids()
        self.hints = self._hints(adapter, columns.path or columns.id)
        self.prompts = self._optional(columns.prompt)
        self.groups = self._optional(columns.group)
        self.references = self._references(columns.reference)
        self.splits = self._splits(columns.split)
        self.attributes = {name: self.raw.column(name) for name in columns.attributes}
        targets = manifest.target_names
        self.scores = {t: s for t in targets if (s := self._scores(manifest, t)) is not None}
        self.stds = {t: s for t, c in columns.std.items() if (s := self._numbers(c, _std_problem)) is not None}
        self.labelled = any(score is not None for scores in self.scores.values() for score in scores)

    def __len__(self) -> int:
        return self.raw.rows

    def where(self, row: int) -> str:
        """The place of a row, for messages."""
        return self.raw.where(row, self.id_column)

    def known(self, row: int) -> dict[str, float]:
        """Target -> score of `row`, without the missing ones."""
        return {target: score for target, scores in self.scores.items() if (score := scores[row]) is not None}

    def reference_hint(self, name: str) -> str:
        """Where the file of a reference is looked for that is no record's id."""
        return self._adapter.file_hint(self.table, name)

    def video(
        self, row: int, entry: FileEntry, labels: Mapping[str, float], reference: Reference | None = None
    ) -> Video:
        """The record of `row`, whose file is `entry`."""
        return Video(
            id=self.ids[row],
            path=entry.path,
            sha256=entry.sha256,
            bytes=entry.bytes,
            prompt=(self.prompts[row] or None) if self.prompts else None,
            labels=labels,
            label_std={t: std for t, stds in self.stds.items() if (std := stds[row]) is not None}
            if self.stds
            else _NONE,
            split=self.splits[row] if self.splits else self.table.split,
            group=(self.groups[row] or None) if self.groups else None,
            reference=reference,
            attributes={name: values[row] for name, values in self.attributes.items()} if self.attributes else _NONE,
        )

    def _ids(self) -> Sequence[str]:
        ids = self.raw.column(self.id_column)
        if "" in ids:
            raise LabelError(f"{self.where(ids.index(''))}: the id is empty", reason=Reason.LABEL_MISMATCH)
        return ids

    def _hints(self, adapter: DatasetAdapter, column: str) -> list[str]:
        return [adapter.file_hint(self.table, path) for path in self._inside(column)]

    def _inside(self, column: str) -> Sequence[str]:
        """A column of paths, none of which leaves the data root."""
        paths = self.raw.column(column)
        for row, path in enumerate(paths):
            if climbs(path):
                raise LabelError(
                    f"{self.raw.where(row, column)}: path {path!r} leaves the data root",
                    hint="paths are relative and stay inside the data root",
                    reason=Reason.PATH_ESCAPE,
                )
        return paths

    def _references(self, column: str | None) -> Sequence[str] | None:
        return self._inside(column) if column else None

    def _optional(self, column: str | None) -> Sequence[str] | None:
        return self.raw.column(column) if column else None

    def _splits(self, column: str | None) -> list[SplitName | None] | None:
        if column is None:
            return None
        texts = [text.lower() for text in self.raw.column(column)]
        unknown = {*texts} - {*SPLIT_WORDS, ""}
        if unknown:
            row = next(row for row, text in enumerate(texts) if text in unknown)
            raise LabelError(
                f"{self.raw.where(row, column)}: unknown split {texts[row]!r}",
                hint=f"known: {', '.join(SPLIT_WORDS)}",
                reason=Reason.LABEL_MISMATCH,
            )
        return [SPLIT_WORDS.get(text) for text in texts]

    def _scores(self, manifest: DatasetManifest, target: str) -> list[float | None] | None:
        mos = manifest.range_of(target)

        def problem(value: float) -> str | None:
            inside = mos.min <= value <= mos.max
            return None if inside else f"{value:g} is outside the MOS range {mos.min:g} to {mos.max:g} of {target!r}"

        return self._numbers(manifest.column_of(target), problem)

    def _numbers(self, column: str, problem: Callable[[float], str | None]) -> list[float | None] | None:
        """A column of numbers; None where it is absent from a table that is declared unlabelled."""
        if not self.table.labelled and column not in self.raw.columns:
            return None
        values = [parse_score(text) for text in self.raw.column(column)]
        for row, value in enumerate(values):
            found = None if value is None else problem(value)
            if found:
                raise LabelError(f"{self.raw.where(row, column)}: {found}", reason=Reason.LABEL_MISMATCH)
        return values


def wanted_columns(manifest: DatasetManifest) -> set[str]:
    """Every column that the manifest names."""
    c = manifest.columns
    single = (c.id, c.path, c.prompt, c.split, c.group, c.reference)
    targets = [manifest.column_of(target) for target in manifest.target_names]
    return {name for name in single if name} | {*targets, *c.std.values(), *c.attributes}


def _std_problem(value: float) -> str | None:
    return None if value >= 0 else f"the standard deviation {value:g} is negative"

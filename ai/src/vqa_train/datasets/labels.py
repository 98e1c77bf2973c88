"""Joins label tables to files: scores are parsed and masked, and everything that does not fit is counted and named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from vqa_train.core.types import Reference, Video
from vqa_train.datasets.adapters.base import DatasetAdapter
from vqa_train.datasets.files_table import FileEntry, FileIndex
from vqa_train.datasets.label_rows import LabelRows
from vqa_train.datasets.manifest import DatasetManifest, LabelTable
from vqa_train.datasets.splits import (
    bytes_across_splits,
    groups_across_splits,
    references_across_splits,
    split_by_group,
)

MissingMos = Literal["mask", "drop", "neutral"]
MISSING_MOS: tuple[MissingMos, ...] = get_args(MissingMos)
REPORT_SCHEMA = "vqa-train/label-report/1"

# The lists of a report that name what does not fit, and what to say of them.
FINDINGS = {
    "duplicate_ids": "ids that occur again (the first row counts)",
    "ids_without_file": "ids without a file (left out)",
    "ambiguous_ids": "ids that name several files (left out)",
    "references_without_file": "references that are neither an id nor a file (their rows have none)",
    "ambiguous_references": "references that name several files (their rows have none)",
    "files_without_id": "files that no row names",
    "missing_files": "listed files that are not there",
    "same_bytes_across_splits": "files with the same bytes in two splits",
    "groups_across_splits": "groups in two splits",
    "references_across_splits": "references whose videos are in two splits",
}


@dataclass
class LabelReport:
    """What the join of labels and files found.

    Attributes:
        policy: what was done about a missing MOS.
        tables: label table -> rows.
        videos: videos that came out.
        missing_mos: target -> scores that are empty, not numbers or not finite, in tables that are labelled.
        neutral: target -> the score filled in, for the policy "neutral".
        dropped: ids left out, for the policy "drop".
        unlabelled_tables: tables without a single score; no policy applies to their videos.
        duplicate_ids: {id, at, first}: the row at `at` was left out.
        ids_without_file: ids whose file is not in the files table; left out.
        ambiguous_ids: {id, files}: ids that name more than one file; left out.
        references: distinct files that rows name as their reference.
        references_without_file: {id, videos}: references that are neither a row's id nor a file, and how many rows name
            them; those rows have no reference.
        ambiguous_references: {id, files, videos}: references that name more than one file; likewise.
        files_without_id: files that no row names, as its video or as its reference.
        missing_files: files that the table lists and the data root lacks; their videos are kept.
        same_bytes_across_splits: {sha256, ids, splits}.
        groups_across_splits: {group, splits}.
        references_across_splits: {reference, splits}: what was learned of a reference is known of all its videos.
    """

    policy: MissingMos = "mask"
    tables: dict[str, int] = field(default_factory=dict)
    videos: int = 0
    missing_mos: dict[str, int] = field(default_factory=dict)
    neutral: dict[str, float] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    unlabelled_tables: list[str] = field(default_factory=list)
    duplicate_ids: list[dict[str, str]] = field(default_factory=list)
    ids_without_file: list[str] = field(default_factory=list)
    ambiguous_ids: list[dict[str, Any]] = field(default_factory=list)
    references: int = 0
    references_without_file: list[dict[str, Any]] = field(default_factory=list)
    ambiguous_references: list[dict[str, Any]] = field(default_factory=list)
    files_without_id: list[str] = field(default_factory=list)
    missing_files: list[str] = field(default_factory=list)
    same_bytes_across_splits: list[dict[str, Any]] = field(default_factory=list)
    groups_across_splits: list[dict[str, Any]] = field(default_factory=list)
    references_across_splits: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema."""
        return {"schema": REPORT_SCHEMA, **{f.name: getattr(self, f.name) for f in fields(self)}}


def read_labels(
    manifest: DatasetManifest, adapter: DatasetAdapter, tables: Iterable[tuple[LabelTable, bytes]]
) -> list[LabelRows]:
    """Every label table, parsed and checked cell by cell.

    Raises:
        LabelError: as LabelRows.
    """
    return [LabelRows(manifest, adapter, table, data) for table, data in tables]


def join_labels(
    manifest: DatasetManifest,
    tables: Sequence[LabelRows],
    entries: Sequence[FileEntry],
    missing_mos: MissingMos = "mask",
) -> tuple[tuple[Video, ...], LabelReport]:
    """Videos in the order of the label tables, split as the manifest says, and the report without `missing_files`.

    Of rows with one id the first counts.
    """
    report = LabelReport(policy=missing_mos, missing_mos=dict.fromkeys(manifest.target_names, 0))
    if missing_mos == "neutral":
        report.neutral = {target: manifest.range_of(target).middle for target in manifest.target_names}
    index = FileIndex(entries)
    references = _references(tables, index, report)
    seen: dict[str, tuple[LabelRows, int]] = {}
    used = {reference.path for reference in references.values()}
    videos: list[Video] = []
    for rows in tables:
        report.tables[rows.table.path] = len(rows)
        if not rows.labelled:
            report.unlabelled_tables.append(rows.table.path)
        for row, (video_id, hint) in enumerate(zip(rows.ids, rows.hints, strict=True)):
            found = index.find(hint)
            for entry in found:
                used.add(entry.path)
            first, first_row = seen.setdefault(video_id, (rows, row))
            if (first, first_row) != (rows, row):
                again = {"id": video_id, "at": rows.where(row), "first": first.where(first_row)}
                report.duplicate_ids.append(again)
            elif not found:
                report.ids_without_file.append(video_id)
            elif len(found) > 1:
                report.ambiguous_ids.append({"id": video_id, "files": [entry.path for entry in found]})
            else:
                labels = _labels(rows, row, report)
                if labels is None:
                    report.dropped.append(video_id)
                else:
                    name = rows.references[row] if rows.references else ""
                    videos.append(rows.video(row, found[0], labels, references.get(name)))
    report.videos = len(videos)
    report.files_without_id = sorted(entry.path for entry in entries if entry.path not in used)
    split = _split(manifest, videos)
    report.groups_across_splits = groups_across_splits(split)
    report.same_bytes_across_splits = bytes_across_splits(split)
    report.references_across_splits = references_across_splits(split)
    return split, report


def _references(tables: Sequence[LabelRows], index: FileIndex, report: LabelReport) -> Mapping[str, Reference]:
    """Name -> the reference that it means: the row with that id, else the file with that path.

    A row that a policy leaves out is still a reference. Names that mean no file, or several, go into the report.
    """
    counts: Counter[str] = Counter()
    first: dict[str, LabelRows] = {}
    for rows in tables:
        for name in filter(None, rows.references or ()):
            counts[name] += 1
            first.setdefault(name, rows)
    hints: dict[str, str] = {}
    for rows in tables if counts else ():
        for video_id, hint in zip(rows.ids, rows.hints, strict=True):
            hints.setdefault(video_id, hint)
    found = {}
    for name, rows in first.items():
        files = index.find(hints[name]) if name in hints else index.find(rows.reference_hint(name)) or index.find(name)
        if len(files) == 1:
            (entry,) = files
            found[name] = Reference(id=name, path=entry.path, sha256=entry.sha256, bytes=entry.bytes)
        elif files:
            paths = [entry.path for entry in files]
            report.ambiguous_references.append({"id": name, "files": paths, "videos": counts[name]})
        else:
            report.references_without_file.append({"id": name, "videos": counts[name]})
    report.references = len({reference.path for reference in found.values()})
    return found


def _split(manifest: DatasetManifest, videos: Sequence[Video]) -> tuple[Video, ...]:
    if manifest.splits is None:
        return tuple(videos)
    return split_by_group(videos, manifest.splits.fractions, manifest.splits.salt)


def _labels(rows: LabelRows, row: int, report: LabelReport) -> dict[str, float] | None:
    """The scores of `row` under the report's policy, which counts the missing; None when the row is dropped."""
    known = rows.known(row)
    if not rows.labelled or len(known) == len(rows.scores):
        return known
    for target in rows.scores:
        if target not in known:
            report.missing_mos[target] += 1
    if report.policy == "drop":
        return None
    return {target: known.get(target, report.neutral[target]) for target in rows.scores} if report.neutral else known

"""Compares a dataset's files with its manifest by reading every byte again: missing, changed and unlisted files."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.core.locations import is_remote
from vqa_train.core.progress import Advance
from vqa_train.core.remote import find
from vqa_train.datasets.files_table import FileEntry, read_files_table
from vqa_train.datasets.hash_files import hash_files
from vqa_train.datasets.load import has_videos
from vqa_train.datasets.manifest import DatasetManifest
from vqa_train.datasets.walk import VIDEO_EXTENSIONS, FileFailure, list_videos

REPORT_SCHEMA = "vqa-train/dataset-verify/1"


@dataclass
class VerifyReport:
    """What `verify` found; paths are relative to the data root.

    Attributes:
        checked: files that the manifest lists, label tables included.
        missing: listed and not there.
        changed: {path, expected: {sha256, bytes}, found: {sha256, bytes}}.
        unlisted: video files that are there and not listed.
        unreadable: listed or found, and not readable, or a link that leaves the data root: {path, reason, message}.
    """

    name: str
    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    unreadable: list[FileFailure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the folder is exactly what the manifest says."""
        return not (self.missing or self.changed or self.unlisted or self.unreadable)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema."""
        return {
            "schema": REPORT_SCHEMA,
            "name": self.name,
            "ok": self.ok,
            "checked": self.checked,
            "missing": self.missing,
            "changed": self.changed,
            "unlisted": self.unlisted,
            "unreadable": [failure.to_json() for failure in self.unreadable],
        }


def verify(
    manifest: DatasetManifest, folder: Path, root: Path, *, workers: int = 4, advance: Advance | None = None
) -> VerifyReport:
    """Read every listed file under `root` again, without the hash cache, and look for files that are not listed.

    Args:
        manifest: of the dataset.
        folder: where the manifest lies, with its files table.
        root: data root.
        workers: hashing threads.
        advance: called as files are done.

    Raises:
        ManifestError: the manifest lists no files, the files table is damaged, or a folder cannot be read.
    """
    if manifest.files is None:
        raise ManifestError(
            f"dataset {manifest.name!r} lists no files yet", hint="write them with `vqa-train datasets scan`"
        )
    entries = read_files_table(manifest.files, folder)
    # Where rows have no videos, the label table is all there is to read.
    expected = {entry.path: entry for entry in entries} if has_videos(manifest) else {}
    # A manifest with files has the hash of each label table too.
    for table in manifest.labels:
        expected[table.path] = FileEntry(table.path, table.sha256 or "", table.bytes or 0)
    report = VerifyReport(name=manifest.name, checked=len(expected))
    listing = find(root) if is_remote(root) else None
    hashed = hash_files(root, sorted(expected), cache=None, workers=workers, advance=advance, listing=listing)
    for found in hashed.entries:
        listed = expected[found.path]
        if (found.sha256, found.bytes) != (listed.sha256, listed.bytes):
            pair = {"expected": listed, "found": found}
            sides = {side: {"sha256": entry.sha256, "bytes": entry.bytes} for side, entry in pair.items()}
            report.changed.append({"path": found.path, **sides})
    report.missing = [failure.path for failure in hashed.failed if failure.reason == Reason.MISSING_FILE]
    report.unreadable = [failure for failure in hashed.failed if failure.reason != Reason.MISSING_FILE]
    # Files of a kind that was scanned with --extension count as videos here too.
    extensions = VIDEO_EXTENSIONS | {posixpath.splitext(path)[1].lower() for path in expected} - {
        "",
        ".csv",
        ".parquet",
    }
    walk = list_videos(root, extensions, listing)
    report.unlisted = [path for path in walk.paths if path not in expected]
    known = {failure.path for failure in hashed.failed}
    report.unreadable += [f for f in walk.failed if f.path not in known]
    return report

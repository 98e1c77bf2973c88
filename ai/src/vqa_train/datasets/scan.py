"""Makes a manifest from a folder of videos and its label tables, with the hash of every file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import ManifestError, Reason
from vqa_train.core.files import is_dir
from vqa_train.core.hashcache import HashCache
from vqa_train.core.locations import is_remote
from vqa_train.core.progress import Advance, progress
from vqa_train.core.remote import find
from vqa_train.datasets.draft import ScanConfig, draft_manifest
from vqa_train.datasets.files_table import write_files_table
from vqa_train.datasets.hash_files import hash_files
from vqa_train.datasets.labels import LabelReport, join_labels, read_labels
from vqa_train.datasets.manifest import DatasetManifest, read_manifest, write_manifest
from vqa_train.datasets.walk import VIDEO_EXTENSIONS, FileFailure, list_videos

REPORT_SCHEMA = "vqa-train/dataset-scan/1"


@dataclass
class ScanReport:
    """What `scan` found.

    Attributes:
        manifest: where the manifest was written.
        files_table: where the files table was written.
        license: as the manifest says; "unknown" where nobody said.
        files, bytes_total: what it lists.
        read: files that were read in full; the hashes of the others were known from their stat.
        failed: files that could not be read and links that leave the root; they are not in the table.
        labels: the join of labels and files, as loading the manifest will find it.
    """

    manifest: Path
    files_table: Path
    license: str
    files: int
    bytes_total: int
    read: int
    labels: LabelReport
    failed: list[FileFailure] = field(default_factory=list)

    @property
    def some_failed(self) -> bool:
        """Whether an input is missing from the manifest: a file that failed, a label row without a video, or one whose
        reference names no file."""
        labels = self.labels
        references = labels.references_without_file or labels.ambiguous_references
        ids = labels.ids_without_file or labels.ambiguous_ids or labels.duplicate_ids
        return bool(self.failed or ids or references)

    def to_json(self) -> dict[str, Any]:
        """JSON form, with its schema."""
        return {
            "schema": REPORT_SCHEMA,
            "manifest": self.manifest.as_posix(),
            "files_table": self.files_table.as_posix(),
            "license": self.license,
            "files": self.files,
            "bytes_total": self.bytes_total,
            "read": self.read,
            "failed": [failure.to_json() for failure in self.failed],
            "labels": self.labels.to_json(),
        }


def scan(
    config: ScanConfig, *, cache: HashCache | None = None, workers: int = 4, advance: Advance | None = None
) -> tuple[DatasetManifest, ScanReport]:
    """Write `config.output` and its files table; the labels are checked before the first byte of a video is read.

    A manifest that `config.output` already holds is brought up to date: what `config` leaves open is kept.

    Args:
        config: what to scan.
        cache: of file hashes; None for the user's own.
        workers: hashing threads.
        advance: called as files are done; None shows a progress bar.

    Raises:
        UsageError: something needed was not given.
        ConfigError, ManifestError: an older manifest or the folder is not as it must be.
        LabelError: the label tables break the manifest's rules.
    """
    if not is_dir(config.root):
        raise ManifestError(f"{str(config.root)!r} is not a folder", reason=Reason.MISSING_FILE)
    existing = read_manifest(config.output)[0] if config.output.exists() else None
    manifest, adapter, tables = draft_manifest(config, existing)
    rows = read_labels(manifest, adapter, tables)
    listing = find(config.root) if is_remote(config.root) else None
    walk = list_videos(config.root, config.extensions or VIDEO_EXTENSIONS, listing)
    with progress("hashing", len(walk.paths)) as bar:
        hashed = hash_files(
            config.root,
            walk.paths,
            cache=cache or HashCache(),
            workers=workers,
            advance=advance or bar,
            listing=listing,
        )
    _, labels = join_labels(manifest, rows, hashed.entries)
    table = config.output.parent / f"{config.output.stem}.files.csv"
    manifest = manifest.model_copy(update={"files": write_files_table(hashed.entries, table)})
    write_manifest(manifest, config.output)
    report = ScanReport(
        manifest=config.output,
        files_table=table,
        license=manifest.license,
        files=len(hashed.entries),
        bytes_total=sum(entry.bytes for entry in hashed.entries),
        read=hashed.read,
        labels=labels,
        failed=walk.failed + hashed.failed,
    )
    return manifest, report

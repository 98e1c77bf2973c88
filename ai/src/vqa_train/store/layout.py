"""Names of the files and folders of a store, and the schema versions of its files.

A version is MAJOR or MAJOR.MINOR; an older minor opens, a newer one is refused (core.versions). How to bump one: change
the number here, where records.py takes it from; a minor when a field with a default was added, a major when an older
reader would misread the file. For a major, teach the reader the old number too, or make it refuse with a message that
names the version to install. Keep a store written by the old version under tests/store/data with a test that reads it;
write the change into docs/formats/store.md and CHANGELOG.md.
"""

from __future__ import annotations

import re
from pathlib import Path

from vqa_train.store import filesystem

STORE_SCHEMA = "vqa-train/store/1"
SET_SCHEMA = "vqa-train/feature-set/1"
SHARD_SCHEMA = "vqa-train/shard/1"
COMMIT_SCHEMA = "vqa-train/shard-commit/1"
SNAPSHOT_SCHEMA = "vqa-train/store-snapshot/1"
FAILURE_SCHEMA = "vqa-train/failure/1"
TAG_SCHEMA = "vqa-train/store-tag/1"
QUARANTINE_SCHEMA = "vqa-train/store-quarantine/1"

STORE_FILE = "store.json"
SPEC_FILE = "spec.json"
MANIFEST_FILE = "manifest.json"

SHARDS = "shards"
FAILURES = "failures"
SNAPSHOTS = "snapshots"
RUNS = "runs"
RETIRED = "retired"
"""Commits whose rows a larger shard holds; their shards stay in shards/ until gc, and as long as a tag lists them."""
TAGS = "tags"
QUARANTINE = "quarantine"
"""Damaged files that repair moved aside, and a log of why; not part of the store, never read, never deleted by gc."""
CACHE = "cache"
"""Derived files, safe to delete; everything below it is fair game for `gc`."""

DATASETS = "datasets"
"""In the store's root: labels that were imported together with features, as ordinary dataset manifests."""
STATUS = "status"
"""In the store's root: what running extractions say of themselves; not part of the store's content."""
STATUS_SCHEMA = "vqa-train/run-status/1"
MATRIX_SCHEMA = "vqa-train/matrix/1"

KEY_COLUMNS = {"video": "video_sha256", "text": "text_sha256"}
VIEW_COLUMN = "view"

BACKBONE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SET_FOLDER = re.compile(rf"{BACKBONE_NAME.pattern}@[0-9a-f]{{12}}")
KEY = re.compile(r"[0-9a-f]{64}")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
TAG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OUTPUT_NAME = re.compile(r"[a-z][a-z0-9_]*")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""What core.files.atomic_write calls a file that is not yet whole."""


def set_folders(root: Path) -> list[Path]:
    """Folders under `root` that are named like a feature set, sorted; links are not followed."""
    folders = [root / name for name in filesystem.names(root) if SET_FOLDER.fullmatch(name)]
    return [folder for folder in folders if filesystem.is_dir(folder) and not filesystem.is_link(folder)]

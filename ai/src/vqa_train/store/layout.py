"""Names of the files and folders of a store, and the schema versions of its files.

How to bump a version: change the number here and in the `Literal` of its model in records.py; teach the reader the
old number too, or make it refuse with a message that names the version to install; keep a store written by the old
version under tests/store/data with a test that reads it; write the change into docs/formats/store.md and CHANGELOG.md.
"""

from __future__ import annotations

import re
from pathlib import Path

STORE_SCHEMA = "vqa-train/store/1"
SET_SCHEMA = "vqa-train/feature-set/1"
SHARD_SCHEMA = "vqa-train/shard/1"
COMMIT_SCHEMA = "vqa-train/shard-commit/1"
SNAPSHOT_SCHEMA = "vqa-train/store-snapshot/1"
FAILURE_SCHEMA = "vqa-train/failure/1"

STORE_FILE = "store.json"
SPEC_FILE = "spec.json"
MANIFEST_FILE = "manifest.json"

SHARDS = "shards"
FAILURES = "failures"
SNAPSHOTS = "snapshots"
RUNS = "runs"
CACHE = "cache"
"""Derived files, safe to delete; everything below it is fair game for `gc`."""

DATASETS = "datasets"
"""In the store's root: labels that were imported together with features, as ordinary dataset manifests."""
MATRIX_SCHEMA = "vqa-train/matrix/1"

KEY_COLUMNS = {"video": "video_sha256", "text": "text_sha256"}
VIEW_COLUMN = "view"

BACKBONE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SET_FOLDER = re.compile(rf"{BACKBONE_NAME.pattern}@[0-9a-f]{{12}}")
KEY = re.compile(r"[0-9a-f]{64}")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
OUTPUT_NAME = re.compile(r"[a-z][a-z0-9_]*")
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
"""What core.files.atomic_write calls a file that is not yet whole."""


def set_folders(root: Path) -> list[Path]:
    """Folders under `root` that are named like a feature set, sorted; links are not followed."""
    return sorted(p for p in root.iterdir() if SET_FOLDER.fullmatch(p.name) and p.is_dir() and not p.is_symlink())

"""What `vqa-train store compact` does and reports: small shards merged into larger ones, set by set; as JSON values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqa_train.core.files import display_path
from vqa_train.core.progress import progress
from vqa_train.store.compact import DEFAULT_TARGET_ROWS, plan
from vqa_train.store.store import FeatureStore

COMPACT_SCHEMA = "vqa-train/store-compact/1"


def compact(
    root: Path, selector: str | None = None, *, target_rows: int = DEFAULT_TARGET_ROWS, dry_run: bool = False
) -> dict[str, Any]:
    """Merge the small shards of one feature set of the store at `root`, or of all.

    Raises:
        StoreError: not a store, no such set, a damaged shard or commit, or a failing disk.
    """
    store = FeatureStore.open(root)
    chosen = [store.find(selector)] if selector is not None else store.sets()
    report: dict[str, Any] = {
        "schema": COMPACT_SCHEMA,
        "store": display_path(root),
        "dry_run": dry_run,
        "target_rows": target_rows,
        "sets": [],
    }
    for features in chosen:
        with progress(f"compact {features.name}", len(plan(features.index(), target_rows))) as advance:
            done = features.compact(target_rows=target_rows, dry_run=dry_run, advance=advance)
        report["sets"].append({"name": features.name, **vars(done)})
    return report

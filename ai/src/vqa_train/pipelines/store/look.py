"""What `vqa-train store` reports of a feature store: contents, damage, failures, leftovers; as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import Reason
from vqa_train.core.files import display_path
from vqa_train.store import gc as gc_verb
from vqa_train.store import verify as verify_verb
from vqa_train.store.feature_set import FeatureSet
from vqa_train.store.snapshot import current
from vqa_train.store.store import FeatureStore

if TYPE_CHECKING:
    from vqa_train.pipelines.store.deep import DeepConfig

INFO_SCHEMA = "vqa-train/store-info/1"
VERIFY_SCHEMA = "vqa-train/store-verify/1"
FAILURES_SCHEMA = "vqa-train/store-failures/1"
GC_SCHEMA = "vqa-train/store-gc/1"


def info(root: Path) -> dict[str, Any]:
    """What the store at `root` holds, per feature set.

    Raises:
        StoreError: not a store, or a damaged commit, failures file or manifest.
    """
    return {
        "schema": INFO_SCHEMA,
        "store": display_path(root),
        "sets": [_describe(feature_set) for feature_set in FeatureStore.open(root).sets()],
    }


def _describe(feature_set: FeatureSet) -> dict[str, Any]:
    spec, commits = feature_set.spec, feature_set.commits()
    snapshot = current(feature_set.folder)
    listed = {shard.shard for shard in snapshot[1].shards} if snapshot is not None else set()
    rows = {row for commit in commits for row in zip(commit.keys, commit.views, strict=True)}
    failed = Counter(failure.reason.value for failure in feature_set.failures())
    return {
        "name": feature_set.name,
        "fingerprint": feature_set.fingerprint,
        "modality": spec.modality,
        "license": feature_set.license,
        "random_weights": spec.random_seed is not None,
        "imported": spec.preprocessing["imported"] if spec.imported else None,
        "finite_rows": {
            name: sum(commit.statistics[name].n for commit in commits if name in commit.statistics)
            for name in (output.name for output in spec.outputs if len(output.shape) == 1)
        },
        "keys": len(feature_set.known_keys()),
        "rows": len(rows),
        "duplicate_rows": sum(commit.rows for commit in commits) - len(rows),
        "shards": len(commits),
        "bytes": sum(commit.bytes for commit in commits),
        "outputs": {output.name: list(output.shape) for output in spec.outputs},
        "profiles": [{"profile": profile, "rows": count} for profile, count in feature_set.profiles()],
        "failures": dict(sorted(failed.items())),
        "snapshot": snapshot[0] if snapshot is not None else None,
        "shards_since_snapshot": sum(commit.shard not in listed for commit in commits),
    }


def verify(
    root: Path,
    deep: DeepConfig | None = None,
    *,
    content: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Re-hash every file of the store at `root`; `problems` is empty when all is as written.

    Args:
        deep: compare the content and extract a sample again too, when every file is whole.
        content: compare every row with its commit too.

    Raises:
        StoreError: there is no store.
        UsageError: with `deep`, nothing could be extracted again.
    """
    report = verify_verb.verify(root, content=content or deep is not None)
    again = []
    if deep is not None and report.ok:
        from vqa_train.pipelines.store.deep import verify_deep

        again = verify_deep(root, deep, log=log)
        report.problems += [f"{each.name}: {problem}" for each in again for problem in each.problems]
    return {
        "schema": VERIFY_SCHEMA,
        "store": display_path(root),
        "ok": report.ok,
        "deep": [each.to_json() for each in again],
        "sets": report.sets,
        "shards": report.shards,
        "rows": report.rows,
        "bytes": report.bytes,
        "problems": report.problems,
    }


def failures(root: Path, reason: Reason | None = None) -> dict[str, Any]:
    """Inputs that have no features, per feature set, of one reason or of all.

    Raises:
        StoreError: not a store, or a damaged failures file.
    """
    return {
        "schema": FAILURES_SCHEMA,
        "store": display_path(root),
        "failures": [
            {"set": feature_set.name, **vars(failure), "reason": failure.reason.value}
            for feature_set in FeatureStore.open(root).sets()
            for failure in feature_set.failures()
            if reason is None or failure.reason == reason
        ],
    }


def gc(root: Path, *, delete: bool = False, grace_s: float = gc_verb.DEFAULT_GRACE_S) -> dict[str, Any]:
    """Leftovers of crashes and derived caches; only listed unless `delete`.

    Raises:
        StoreError: not a store, or a file cannot be deleted.
    """
    found = gc_verb.gc(root, dry_run=not delete, grace_s=grace_s)
    return {
        "schema": GC_SCHEMA,
        "store": display_path(root),
        "deleted": delete,
        "grace_s": grace_s,
        "bytes": sum(leftover.bytes for leftover in found),
        "files": [{"path": display_path(f.path), "bytes": f.bytes, "why": f.why} for f in found],
    }

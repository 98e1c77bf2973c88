"""What `vqa-train store repair|diff|merge|tag|tags|untag` do and report, as JSON values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqa_train.core.errors import StoreError
from vqa_train.core.files import display_path
from vqa_train.core.hashcache import HashCache
from vqa_train.core.plugins import did_you_mean
from vqa_train.store import filesystem
from vqa_train.store import merge as merge_verb
from vqa_train.store import repair as repair_verb
from vqa_train.store import tags as tags_verb
from vqa_train.store.diff import SetDiff, Side, diff_sets
from vqa_train.store.feature_set import FeatureSet
from vqa_train.store.layout import RETIRED, SHARDS, TAGS
from vqa_train.store.store import FeatureStore

REPAIR_SCHEMA = "vqa-train/store-repair/1"
DIFF_SCHEMA = "vqa-train/store-diff/1"
MERGE_SCHEMA = "vqa-train/store-merge/1"
TAGS_SCHEMA = "vqa-train/store-tags/1"
LISTED = 1000
"""Keys that a diff names per list; all are counted."""


def repair(root: Path, *, dry_run: bool = False) -> dict[str, Any]:
    """Move what is damaged aside; `left` is empty when the store is whole again.

    Raises:
        StoreError: no store, a newer version, or a failing disk.
    """
    report = repair_verb.repair(root, dry_run=dry_run)
    return {
        "schema": REPAIR_SCHEMA,
        "store": display_path(root),
        "dry_run": dry_run,
        "ok": not report.left,
        "moved": [
            {"set": moved.folder.name, "files": list(moved.places), "why": moved.why, "keys": list(moved.keys)}
            for moved in report.moved
        ],
        "mended": report.mended,
        "left": report.left,
    }


def diff(a: str, b: str, selector: str | None = None) -> dict[str, Any]:
    """What tells two stores apart, or two states of one: `STORE` or `STORE#TAG`.

    Args:
        selector: compare this feature set alone.

    Raises:
        StoreError: not a store, no such set or tag, or a damaged file.
    """
    left, right = _sides(a, selector), _sides(b, selector)
    hashes = HashCache()
    sets: list[dict[str, Any]] = []
    for name in sorted(left.keys() & right.keys()):
        (one, side_a), (other, side_b) = left[name], right[name]
        if one.fingerprint != other.fingerprint:
            raise StoreError(
                f"feature set {name} has two specs: {one.fingerprint} in {a!r}, {other.fingerprint} in {b!r}"
            )
        found = diff_sets(one.spec, side_a, side_b, hashes)
        sets.append({"name": name, "licenses": [one.license, other.license], **_diff_json(found)})
    only_a, only_b = sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
    same = not only_a and not only_b and all(s["same"] and len(set(s["licenses"])) == 1 for s in sets)
    return {"schema": DIFF_SCHEMA, "a": a, "b": b, "same": same, "only_a": only_a, "only_b": only_b, "sets": sets}


def _diff_json(found: SetDiff) -> dict[str, Any]:
    lists = {"only_a": found.only_a, "only_b": found.only_b, "differing": found.differing}
    return {
        "same": found.same,
        "equal_rows": found.equal,
        "counts": {name: len(rows) for name, rows in lists.items()},
        **{name: [list(row) for row in rows[:LISTED]] for name, rows in lists.items()},
        "largest": {name: gap if math.isfinite(gap) else None for name, gap in found.largest.items()},
        "facts_only": found.facts,
    }


def _sides(text: str, selector: str | None) -> dict[str, tuple[FeatureSet, Side]]:
    """Feature sets by name, as they are or as a tag names them."""
    from vqa_train.core.locations import location

    place, hash_, name = text.partition("#")
    store = FeatureStore.open(location(place))
    sets = [store.find(selector)] if selector is not None else store.sets()
    if not hash_:
        return {each.name: (each, Side(each.folder, each.commits())) for each in sets}
    found = {}
    for each in sets:
        for tag in tags_verb.tags(each.folder):
            if tag.record.name == name:
                found[each.name] = (each, Side(each.folder, list(tags_verb.commits_at(each.folder, tag.snapshot))))
    if not found:
        known = sorted({tag.record.name for each in sets for tag in tags_verb.tags(each.folder)})
        raise StoreError(f"store {place!r} has no tag {name!r}", hint=did_you_mean(name, known))
    return found


def merge(sources: Sequence[Path], target: Path) -> dict[str, Any]:
    """Copy what `sources` hold and `target` lacks.

    Raises:
        StoreError: as `store.merge.merge`.
    """
    return {
        "schema": MERGE_SCHEMA,
        "sources": [display_path(source) for source in sources],
        "store": display_path(target),
        "sets": [vars(done) for done in merge_verb.merge(sources, target)],
    }


def tag(root: Path, name: str, selector: str | None = None, *, move: bool = False) -> dict[str, Any]:
    """Snapshot a feature set (all of them without `selector`) as it is and name that.

    Raises:
        StoreError: no store, set or name; a tag that is there already; a failing disk.
    """
    tags_verb.check_tag_name(name)
    sets = _chosen(root, selector)
    if not sets:
        raise StoreError(f"store {str(root)!r} has no feature sets to tag")
    for feature_set in sets:
        tags_verb.tag(feature_set.folder, name, feature_set.snapshot()[0], move=move)
    return {**tags(root, selector), "tag": name}


def untag(root: Path, name: str, selector: str | None = None) -> dict[str, Any]:
    """Remove a tag from a feature set, or from all that have it.

    Raises:
        StoreError: no store or set, or no tag of that name.
    """
    sets = _chosen(root, selector)
    having = [s for s in sets if f"{name}.json" in filesystem.names(s.folder / TAGS, ".json")]
    for feature_set in having or sets[:1]:
        tags_verb.untag(feature_set.folder, name)
    return {**tags(root, selector), "tag": name}


def tags(root: Path, selector: str | None = None) -> dict[str, Any]:
    """Every tag with its snapshot, and how many of its shards larger ones have replaced since.

    Raises:
        StoreError: no store or set, or a damaged tag.
    """
    listed = []
    for feature_set in _chosen(root, selector):
        folder = feature_set.folder
        committed, retired = (set(filesystem.names(folder / place, ".json")) for place in (SHARDS, RETIRED))
        for found in tags_verb.tags(folder):
            shards = {f"{shard.shard}.json" for shard in found.snapshot.shards}
            listed.append(
                {
                    "set": feature_set.name,
                    "tag": found.record.name,
                    "snapshot": found.record.snapshot,
                    "created": found.record.created,
                    "shards": len(shards),
                    "rows": found.snapshot.rows,
                    "retired_shards": len(shards & retired - committed),
                    "missing_shards": len(shards - retired - committed),
                }
            )
    return {"schema": TAGS_SCHEMA, "store": display_path(root), "tags": listed}


def _chosen(root: Path, selector: str | None) -> list[FeatureSet]:
    store = FeatureStore.open(root)
    return [store.find(selector)] if selector is not None else store.sets()

"""The feature store: sets, the shards that hold the rows of the fit, the runs that wrote them, and what is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.errors import StoreError
from vqa_train.core.files import display_path
from vqa_train.pipelines.fit.run_features import RowsRead, rows_in
from vqa_train.pipelines.lineage.graph import Lineage, Node, Status
from vqa_train.pipelines.lineage.model import run_node
from vqa_train.pipelines.lineage.run import TracedRun
from vqa_train.registry.sidecar import ModelInput, ModelSidecar
from vqa_train.store import filesystem
from vqa_train.store.commit_rows import ShardEntry
from vqa_train.store.index import RowIndex, hex_keys, key_bytes
from vqa_train.store.layout import RUNS, SHARDS
from vqa_train.store.seal import check_seal
from vqa_train.store.store import FeatureSet, FeatureStore
from vqa_train.store.tags import tags

_WHICH = "which of them the fit read is in its run folder (--run)"


def trace_store(lineage: Lineage, sidecar: ModelSidecar, run: TracedRun, root: Path) -> None:
    """Look into the store for each feature set of the model.

    Raises:
        StoreError: `root` is not a feature store.
    """
    store = FeatureStore.open(root)
    by_set: dict[str, list[ModelInput]] = {}
    for item in sidecar.inputs:
        by_set.setdefault(item.fingerprint, []).append(item)
    for fingerprint, items in by_set.items():
        node = lineage.nodes[fingerprint]
        if node.status == "differs":
            continue
        try:
            found = store.find(fingerprint)
        except StoreError as error:
            node.status, node.detail = "not_found", error.message
            continue
        try:
            _trace_set(lineage, node, found, items, run)
        except StoreError as error:
            node.status, node.detail = "differs", error.message


def _trace_set(lineage: Lineage, node: Node, found: FeatureSet, items: list[ModelInput], run: TracedRun) -> None:
    index = found.index()
    node.facts |= {"store": display_path(found.folder), "shards": len(index.shards)}
    node.facts["tags"] = [tag.record.name for tag in tags(found.folder)]
    if run.predictions is None:
        node.status = "verified"
        node.detail = f"the store has it, with its spec; {_WHICH}"
        for entry in index.shards:
            _shard(lineage, node.id, found, entry, None, _WHICH)
        return
    keys, lacking, problems = _compare_rows(index, found, items, run)
    recorded = _recorded(items, run)
    rows, holders = _holders(index, keys)
    node.facts["rows"] = rows
    if problems:
        node.status, node.detail = "differs", "; ".join(problems)
    elif recorded:
        node.status, node.detail = "verified", f"the {rows} rows that the fit read are there, unchanged"
    else:
        node.status, node.detail = "verified", "it has every key of the fit; the run did not record which rows it read"
    _gone(lineage, node, recorded, {entry.shard for entry, _ in holders})
    for entry, held in holders:
        shard_id = _shard(lineage, node.id, found, entry, recorded.get(entry.shard), "")
        for key in held:
            if key in lineage.nodes:
                lineage.link(shard_id, "holds", key)
    for key in sorted(lacking):
        lost = lineage.nodes.get(key) or Node(id=key, kind="video", name=key[:12], facts={"rows": []})
        lost.status, lost.detail = "not_found", f"{found.name} has no features of it any more"
        lineage.add(node.id, "lacks", lost)


def _compare_rows(
    index: RowIndex, found: FeatureSet, items: list[ModelInput], run: TracedRun
) -> tuple[set[str], set[str], list[str]]:
    """Keys of the fit's rows, those that have lost their features since, and what differs, per input."""
    known = found.known_keys()
    keys: set[str] = set()
    lacking: set[str] = set()
    problems = []
    for item in items:
        wanted = _keys(run, item)
        keys |= wanted
        missing = wanted - known
        was = run.features.inputs.get(item.name) if run.features is not None else None
        if was is None:
            problems += [f"input {item.name}: {len(missing)} keys of its rows have no features"] if missing else []
            lacking |= missing
            continue
        problem = _compare(item.name, was, rows_in(index, found, wanted))
        if problem:
            problems.append(problem)
            # Rows may have been kept without this input (missing_features: mask); which ones nobody wrote down.
            lacking |= missing if was.keys == len(wanted) else set()
    return keys, lacking, problems


def _recorded(items: list[ModelInput], run: TracedRun) -> dict[str, str]:
    """Shard -> its sha256 when the fit read it."""
    if run.features is None:
        return {}
    found = [run.features.inputs[item.name] for item in items if item.name in run.features.inputs]
    return {shard.shard: shard.sha256 for read in found for shard in read.shards}


def _gone(lineage: Lineage, node: Node, recorded: Mapping[str, str], there: set[str]) -> None:
    """Shards that the fit read and that hold none of its rows any more."""
    gone = sorted(recorded.keys() - there)
    if gone and node.status == "verified":
        # A compaction merged them: their rows were found, unchanged, in other shards.
        node.facts["merged_since"] = gone
        return
    for shard in gone:
        lost = Node(id=recorded[shard], kind="shard", name=f"{shard}.parquet", status="not_found")
        lost.detail = "the fit read rows of it; it holds none of them any more"
        lineage.add(node.id, "held rows in", lost)


def _keys(run: TracedRun, item: ModelInput) -> set[str]:
    """Keys that the fit looked up for an input; not those of rows that it kept without."""
    column = "prompt_sha256" if item.modality == "text" else "video_sha256"
    column = "reference_sha256" if item.of == "reference" else column
    if run.predictions is None or column not in run.predictions.columns:
        return set()
    return set(run.predictions[column].drop_nulls())


def _compare(name: str, was: RowsRead, now: RowsRead) -> str:
    """What differs between the rows that were read and those that would be read today; empty where nothing does."""
    if (was.rows, was.rows_sha256) == (now.rows, now.rows_sha256):
        return ""
    if now.rows < was.rows:
        return f"input {name}: {was.rows - now.rows} of the {was.rows} rows that the fit read are gone"
    if now.rows > was.rows:
        return f"input {name}: the fit read {was.rows} rows, for the same keys there are {now.rows}"
    return f"input {name}: there are as many rows as the fit read ({was.rows}), with other content"


def _holders(index: RowIndex, keys: set[str]) -> tuple[int, list[tuple[ShardEntry, list[str]]]]:
    """How many rows answer for `keys`, and each shard that holds some, with their keys."""
    found = key_bytes(sorted(keys))
    if found is None or not len(found):
        return 0, []
    taken = index.rows[index.of_keys(found)]
    held = []
    for number in np.unique(taken["shard"]).tolist():
        names = np.unique(taken["key"][taken["shard"] == number])
        held.append((index.shards[number], hex_keys(np.ascontiguousarray(names))))
    return len(taken), held


def _shard(lineage: Lineage, parent: str, found: FeatureSet, entry: ShardEntry, recorded: str | None, note: str) -> str:
    """The node of a committed shard, its bytes hashed, and the run that wrote it below; returns its id."""
    path = found.folder / SHARDS / f"{entry.shard}.parquet"
    node = Node(id=entry.sha256, kind="shard", name=f"{entry.shard}.parquet")
    node.facts |= {"rows": entry.rows, "bytes": entry.bytes, "profile": dict(entry.profile), "run_id": entry.run_id}
    node.status, node.detail = _bytes_of(path, entry, recorded)
    if note and node.status == "verified":
        node.detail = f"{node.detail}; {note}"
    lineage.add(parent, "holds rows in", node)
    _writer(lineage, node.id, found, entry.run_id)
    return node.id


def _bytes_of(path: Path, entry: ShardEntry, recorded: str | None) -> tuple[Status, str]:
    try:
        sha256, size = filesystem.checksum(path)
    except FileNotFoundError:
        return "not_found", f"{display_path(path)} is missing; its commit is there"
    except StoreError as error:
        return "not_found", error.message
    if (sha256, size) != (entry.sha256, entry.bytes):
        return "differs", f"{size} bytes with sha256 {sha256[:12]}, its commit says {entry.bytes} bytes"
    if recorded is not None and recorded != sha256:
        return "differs", f"the fit read it with sha256 {recorded[:12]}"
    return "verified", "its bytes are those of its commit" + (" and of the fit's record" if recorded else "")


def _writer(lineage: Lineage, shard: str, found: FeatureSet, run_id: str) -> None:
    path = found.folder / RUNS / f"{run_id}.json"
    if run_id in lineage.nodes:
        lineage.link(shard, "was written by", run_id)
        return
    try:
        data = filesystem.read(path, "run")
        check_seal(data, f"run {str(path)!r}")
        block: Any = json.loads(data)
    except (StoreError, ValueError) as error:
        there = filesystem.exists(path)
        node = Node(id=run_id, kind="run", name=run_id, status="differs" if there else "not_found")
        node.detail = getattr(error, "message", str(error))
        lineage.add(shard, "was written by", node)
        return
    node = run_node(block)
    if node.status == "verified":
        node.detail = "its record is sealed and whole"
    lineage.add(shard, "was written by", node)
    for name, entry in _inputs(block):
        known = lineage.nodes.get(entry["sha256"])
        if known is None:
            known = Node(id=entry["sha256"], kind=str(entry.get("kind", "file")).replace("-", "_"), name=name)
            known.name, known.detail = f"{name} {entry.get('path', '')}".strip(), "as the run recorded it"
        lineage.add(node.id, "read", known)


def _inputs(block: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, entry in (block.get("inputs") or {}).items():
        if isinstance(entry, Mapping) and entry.get("sha256"):
            yield str(name), entry

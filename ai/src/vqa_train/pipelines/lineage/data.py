"""The datasets: their manifests by hash, and through those their file lists and label tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.errors import VqaError
from vqa_train.core.files import display_path
from vqa_train.core.hashing import sha256_file
from vqa_train.core.locations import is_remote
from vqa_train.datasets.files_table import FileEntry, read_files_table
from vqa_train.datasets.load import find_root, has_videos, imported_folder, read_label_bytes
from vqa_train.datasets.manifest import DatasetManifest, read_manifest
from vqa_train.pipelines.lineage.config import LineageConfig
from vqa_train.pipelines.lineage.graph import Lineage, Node, recorded_path
from vqa_train.registry.sidecar import DatasetRef, ModelSidecar


@dataclass
class Datasets:
    """What the manifests that were found say of files.

    Attributes:
        nodes: dataset -> node of its manifest.
        files: dataset -> sha256 -> entry of its file list; a dataset is absent where that was not found as recorded.
        roots: dataset -> its data root, where that is known, is a folder, and the dataset has videos.
    """

    nodes: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, FileEntry]] = field(default_factory=dict)
    roots: dict[str, Path] = field(default_factory=dict)


def trace_datasets(
    lineage: Lineage, parent: str, sidecar: ModelSidecar, block: Mapping[str, Any], config: LineageConfig
) -> Datasets:
    """A node below `parent` for each dataset that the model was fitted on, and for what its manifest lists."""
    found = Datasets()
    for ref in sidecar.datasets or ([sidecar.dataset] if sidecar.dataset else []):
        if ref.manifest_sha256 is None:
            node = Node(
                id=f"dataset {ref.name}", kind="dataset", name=ref.name, detail="no manifest of it was recorded"
            )
            lineage.add(parent, "was fitted on", node)
            continue
        node = Node(id=ref.manifest_sha256, kind="dataset", name=f"{ref.name} {ref.version or ''}".strip())
        lineage.add(parent, "was fitted on", node)
        found.nodes[ref.name] = node.id
        path = _find(node, ref, list(_places(ref, block, config)))
        if path is not None:
            manifest, _ = read_manifest(path)
            node.facts |= {"license": manifest.license, "source": manifest.source}
            _files(lineage, node, manifest, path, found)
            _labels(lineage, node, manifest, path, config.data_root, found)
    return found


def _places(ref: DatasetRef, block: Mapping[str, Any], config: LineageConfig) -> Iterator[Path]:
    """Where a manifest may be: the manifests' folder, where the fit read it, the labels imported into the store."""
    yield config.manifests / f"{ref.name}.yaml"
    inputs = block.get("inputs") or {}
    recorded = recorded_path(inputs.get(f"dataset {ref.name}") or inputs.get("dataset"))
    if recorded is not None:
        yield recorded
    if config.features is not None:
        yield imported_folder(config.features) / f"{ref.name}.yaml"


def _find(node: Node, ref: DatasetRef, places: list[Path]) -> Path | None:
    others = []
    for path in places:
        if not path.is_file():
            continue
        digest = sha256_file(path)
        if digest == ref.manifest_sha256:
            node.status, node.detail = "verified", f"the bytes at {display_path(path)} have this sha256"
            return path
        others.append(f"{display_path(path)} has sha256 {digest[:12]}")
    node.status = "differs" if others else "not_found"
    shown = list(dict.fromkeys(display_path(path) for path in places))
    node.detail = "; ".join(dict.fromkeys(others)) if others else f"it is not at {' nor at '.join(shown)}"
    return None


def _files(lineage: Lineage, parent: Node, manifest: DatasetManifest, path: Path, found: Datasets) -> None:
    ref = manifest.files
    if ref is None:
        return
    node = Node(id=ref.sha256, kind="file_list", name=ref.table, facts={"files": ref.rows, "bytes": ref.bytes_total})
    try:
        entries = read_files_table(ref, path.parent)
    except VqaError as error:
        node.status = "differs" if (path.parent / ref.table).is_file() else "not_found"
        node.detail = error.message
    else:
        node.status, node.detail = "verified", f"the bytes at {display_path(path.parent / ref.table)} have this sha256"
        found.files[manifest.name] = {entry.sha256: entry for entry in entries}
    lineage.add(parent.id, "lists files in", node)


def _labels(
    lineage: Lineage, parent: Node, manifest: DatasetManifest, path: Path, data_root: Path | None, found: Datasets
) -> None:
    problem, root = "", None
    try:
        root = find_root(manifest, path, _own_root(manifest, data_root))
    except VqaError as error:
        problem = error.message
    if root is not None and has_videos(manifest) and not is_remote(root):
        found.roots[manifest.name] = root
    for table in manifest.labels:
        if table.sha256 is None:
            continue
        node = Node(id=table.sha256, kind="labels", name=table.path, detail=problem)
        if root is not None:
            try:
                read_label_bytes(root, table)
            except VqaError as error:
                node.status = "not_found" if error.reason == "missing_file" else "differs"
                node.detail = error.message
            else:
                node.status, node.detail = "verified", f"the bytes below {display_path(root)} have this sha256"
        lineage.add(parent.id, "has labels in", node)


def _own_root(manifest: DatasetManifest, data_root: Path | None) -> Path | None:
    """With several datasets under one root, each in a subfolder of its name."""
    inside = data_root / manifest.name if data_root is not None else None
    return inside if inside is not None and inside.is_dir() else data_root

"""What the `datasets` commands do: list, show, scan, verify manifests and make the built-in ladder, as JSON values."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vqa_train.core.config import load_json, load_yaml
from vqa_train.core.errors import Reason, VqaError
from vqa_train.core.files import atomic_write_json, display_path
from vqa_train.core.progress import progress
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.datasets.draft import ScanConfig
from vqa_train.datasets.labels import MissingMos
from vqa_train.datasets.load import Dataset, find_manifest, find_root, load_dataset
from vqa_train.datasets.manifest import SCHEMA_PREFIX, DatasetManifest, read_manifest
from vqa_train.datasets.scan import ScanReport, scan
from vqa_train.datasets.verify import VerifyReport, verify

LIST_SCHEMA = "vqa-train/dataset-list/1"
SHOW_SCHEMA = "vqa-train/dataset-show/1"
LADDER_SCHEMA = "vqa-train/ladder/1"
# The reading of files from one disk stops getting faster soon.
_MAX_WORKERS = 16


def list_datasets(folder: Path) -> dict[str, Any]:
    """Every dataset manifest in `folder`, with `error` set on one that cannot be read; other YAML is left out."""
    datasets = []
    for path in sorted(folder.glob("*.yaml")):
        entry: dict[str, Any] = {"manifest": display_path(path), "error": None}
        try:
            if not _is_dataset(path):
                continue
            entry.update(_facts(read_manifest(path)[0]))
        except VqaError as error:
            entry.update(name=path.stem, error=str(error))
        datasets.append(entry)
    return {"schema": LIST_SCHEMA, "folder": display_path(folder), "datasets": datasets}


def _is_dataset(path: Path) -> bool:
    value = load_yaml(path)
    return isinstance(value, dict) and str(value.get("schema", "")).startswith(SCHEMA_PREFIX)


def _facts(manifest: DatasetManifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "license": manifest.license,
        "source": manifest.source,
        "citation": manifest.citation,
        "adapter": manifest.adapter,
        "targets": {name: manifest.range_of(name).model_dump() for name in manifest.target_names},
        "files": manifest.files.rows if manifest.files else None,
        "bytes_total": manifest.files.bytes_total if manifest.files else None,
    }


def show_dataset(
    name_or_path: str,
    *,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    missing_mos: MissingMos = "mask",
) -> dict[str, Any]:
    """The manifest's facts and, where its data is there, counts per split and target and the label report.

    Where the data is not there, `data` is None and `note` says why.

    Raises:
        VqaError: the manifest cannot be read, or its data is there and breaks its rules.
    """
    path = find_manifest(name_or_path, manifests_dir)
    manifest, sha256 = read_manifest(path)
    shown = {"schema": SHOW_SCHEMA, "manifest": display_path(path), "sha256": sha256, **_facts(manifest)}
    note = None
    if manifest.files is None:
        note = "the manifest lists no files yet; `vqa-train datasets scan` writes them"
    else:
        try:
            find_root(manifest, path, data_root)
        except VqaError as error:
            if data_root is not None:
                raise
            note = str(error)
    if note is not None:
        return {**shown, "note": note, "data": None}
    dataset = load_dataset(str(path), data_root=data_root, missing_mos=missing_mos)
    return {**shown, "note": None, "data": _counts(dataset)}


def _counts(dataset: Dataset) -> dict[str, Any]:
    videos = dataset.videos
    return {
        "root": display_path(dataset.root),
        "videos": len(videos),
        "splits": dict(sorted(Counter(video.split or "none" for video in videos).items())),
        "groups": len({video.group for video in videos if video.group is not None}),
        "prompts": len({video.prompt for video in videos if video.prompt is not None}),
        "labelled": {name: sum(name in video.labels for video in videos) for name in dataset.manifest.target_names},
        "labels": dataset.report.to_json(),
    }


def scan_dataset(config: ScanConfig, *, workers: int | None = None) -> tuple[ScanReport, dict[str, Any]]:
    """Write the manifest, its files table and `<name>.provenance.json`; the report, and its JSON with the provenance.

    Raises:
        VqaError: as `datasets.scan.scan`.
    """
    settings = {**asdict(config), "root": display_path(config.root), "output": display_path(config.output)}
    provenance = RunProvenance("datasets-scan", settings)
    manifest, report = scan(config, workers=workers or _workers())
    for table in manifest.labels:
        provenance.inputs[table.path] = {
            "path": table.path,
            "kind": "label-table",
            "sha256": table.sha256,
            "bytes": table.bytes,
        }
    provenance.outputs["manifest"] = file_entry(report.manifest, "dataset-manifest")
    provenance.outputs["files"] = file_entry(report.files_table, "files-table")
    failed = Counter(failure.reason.value for failure in report.failed)
    provenance.counts = {
        "inputs": report.files + len(report.failed),
        "done": report.files,
        "failed": dict(failed),
    }
    block = provenance.to_json()
    atomic_write_json(config.output.with_name(f"{config.output.stem}.provenance.json"), block)
    return report, {**report.to_json(), "run_provenance": block}


def verify_dataset(
    name_or_path: str,
    *,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    workers: int | None = None,
) -> VerifyReport:
    """Compare a dataset's files with its manifest, reading every byte.

    Raises:
        VqaError: as `datasets.verify.verify`; an unknown name or data root.
    """
    path = find_manifest(name_or_path, manifests_dir)
    manifest = read_manifest(path)[0]
    root = find_root(manifest, path, data_root)
    total = (manifest.files.rows if manifest.files else 0) + len(manifest.labels)
    with progress("verifying", total) as advance:
        return verify(manifest, path.parent, root, workers=workers or _workers(), advance=advance)


def build_ladder(
    output: Path, *, sources: Path | None, options: Mapping[str, Any], workers: int | None = None
) -> dict[str, Any]:
    """Render the built-in labelled set into `output`; `options` are the LadderConfig fields that were given.

    `refused_sources` of the result maps each source file that could not be used to why.

    Raises:
        VqaError: a source cannot be read or the output cannot be written.
    """
    if sources is not None and not sources.is_dir():
        raise VqaError(f"--sources {str(sources)!r} is not a folder", reason=Reason.MISSING_FILE)
    from vqa_train.datasets.ladder import LadderConfig, clip_count, make_ladder
    from vqa_train.datasets.ladder.record import RECORD

    config = LadderConfig(**options)
    with progress("rendering", clip_count(sources, config)) as advance:
        path = make_ladder(output, sources=sources, config=config, workers=workers or _workers(), progress=advance)
    refused = load_json(path.with_name(RECORD))["refused_sources"]
    facts = _facts(read_manifest(path)[0])
    return {"schema": LADDER_SCHEMA, "manifest": display_path(path), **facts, "refused_sources": refused}


def _workers() -> int:
    return min(_MAX_WORKERS, os.cpu_count() or 1)

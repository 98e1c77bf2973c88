"""Drafts a manifest from what the user said, what an older manifest says and what the adapter knows."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqa_train.core.config import parse
from vqa_train.core.errors import LabelError, Reason, UsageError
from vqa_train.core.files import confined, read_bytes
from vqa_train.core.hashing import sha256_bytes
from vqa_train.core.locations import is_remote
from vqa_train.core.plugins import did_you_mean
from vqa_train.datasets import ADAPTERS
from vqa_train.datasets.adapters.base import DatasetAdapter, Layout
from vqa_train.datasets.manifest import SPLITS, DatasetManifest, Direction, LabelTable


@dataclass(frozen=True, kw_only=True)
class ScanConfig:
    """What `datasets scan` was asked for. None and empty values are taken from the manifest that `output` already
    holds, else from the adapter, else from the schema's defaults.

    Attributes:
        root: the data root; label tables and videos lie under it.
        output: the manifest to write; the files table goes beside it.
        labels: label tables as given (from the working folder or from the root), each with its split or None.
        columns: manifest column field (id, path, prompt, split, group, reference) -> column.
        targets, std: target -> column.
        attributes: further columns to keep.
        fractions, salt: splits by hash of the group.
        extensions: file endings that count as videos, with the dot; empty for the usual ones.
    """

    root: Path
    output: Path
    name: str | None = None
    version: str | None = None
    license: str | None = None
    source: str | None = None
    citation: str | None = None
    adapter: str | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)
    std: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    mos_min: float | None = None
    mos_max: float | None = None
    direction: Direction | None = None
    fractions: Mapping[str, float] = field(default_factory=dict)
    salt: str | None = None
    extensions: tuple[str, ...] = ()


def draft_manifest(
    config: ScanConfig, existing: DatasetManifest | None
) -> tuple[DatasetManifest, DatasetAdapter, list[tuple[LabelTable, bytes]]]:
    """The manifest without its files, its adapter, and the label tables with their bytes and hashes.

    Raises:
        UsageError: something that nothing else knows was not given (names the flag).
        ConfigError: what was given breaks the schema.
        LabelError: a label table is missing, outside the root, or lacks a column.
        ManifestError: the folder is not laid out as the adapter needs it.
    """
    old: dict[str, Any] = existing.model_dump(mode="json", by_alias=True, exclude_defaults=True) if existing else {}
    adapter_name = config.adapter or old.get("adapter", "csv")
    adapter: DatasetAdapter = ADAPTERS.get(adapter_name)()
    layout = adapter.discover(config.root)
    columns = {**layout.columns, **old.get("columns", {}), **config.columns}
    columns.pop("targets", None)
    targets = dict(config.targets or (existing and _targets(existing)) or layout.targets)
    tables = _tables(config, layout, existing)
    if config.salt is not None and not config.fractions:
        raise UsageError("a salt was given without split fractions", hint="pass --fractions train=0.7,val=0.1,test=0.2")
    if "id" not in columns:
        raise UsageError("no id column was given", hint=f"pass --id-column; {_columns_of(adapter, tables)}")
    if not targets:
        raise UsageError("no target was given", hint=f"pass --target NAME=COLUMN; {_columns_of(adapter, tables)}")
    given: dict[str, Any] = {
        "name": config.name,
        "version": config.version,
        "license": config.license,
        "source": config.source,
        "citation": config.citation,
        "adapter": adapter_name,
        "root": _root(config),
        "splits": {"fractions": dict(config.fractions), "salt": config.salt or ""} if config.fractions else None,
    }
    value = {
        "name": config.output.name.partition(".")[0],
        "license": "unknown",
        **{key: value for key, value in old.items() if key not in ("files", "schema")},
        **{key: value for key, value in given.items() if value is not None},
        "mos": _mos(config, layout, old),
        "targets": _target_list(targets, old),
        "columns": {
            **columns,
            "targets": {name: column for name, column in targets.items() if name != column},
            "std": dict(config.std) or {k: v for k, v in columns.get("std", {}).items() if k in targets},
            "attributes": list(config.attributes) or columns.get("attributes", []),
        },
        "labels": [_label_entry(adapter, table, data, set(targets.values())) for table, data in tables],
    }
    manifest = parse(DatasetManifest, {"schema": "vqa-train/dataset/1", **value}, "the manifest to be written")
    return manifest, adapter, list(zip(manifest.labels, (data for _, data in tables), strict=True))


def _root(config: ScanConfig) -> str | None:
    """As the manifest says it: relative to the manifest. A URL is for whoever loads the dataset to name."""
    if is_remote(config.root):
        return None
    return Path(os.path.relpath(config.root, config.output.parent)).as_posix()


def _targets(manifest: DatasetManifest) -> dict[str, str]:
    return {name: manifest.column_of(name) for name in manifest.target_names}


def _target_list(targets: Collection[str], old: Mapping[str, Any]) -> list[Any]:
    """Targets with the scale of their own that the older manifest gave them."""
    own = {target["name"]: target for target in old.get("targets", [])}
    return [own.get(name, name) for name in targets]


def _mos(config: ScanConfig, layout: Layout, old: Mapping[str, Any]) -> dict[str, Any]:
    known = old.get("mos") or (layout.mos.model_dump() if layout.mos else {})
    given = {"min": config.mos_min, "max": config.mos_max, "direction": config.direction}
    mos = {**known, **{key: value for key, value in given.items() if value is not None}}
    if "min" not in mos or "max" not in mos:
        raise UsageError("the range of the MOS was not given", hint="pass --mos-min and --mos-max")
    return mos


def _tables(config: ScanConfig, layout: Layout, existing: DatasetManifest | None) -> list[tuple[LabelTable, bytes]]:
    if config.labels:
        wanted = [_label_path(config.root, given, split) for given, split in config.labels]
    else:
        wanted = list(layout.labels or (existing.labels if existing else ()))
    if not wanted:
        raise UsageError("no label table was given", hint="pass --labels FILE")
    return [(table, _read(confined(config.root, table.path))) for table in wanted]


def _label_path(root: Path, given: str, split: str | None) -> LabelTable:
    if is_remote(root):
        return _label_table(given.removeprefix(str(root).rstrip("/") + "/"), split)
    here = Path(given)
    path = here if here.is_file() or here.is_absolute() else root / given
    resolved_root = root.resolve()
    if not path.resolve().is_relative_to(resolved_root):
        raise LabelError(
            f"label table {given!r} is outside the data root {str(root)!r}",
            hint="copy it into the root, or scan the folder that holds both",
            reason=Reason.PATH_ESCAPE,
        )
    return _label_table(path.resolve().relative_to(resolved_root).as_posix(), split)


def _label_table(path: str, split: str | None) -> LabelTable:
    if split is not None and split not in SPLITS:
        raise UsageError(f"unknown split {split!r} of label table {path!r}", hint=did_you_mean(split, list(SPLITS)))
    return parse(LabelTable, {"path": path, "split": split}, f"label table {path!r}")


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise LabelError(
            f"label table {str(path)!r} cannot be read: {error.strerror}",
            reason=Reason.MISSING_FILE if missing else Reason.UNREADABLE,
        ) from error


def _label_entry(adapter: DatasetAdapter, table: LabelTable, data: bytes, targets: set[str]) -> dict[str, Any]:
    """The table's entry with its hash; a test table without any of the target columns is declared unlabelled."""
    labelled = table.labelled
    if table.split == "test":
        labelled = labelled and bool(targets & set(adapter.read_table(table.path, data, ()).names))
    entry = table.model_dump(mode="json", exclude_defaults=True)
    return {**entry, "sha256": sha256_bytes(data), "bytes": len(data), "labelled": labelled}


def _columns_of(adapter: DatasetAdapter, tables: list[tuple[LabelTable, bytes]]) -> str:
    table, data = tables[0]
    return f"{table.path} has the columns {', '.join(adapter.read_table(table.path, data, ()).names)}"

"""The fit: its provenance as the sidecar has it, and its run folder, file by file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqa_train.core.errors import VqaError
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit.run_features import RunFeatures, read_run_features
from vqa_train.pipelines.lineage.config import LineageConfig
from vqa_train.pipelines.lineage.graph import Lineage, Node, compare_file, file_node, recorded_path
from vqa_train.pipelines.lineage.model import TracedModel, run_node

if TYPE_CHECKING:
    import polars as pl

_KEYS = ("video_sha256", "reference_sha256", "prompt_sha256")
_NO_RUN = "the run folder was not given (--run)"


@dataclass(frozen=True)
class TracedRun:
    """What the run folder says, as far as it can be trusted.

    Attributes:
        node: id of the fit's node; that of the model where no fit is known.
        block: run_provenance of the fit.
        predictions: id, dataset, split and keys of each row; None without the run folder.
        features: which rows of which shards were read; None without, or for a run of before that was kept.
    """

    node: str
    block: Mapping[str, Any]
    predictions: pl.DataFrame | None = None
    features: RunFeatures | None = None


def trace_run(lineage: Lineage, traced: TracedModel, config: LineageConfig) -> TracedRun:
    """The fit below the export; with `config.run` everything in that folder is hashed and compared."""
    if traced.fit is None:
        return TracedRun(node=lineage.root, block={})
    node = run_node(traced.fit)
    if node.status == "verified":
        node.status, node.detail = "not_looked_for", _NO_RUN
    lineage.add(traced.above_fit, "was fitted by", node)
    wrote = traced.fit.get("outputs") or {}
    expected = {name: str(entry["sha256"]) for name, entry in wrote.items() if entry.get("sha256")}
    if config.run is None:
        for name, sha256 in expected.items():
            lineage.add(node.id, "wrote", Node(id=sha256, kind="run_file", name=name, detail=_NO_RUN))
        _read(lineage, node.id, traced.fit)
        return TracedRun(node=node.id, block=traced.fit)
    trusted = _folder(lineage, node, traced, config.run, expected)
    _read(lineage, node.id, traced.fit)
    if not trusted:
        return TracedRun(node=node.id, block=traced.fit)
    return TracedRun(
        node=node.id, block=traced.fit, predictions=_predictions(config.run), features=_features(config.run, expected)
    )


def _folder(lineage: Lineage, node: Node, traced: TracedModel, folder: Path, expected: Mapping[str, str]) -> bool:
    """Compare the folder with what the sidecar says of it; whether all files that `lineage` reads are those."""
    for name, sha256 in expected.items():
        lineage.add(node.id, "wrote", file_node("run_file", name, sha256, folder / name))
    path = folder / runs.RUN_FILE
    try:
        record = runs.open_run(folder)
    except VqaError as error:
        node.status = "differs" if path.is_file() else "not_found"
        node.detail = str(error)
        return False
    run_id = record.run_provenance.get("run_id")
    if run_id != node.id:
        node.status, node.detail = "differs", f"the folder is of run {run_id}, the model of {node.id}"
        return False
    claims = {
        "its record of the run": dict(record.run_provenance) == dict(traced.fit or {}),
        "its files": record.files == expected,
        "the hash of its recipe": record.config_sha256 == traced.sidecar.train_config_hash,
        "its feature sets": [item.fingerprint for item in record.inputs]
        == [item.fingerprint for item in traced.sidecar.inputs],
    }
    wrong = [what for what, same in claims.items() if not same]
    if wrong:
        node.status, node.detail = "differs", f"the folder and the model's sidecar differ in {', '.join(wrong)}"
        return False
    node.status, node.detail = "verified", "every file of the run folder is as the model's sidecar has it"
    node.facts |= {"rows": record.rows, "protocol": record.protocol, "splits_sha256": record.splits_sha256}
    return True


def _read(lineage: Lineage, node: str, block: Mapping[str, Any]) -> None:
    """Files that the fit read beside datasets and features: splits of its own, the run that it started from."""
    for name, entry in (block.get("inputs") or {}).items():
        kind = str(entry.get("kind", ""))
        if kind in ("splits", "run") and entry.get("sha256"):
            found = Node(id=entry["sha256"], kind=kind, name=f"{name} {entry.get('path', '')}")
            found.status, found.detail = compare_file(recorded_path(entry), entry["sha256"])
            lineage.add(node, "started from" if kind == "run" else "read", found)


def _predictions(folder: Path) -> pl.DataFrame:
    import polars as pl

    path = folder / runs.PREDICTIONS_FILE
    there = pl.read_parquet_schema(path)
    return pl.read_parquet(path, columns=[name for name in ("id", "dataset", "split", *_KEYS) if name in there])


def _features(folder: Path, expected: Mapping[str, str]) -> RunFeatures | None:
    return read_run_features(folder / runs.FEATURES_FILE) if runs.FEATURES_FILE in expected else None

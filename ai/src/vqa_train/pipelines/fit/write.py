"""Writes a run folder in one atomic step: beside its place first, run.json last, then renamed."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import RunError
from vqa_train.core.files import atomic_write_bytes, atomic_write_json, fsync_dir
from vqa_train.core.hashing import sha256_json
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.datasets.protocols import write_plan
from vqa_train.evaluation.report import EvalReport
from vqa_train.heads.checkpoint import save_ensemble
from vqa_train.heads.ensemble import Ensemble
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit.config import FitConfig
from vqa_train.pipelines.fit.crossfit import HeldOut, TrainedHead
from vqa_train.pipelines.fit.data import FitData
from vqa_train.pipelines.fit.run_features import write_run_features
from vqa_train.pipelines.fit.training_statistics import to_document, training_statistics
from vqa_train.pipelines.table import Table, feature_key, rows_of

_SAMPLE_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """What a run folder is made of.

    Attributes:
        config: resolved.
        heads: of the final model, members in order, the seeds of each together.
        fold_heads: of the protocol's and the calibration's folds.
        splits: (N,) split of each row as the final model has it.
        predicted, spread: float32 (N, K) of the final model on every row; spread None where it means nothing.
        metrics: split -> report on the final model's own training and validation rows.
        held_out: predictions of the protocol's folds, with `protocol`, their report; None without.
        calibration: document, or None.
        warnings: of the fit, beside those of the splits.
    """

    config: FitConfig
    data: FitData
    ensemble: Ensemble
    heads: Sequence[TrainedHead]
    fold_heads: Sequence[TrainedHead]
    splits: NDArray[np.str_]
    predicted: NDArray[np.float32]
    spread: NDArray[np.float32] | None
    metrics: dict[str, EvalReport]
    held_out: Sequence[HeldOut] | None
    protocol: dict[str, Any] | None
    calibration: dict[str, Any] | None
    warnings: Sequence[str] = ()


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse a place that holds something else.

    Raises:
        RunError: a file, a folder that is not empty, or with `overwrite` one that is no run folder.
    """
    if output.is_file():
        raise RunError(f"--output {str(output)!r} is a file", hint="name a folder")
    filled = output.is_dir() and any(output.iterdir())
    if filled and not overwrite:
        raise RunError(f"run folder {str(output)!r} is not empty", hint="choose another --output or pass --overwrite")
    if filled and not (output / runs.RUN_FILE).is_file():
        raise RunError(f"{str(output)!r} is not a run folder, so it is not overwritten", hint="choose another --output")


def write_run(output: Path, overwrite: bool, content: RunContent, provenance: RunProvenance) -> runs.RunRecord:
    """Write everything beside `output`, run.json last, then rename into place."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.tmp"
    scratch.mkdir()
    try:
        names = _write_files(scratch, content)
        entries = {name: {**file_entry(scratch / name, "run-file"), "path": name} for name in names}
        provenance.outputs = dict(entries)
        record = _record(content, provenance, {name: str(entry["sha256"]) for name, entry in entries.items()})
        atomic_write_json(scratch / runs.RUN_FILE, record.model_dump(mode="json", by_alias=True))
        if overwrite and output.is_dir():
            shutil.rmtree(output)
        elif output.is_dir():
            output.rmdir()
        scratch.rename(output)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    fsync_dir(output.parent)
    return record


def _write_files(folder: Path, content: RunContent) -> list[str]:
    epochs = [head.fitted.best_epoch for head in content.heads]
    writers: dict[str, Callable[[Path], None]] = {
        runs.HEAD_FILE: lambda path: save_ensemble(path, content.ensemble, {"best_epochs": epochs}),
        runs.ROWS_FILE: lambda path: _write_rows(path, content.data.table),
        runs.PREDICTIONS_FILE: lambda path: _write_predictions(path, content),
        runs.METRICS_FILE: lambda path: atomic_write_json(path, {k: r.to_json() for k, r in content.metrics.items()}),
        runs.HISTORY_FILE: lambda path: _write_history(path, [*content.heads, *content.fold_heads]),
        runs.SPLITS_FILE: lambda path: write_plan(path, content.data.plan),
        runs.FEATURES_FILE: lambda path: write_run_features(path, content.data.table.read),
        runs.STATISTICS_FILE: lambda path: _write_statistics(path, content),
    }
    held_out, protocol, calibration = content.held_out, content.protocol, content.calibration
    if held_out is not None:
        writers[runs.HELD_OUT_FILE] = lambda path: _write_held_out(path, content.data.table, held_out)
    if protocol is not None:
        writers[runs.PROTOCOL_FILE] = lambda path: _write_compact(path, protocol)
    if calibration is not None:
        writers[runs.CALIBRATION_FILE] = lambda path: atomic_write_json(path, calibration)
    for name, write in writers.items():
        write(folder / name)
    return list(writers)


def _record(content: RunContent, provenance: RunProvenance, files: dict[str, str]) -> runs.RunRecord:
    config, data, table = content.config, content.data, content.data.table
    resolved = config.model_dump(mode="json", by_alias=True)
    first, fitted = data.datasets[0], content.heads[0].fitted
    return runs.RunRecord(
        inputs=[
            runs.RunInput(
                name=name,
                output=selector.output,
                of=selector.of,
                dim=table.features[name].shape[-1],
                shape=list(table.features[name].shape[1:]),
                fingerprint=table.specs[name].fingerprint,
                spec=table.specs[name].to_json(),
                license=table.licenses[name],
            )
            for name, selector in config.features.items()
        ],
        targets=list(table.target_names),
        mos_range={target: (scale.min, scale.max) for target, scale in data.mos_ranges.items()},
        expected_output_range=content.ensemble.expected_output_range(),
        direction=next(iter(data.mos_ranges.values())).direction,
        dataset={
            "name": first.manifest.name,
            "version": first.manifest.version,
            "manifest_sha256": first.sha256,
        },
        dataset_license=first.manifest.license,
        datasets=[
            runs.RunDataset(
                name=found.manifest.name,
                version=found.manifest.version,
                manifest_sha256=found.sha256,
                license=found.manifest.license,
                rows=table.datasets.count(found.manifest.name),
            )
            for found in data.datasets
        ],
        config=resolved,
        config_sha256=sha256_json(resolved),
        rows=dict(provenance.counts),
        best_epoch=fitted.best_epoch,
        training={
            "counts": fitted.counts,
            "nonfinite": fitted.nonfinite,
            "constant": fitted.constant,
            "masked": {name: table.masked.get(name, 0) for name in table.features},
        },
        members=[
            runs.RunMember(
                name=member.name,
                weight=member.weight,
                seeds=[head.seed for head in content.heads if head.member == member.name],
                config=member.train.model_dump(mode="json"),
            )
            for member in config.recipes
        ],
        protocol=data.plan.protocol.model_dump(mode="json"),
        splits_sha256=data.plan.sha256,
        calibration=content.calibration,
        scales=fitted.scales,
        warnings=[*data.plan.warnings, *content.warnings],
        files=files,
        run_provenance=provenance.to_json(),
    )


def _write_rows(path: Path, table: Table) -> None:
    """A few real input rows, chosen by hash, for the parity check of `export` and the golden rows of `register`."""
    from safetensors.numpy import save

    rows = np.asarray(sorted(range(len(table.videos)), key=lambda i: table.videos[i].sha256)[:_SAMPLE_ROWS])
    atomic_write_bytes(path, save({name: np.ascontiguousarray(rows_of(m, rows)) for name, m in table.features.items()}))


def _write_statistics(path: Path, content: RunContent) -> None:
    """Of the rows that trained or validated the final model, and its scores of them."""
    table = content.data.table
    statistics = training_statistics(
        table.features,
        content.predicted,
        table.target_names,
        content.data.units,
        np.flatnonzero(np.isin(content.splits, ("train", "val"))),
    )
    _write_compact(path, to_document(statistics))


def _write_predictions(path: Path, content: RunContent) -> None:
    table = content.data.table
    columns: dict[str, Any] = _identity(table, np.arange(len(table.videos)))
    columns["split"] = [str(split) or None for split in content.splits]
    columns |= _other_keys(content)
    _write_table(path, columns, table, table.targets, content.predicted, content.spread)


def _other_keys(content: RunContent) -> dict[str, Any]:
    """Keys of the features that are not the video's own, where the head takes such."""
    table = content.data.table
    columns: dict[str, Any] = {}
    if any(selector.of == "reference" for selector in content.config.features.values()):
        columns["reference_sha256"] = [video.reference.sha256 if video.reference else None for video in table.videos]
    texts = [spec for spec in table.specs.values() if spec.modality == "text"]
    if texts:
        columns["prompt_sha256"] = [feature_key(texts[0], video) for video in table.videos]
    return columns


def _write_held_out(path: Path, table: Table, held_out: Sequence[HeldOut]) -> None:
    rows = np.concatenate([held.fold.test for held in held_out])
    columns: dict[str, Any] = {
        "fold": [held.fold.name for held in held_out for _ in range(len(held.fold.test))],
        **_identity(table, rows),
    }
    spreads = [held.spread for held in held_out if held.spread is not None]
    predicted = np.concatenate([held.predicted for held in held_out])
    _write_table(path, columns, table, table.targets[rows], predicted, np.concatenate(spreads) if spreads else None)


def _identity(table: Table, rows: NDArray[np.int64]) -> dict[str, Any]:
    numbers, groups = rows.tolist(), table.groups
    return {
        "id": [table.videos[i].id for i in numbers],
        "dataset": [table.datasets[i] for i in numbers],
        "video_sha256": [table.videos[i].sha256 for i in numbers],
        "group": [groups[i] for i in numbers],
    }


def _write_table(
    path: Path,
    columns: dict[str, Any],
    table: Table,
    targets: NDArray[np.float32],
    predicted: NDArray[np.float32],
    spread: NDArray[np.float32] | None,
) -> None:
    import polars as pl

    for i, target in enumerate(table.target_names):
        columns[target] = targets[:, i]
        columns[f"predicted_{target}"] = predicted[:, i]
        if spread is not None:
            columns[f"spread_{target}"] = spread[:, i]
    pl.DataFrame(columns).write_parquet(path)


def _write_history(path: Path, heads: Sequence[TrainedHead]) -> None:
    distinct = {id(head.fitted): head for head in reversed(heads)}
    entries = [
        {
            "name": head.name,
            "fold": head.fold or None,
            "member": head.member,
            "seed": head.seed,
            "best_epoch": head.fitted.best_epoch,
            "chosen": head.fitted.chosen,
            "epochs": head.fitted.history,
        }
        for head in reversed(distinct.values())
    ]
    _write_compact(path, {"heads": entries})


def _write_compact(path: Path, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    atomic_write_bytes(path, (text + "\n").encode("utf-8"))

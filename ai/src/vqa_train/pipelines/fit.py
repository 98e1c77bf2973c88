"""fit: joins labels with cached features, trains a head, and writes a run folder in one atomic step."""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vqa_train.core.config import StrictModel, load_yaml, parse
from vqa_train.core.errors import ConfigError, RunError
from vqa_train.core.files import atomic_write_bytes, atomic_write_json, display_path, fsync_dir
from vqa_train.core.hashing import sha256_file, sha256_json
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.core.types import Video
from vqa_train.datasets.load import Dataset, load_dataset
from vqa_train.datasets.manifest import Direction, MosRange, SplitName
from vqa_train.datasets.splits import split_by_group
from vqa_train.evaluation import METRICS
from vqa_train.evaluation.report import EvalReport, evaluate
from vqa_train.heads.checkpoint import save_head
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.trainer import FittedHead, fit_head, predict
from vqa_train.pipelines import runs
from vqa_train.pipelines.table import FeatureInput, Table, join
from vqa_train.store.store import FeatureStore

DEFAULT_SPLITS: dict[SplitName, float] = {"train": 0.8, "test": 0.2}
"""Shares of the groups where neither the manifest nor its tables decide."""

_SAMPLE_ROWS = 256
_RESAMPLES = 200


class FitConfig(StrictModel):
    """A training recipe (ai/configs/*.yaml), schema vqa-train/fit/1.

    Attributes:
        dataset: manifest name or path; `--dataset` overrides it.
        features: input name -> feature set and output.
        targets: which of the dataset's targets; all of them when empty.
        missing_mos: what a missing opinion score does: `mask` it out of the loss, `drop` the row, or fill in
            the `neutral` middle of the scale (recorded).
        train: head, loss, optimiser, schedule.
    """

    schema_: Literal["vqa-train/fit/1"] = Field(alias="schema")
    dataset: str | None = None
    features: dict[str, FeatureInput] = Field(min_length=1)
    targets: list[str] = Field(default_factory=list)
    missing_mos: Literal["mask", "drop", "neutral"] = "mask"
    train: TrainConfig


@dataclass(frozen=True)
class FitResult:
    """What `fit` gives back: the record, its folder and the metrics by split."""

    folder: Path
    record: runs.RunRecord
    metrics: dict[str, EvalReport]


def load_fit_config(path: Path) -> FitConfig:
    """The recipe in a YAML file.

    Raises:
        ConfigError: missing file, unknown keys (with the nearest known one), wrong values.
    """
    return parse(FitConfig, load_yaml(path, "recipe"), str(path))


def fit(
    config: FitConfig,
    *,
    features: Path,
    output: Path,
    dataset: str | None = None,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    overwrite: bool = False,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FitResult:
    """Train the recipe's head on the training rows of a dataset and write the run folder.

    Rows of split `test` are never seen. Rows of split `val` are the validation rows where the dataset has
    such a split; otherwise a part of the training groups is held out, as the recipe says.

    Raises:
        RunError: `output` is not empty and `overwrite` is not set.
        ConfigError: no dataset named, unknown targets, too few labelled rows.
        StoreError: the store lacks the features.
    """
    _check_output(output, overwrite)
    name = dataset or config.dataset
    if name is None:
        raise ConfigError("no dataset named", hint="set `dataset:` in the recipe or pass --dataset")
    data = load_dataset(name, data_root=data_root, manifests_dir=manifests_dir, missing_mos=config.missing_mos)
    targets = config.targets or list(data.manifest.target_names)
    unknown = [target for target in targets if target not in data.manifest.target_names]
    if unknown:
        raise ConfigError(
            f"dataset {data.manifest.name!r} has no target {unknown[0]!r}",
            hint=f"it has: {', '.join(data.manifest.target_names)}",
        )
    resolved = config.model_copy(update={"dataset": data.manifest.name, "targets": targets})
    provenance = RunProvenance(
        entrypoint="fit",
        config=resolved.model_dump(mode="json", by_alias=True),
        seeds={"train": config.train.seed},
    )
    table = join(with_splits(data), FeatureStore.open(features), config.features, targets)
    splits = np.asarray([video.split for video in table.videos], dtype="<U16")
    train_rows = np.flatnonzero((splits == "train") | (splits == "val"))
    training = table.take(train_rows)
    validation = splits[train_rows] == "val"
    fitted = fit_head(
        training.features,
        training.targets,
        training.groups,
        targets,
        config.train,
        metric=METRICS.get("srocc"),
        keys=[f"{video.sha256}/{video.id}" for video in training.videos],
        validation=validation if validation.any() else None,
        on_epoch=on_epoch,
    )
    splits[train_rows[fitted.validation]] = "val"
    predicted = predict(fitted.module, table.features)
    metrics = {
        split: evaluate(
            predicted[splits == split],
            table.targets[splits == split],
            targets,
            groups=[g for g, s in zip(table.groups, splits, strict=True) if s == split],
            resamples=_RESAMPLES,
        )
        for split in ("train", "val")
        if (splits == split).any()
    }
    provenance.inputs["dataset"] = file_entry(data.path, "dataset-manifest")
    provenance.inputs["store"] = {"path": display_path(features), "kind": "feature-store"}
    provenance.counts = _counts(data, table, splits)
    record = _write(output, overwrite, resolved, data, table, fitted, splits, predicted, metrics, provenance)
    return FitResult(folder=output, record=record, metrics=metrics)


def _check_output(output: Path, overwrite: bool) -> None:
    if output.is_file():
        raise RunError(f"--output {str(output)!r} is a file", hint="name a folder")
    if output.is_dir() and any(output.iterdir()) and not overwrite:
        raise RunError(f"run folder {str(output)!r} is not empty", hint="choose another --output or pass --overwrite")
    if overwrite and output.is_dir() and any(output.iterdir()) and not (output / runs.RUN_FILE).is_file():
        raise RunError(f"{str(output)!r} is not a run folder, so it is not overwritten", hint="choose another --output")


def with_splits(data: Dataset) -> tuple[Video, ...]:
    """The dataset's records, each with a split: its own, or one drawn by the hash of its group."""
    return split_by_group(data.videos, DEFAULT_SPLITS, salt=data.manifest.name)


def _counts(data: Dataset, table: Table, splits: NDArray[np.str_]) -> dict[str, int]:
    rows = Counter(str(split) for split in splits)
    return {
        **{split: rows[split] for split in ("train", "val", "test")},
        "in": len(data.videos),
        "without_features": len(table.without_features),
    }


def _write(
    output: Path,
    overwrite: bool,
    config: FitConfig,
    data: Dataset,
    table: Table,
    fitted: FittedHead,
    splits: NDArray[np.str_],
    predicted: NDArray[np.float32],
    metrics: dict[str, EvalReport],
    provenance: RunProvenance,
) -> runs.RunRecord:
    """Write everything beside `output`, run.json last, then rename into place."""
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.parent / f".{output.name}.{uuid.uuid4().hex[:8]}.tmp"
    scratch.mkdir()
    try:
        save_head(scratch / runs.HEAD_FILE, fitted.module, {"best_epoch": fitted.best_epoch})
        _write_rows(scratch / runs.ROWS_FILE, table)
        _write_predictions(scratch / runs.PREDICTIONS_FILE, table, splits, predicted)
        atomic_write_json(scratch / runs.METRICS_FILE, {k: report.to_json() for k, report in metrics.items()})
        atomic_write_json(scratch / runs.HISTORY_FILE, {"best_epoch": fitted.best_epoch, "epochs": fitted.history})
        names = (runs.HEAD_FILE, runs.ROWS_FILE, runs.PREDICTIONS_FILE, runs.METRICS_FILE, runs.HISTORY_FILE)
        provenance.outputs = {n: {**file_entry(scratch / n, "run-file"), "path": n} for n in names}
        record = _record(config, data, table, fitted, provenance)
        record = record.model_copy(update={"files": {n: sha256_file(scratch / n) for n in names}})
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


def _record(
    config: FitConfig,
    data: Dataset,
    table: Table,
    fitted: FittedHead,
    provenance: RunProvenance,
) -> runs.RunRecord:
    resolved = config.model_dump(mode="json", by_alias=True)
    ranges = {target: data.manifest.range_of(target) for target in table.target_names}
    return runs.RunRecord(
        inputs=[
            runs.RunInput(
                name=name,
                output=selector.output,
                dim=table.features[name].shape[1],
                fingerprint=table.specs[name].fingerprint,
                spec=table.specs[name].to_json(),
                license=table.licenses[name],
            )
            for name, selector in config.features.items()
        ],
        targets=list(table.target_names),
        mos_range={t: (r.min, r.max) for t, r in ranges.items()},
        expected_output_range=fitted.module.expected_output_range(),
        direction=_direction(ranges),
        dataset={
            "name": data.manifest.name,
            "version": data.manifest.version,
            "manifest_sha256": data.sha256,
        },
        dataset_license=data.manifest.license,
        config=resolved,
        config_sha256=sha256_json(resolved),
        rows=dict(provenance.counts),
        best_epoch=fitted.best_epoch,
        training={"counts": fitted.counts, "nonfinite": fitted.nonfinite, "constant": fitted.constant},
        files={},
        run_provenance=provenance.to_json(),
    )


def _direction(ranges: Mapping[str, MosRange]) -> Direction:
    directions = {r.direction for r in ranges.values()}
    if len(directions) > 1:
        raise ConfigError(
            f"targets {', '.join(ranges)} differ in direction (one is better when higher, another when lower)",
            hint="fit one head per direction",
        )
    return next(iter(directions))


def _write_rows(path: Path, table: Table) -> None:
    """A few real input rows, chosen by hash, for the parity check of `export` and the golden rows of `register`."""
    from safetensors.numpy import save

    rows = np.asarray(sorted(range(len(table.videos)), key=lambda i: table.videos[i].sha256)[:_SAMPLE_ROWS])
    atomic_write_bytes(path, save({name: np.ascontiguousarray(m[rows]) for name, m in table.features.items()}))


def _write_predictions(path: Path, table: Table, splits: NDArray[np.str_], predicted: NDArray[np.float32]) -> None:
    import polars as pl

    columns: dict[str, Any] = {
        "id": [video.id for video in table.videos],
        "video_sha256": table.keys,
        "group": table.groups,
        "split": [str(split) for split in splits],
    }
    for i, target in enumerate(table.target_names):
        columns[target] = table.targets[:, i]
        columns[f"predicted_{target}"] = predicted[:, i]
    pl.DataFrame(columns).write_parquet(path)

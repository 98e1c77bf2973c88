"""fit: joins labels with cached features, trains every head of a protocol at once, and writes a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.files import display_path
from vqa_train.core.provenance import RunProvenance, file_entry
from vqa_train.evaluation.report import EvalReport, evaluate
from vqa_train.heads.ensemble import Ensemble
from vqa_train.heads.member import OnEpoch
from vqa_train.heads.predict import predict_spread
from vqa_train.pipelines import runs
from vqa_train.pipelines.fit.config import (
    CalibrationConfig,
    FitConfig,
    MemberConfig,
    load_fit_config,
    parse_fit_config,
    seeds_of,
)
from vqa_train.pipelines.fit.crossfit import CrossFit, Fold, HeldOut, TrainedHead
from vqa_train.pipelines.fit.data import FitData, load_fit_data, with_splits
from vqa_train.pipelines.fit.measure import calibration_folds, calibration_report, protocol_report
from vqa_train.pipelines.fit.resume import partial_fit, partial_folder
from vqa_train.pipelines.fit.warm import warm_start
from vqa_train.pipelines.fit.write import RunContent, check_output, write_run
from vqa_train.pipelines.loggers.open import open_loggers
from vqa_train.pipelines.loggers.values import final_numbers, logged_params
from vqa_train.pipelines.table import FeatureInput, Table, rows_of

__all__ = [
    "CalibrationConfig",
    "FeatureInput",
    "FitConfig",
    "FitOptions",
    "FitResult",
    "MemberConfig",
    "fit",
    "load_fit_config",
    "parse_fit_config",
    "partial_folder",
    "with_splits",
]

_RESAMPLES = 200
_PREDICT_ROWS = 8192


@dataclass(frozen=True)
class FitOptions:
    """How to run, which does not change what comes out.

    Attributes:
        device: where to train.
        threads: of a CPU.
        resume: go on with an interrupted fit into the same folder.
        init_from: run folder whose heads the final model's start from.
        on_start: is given the number of epochs of all heads together.
        on_epoch: is given a head's name and its entry of the history.
        warn: is given each warning.
    """

    device: str = "cpu"
    threads: int = 1
    resume: bool = False
    init_from: Path | None = None
    on_start: Callable[[int], None] | None = None
    on_epoch: OnEpoch | None = None
    warn: Callable[[str], None] | None = None


@dataclass(frozen=True)
class FitResult:
    """What `fit` gives back.

    Attributes:
        folder, record: of the run.
        metrics: split -> report of the final model on its own training and validation rows.
        protocol: report of the held-out folds, or None where the protocol has one split.
        calibration: document of the intervals, or None.
        logged_to: where the recipe's loggers wrote, each in words or as a command.
    """

    folder: Path
    record: runs.RunRecord
    metrics: dict[str, EvalReport]
    protocol: dict[str, Any] | None
    calibration: dict[str, Any] | None
    logged_to: tuple[str, ...] = ()


def fit(
    config: FitConfig,
    *,
    features: Path,
    output: Path,
    dataset: str | Sequence[str] | None = None,
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    overwrite: bool = False,
    options: FitOptions | None = None,
) -> FitResult:
    """Measure a recipe by its protocol, train the final model and write the run folder.

    With a protocol of one split (`splits`, `hash`) the final model learns from the training part, the `val` part
    chooses the epoch (a part of the training groups where there is none), and test rows are never seen. With a
    protocol of several folds every fold is trained and its test rows are predicted, and the final model is then
    trained on all of the protocol's rows. All heads train in one call.

    Loggers of the recipe are told of every epoch and of the end; one that fails is left out, with a warning.

    Raises:
        DependencyError, UsageError: a logger of the recipe cannot be opened.
        RunError: `output` is not empty and `overwrite` is not set, or what was interrupted was another fit.
        ConfigError: no dataset named, unknown targets, a protocol that does not fit, too few labelled rows.
        StoreError: the store lacks the features.
    """
    options = options or FitOptions()
    warn = options.warn or _ignore
    check_output(output, overwrite)
    names = [dataset] if isinstance(dataset, str) else list(dataset or ())
    data = load_fit_data(config, features=features, datasets=names, data_root=data_root, manifests_dir=manifests_dir)
    config = _resolved(config, data)
    provenance = _provenance(config, data, features, options)
    for warning in data.plan.warnings:
        warn(warning)

    cross = CrossFit(data.training, data.units, config.recipes, seeds=config.seeds)
    final_rows, calibration_parts = calibration_folds(config, data)
    folds = [cross.add(fold) for fold in data.folds]
    calibrated = [cross.add(fold) for fold in calibration_parts] if _is_cross(config) else []
    init = warm_start(options.init_from, data, config) if options.init_from is not None else None
    final = cross.add(final_rows, init=init)
    if options.on_start is not None:
        options.on_start(cross.epochs)
    run_name = f"{output.absolute().name}-{provenance.run_id}"
    with (
        open_loggers(config.loggers, run_name, logged_params(config), warn=warn) as loggers,
        partial_fit(output, cross, resume=options.resume, warn=warn) as checkpoint,
    ):
        on_epoch = loggers.beside(options.on_epoch)
        cross.train(device=options.device, threads=options.threads, on_epoch=on_epoch, checkpoint=checkpoint)
        loggers.complete(cross.histories)
        held_out = cross.held_out(folds) if folds else None
        heads = cross.heads(final)
        ensemble = cross.ensemble(final)
        predicted, spread = predict_table(ensemble, data.table)
        calibration = None
        if config.calibration is not None:
            residuals = cross.held_out(calibrated) if calibrated else [_held(calibration_parts[0], predicted)]
            calibration = calibration_report(config, data, residuals)
        splits = _final_splits(data, heads, calibration_parts if not calibrated else [])
        provenance.counts = _counts(data, splits)
        content = RunContent(
            config=config,
            data=data,
            ensemble=ensemble,
            heads=heads,
            fold_heads=[head for number in [*folds, *calibrated] for head in cross.heads(number)],
            splits=splits,
            predicted=predicted,
            spread=spread,
            metrics=_metrics(data, splits, predicted),
            held_out=held_out,
            protocol=protocol_report(data, held_out) if held_out is not None else None,
            calibration=calibration,
            warnings=tuple(loggers.warnings),
        )
        record = write_run(output, overwrite, content, provenance)
        loggers.finish(
            final_numbers(content.metrics, content.protocol),
            [output / name for name in (runs.RUN_FILE, *record.files)] if loggers else [],
        )
    return FitResult(output, record, content.metrics, content.protocol, calibration, tuple(loggers.places))


def predict_table(ensemble: Ensemble, table: Table) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Scores (N, K) of every row, and their spread (N, K) where the ensemble states one."""
    parts = []
    for start in range(0, len(table.videos), _PREDICT_ROWS):
        index = np.arange(start, min(start + _PREDICT_ROWS, len(table.videos)))
        parts.append(predict_spread(ensemble, {name: rows_of(m, index) for name, m in table.features.items()}))
    scores = np.concatenate([part for part, _ in parts])
    spreads = [spread for _, spread in parts if spread is not None]
    return scores, np.concatenate(spreads) if ensemble.states_spread and spreads else None


def _resolved(config: FitConfig, data: FitData) -> FitConfig:
    names = [found.manifest.name for found in data.datasets]
    return config.model_copy(
        update={"dataset": names[0] if len(names) == 1 else names, "targets": list(data.table.target_names)}
    )


def _provenance(config: FitConfig, data: FitData, features: Path, options: FitOptions) -> RunProvenance:
    provenance = RunProvenance(
        entrypoint="fit",
        config=config.model_dump(mode="json", by_alias=True),
        device=options.device,
        seeds={
            f"{member.name}/seed-{number}": seed
            for member in config.recipes
            for number, seed in enumerate(seeds_of(member.train, config.seeds))
        },
    )
    several = len(data.datasets) > 1
    for found in data.datasets:
        name = f"dataset {found.manifest.name}" if several else "dataset"
        provenance.inputs[name] = file_entry(found.path, "dataset-manifest")
    provenance.inputs["store"] = {"path": display_path(features), "kind": "feature-store"}
    path = getattr(config.protocol, "path", "")
    if path:
        provenance.inputs["splits"] = file_entry(Path(path), "splits")
    if options.init_from is not None:
        provenance.inputs["init"] = file_entry(options.init_from / runs.RUN_FILE, "run")
    return provenance


def _is_cross(config: FitConfig) -> bool:
    return config.calibration is not None and config.calibration.method == "cross"


def _held(fold: Fold, predicted: NDArray[np.float32]) -> HeldOut:
    return HeldOut(fold=fold, predicted=predicted[fold.test], spread=None)


def _final_splits(data: FitData, heads: Sequence[TrainedHead], kept_out: Sequence[Fold]) -> NDArray[np.str_]:
    """Split of each row as the final model has it; a row that chose the epoch of any head is `val`."""
    splits = data.splits.copy()
    for fold in kept_out:
        splits[fold.test] = "calibration"
    for head in heads:
        splits[head.fitted.validation] = "val"
    return splits


def _counts(data: FitData, splits: NDArray[np.str_]) -> dict[str, int]:
    rows = Counter(str(split) for split in splits)
    names = ["train", "val", "test", *(["calibration"] if rows["calibration"] else [])]
    return {
        **{split: rows[split] for split in names},
        "in": data.records,
        "without_features": len(data.table.without_features),
        "unlabelled": int((~data.table.labelled).sum()),
    }


def _metrics(data: FitData, splits: NDArray[np.str_], predicted: NDArray[np.float32]) -> dict[str, EvalReport]:
    table = data.table
    groups = table.groups
    reports = {}
    for split in ("train", "val"):
        rows = np.flatnonzero(splits == split)
        if len(rows):
            reports[split] = evaluate(
                predicted[rows],
                table.targets[rows],
                table.target_names,
                groups=[groups[i] for i in rows],
                datasets=[table.datasets[i] for i in rows] if len(data.datasets) > 1 else None,
                resamples=_RESAMPLES,
                directions=data.directions,
            )
    return reports


def _ignore(_: str) -> None:
    pass

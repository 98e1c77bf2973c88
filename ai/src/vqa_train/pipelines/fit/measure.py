"""What the folds of a protocol came to, and prediction intervals from residuals of rows that did not train."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.datasets.protocols import KFold
from vqa_train.datasets.protocols import folds as kinds
from vqa_train.evaluation.conformal import calibrate, cross_coverage, group_note
from vqa_train.evaluation.summary import FoldMetrics, fold_metrics, summarise
from vqa_train.pipelines.fit.config import FitConfig
from vqa_train.pipelines.fit.crossfit import Fold, HeldOut
from vqa_train.pipelines.fit.data import FitData

PROTOCOL_SCHEMA = "vqa-train/protocol-report/1"
CALIBRATION_SCHEMA = "vqa-train/calibration/1"
_SPLIT_PARTS = 5


def protocol_report(data: FitData, held_out: Sequence[HeldOut]) -> dict[str, Any]:
    """The document of schema `vqa-train/protocol-report/1`: metrics of every fold and what they come to.

    Predictions are mapped to the labels by a logistic of four parameters, fitted to the fold's test rows, before
    `<metric>_mapped`. A cross-dataset matrix is summarised over its cells off the diagonal.
    """
    names = data.table.target_names
    per_fold = [fold_metrics(held.predicted, data.table.targets[held.fold.test], names) for held in held_out]
    cells = [fold.cell for fold in data.plan.folds]
    across = [metrics for metrics, cell in zip(per_fold, cells, strict=True) if cell is None or cell[0] != cell[1]]
    report: dict[str, Any] = {
        "schema": PROTOCOL_SCHEMA,
        "protocol": data.plan.protocol.model_dump(mode="json"),
        "splits_sha256": data.plan.sha256,
        "warnings": list(data.plan.warnings),
        "folds": [
            {
                "name": planned.name,
                "train": len(held.fold.train),
                "test": len(held.fold.test),
                "left_out": planned.left_out,
                "cell": list(planned.cell) if planned.cell else None,
                "metrics": _numbers(metrics),
            }
            for planned, held, metrics in zip(data.plan.folds, held_out, per_fold, strict=True)
        ],
        "summary": _summary(across),
    }
    if any(cells):
        report["cells"] = [
            {
                "train": cell[0],
                "test": cell[1],
                "summary": _summary([m for m, c in zip(per_fold, cells, strict=True) if c == cell]),
            }
            for cell in dict.fromkeys(cell for cell in cells if cell is not None)
        ]
    pooled = _pooled(data, held_out)
    if pooled is not None:
        report["pooled"] = _numbers(pooled)
    return report


def _pooled(data: FitData, held_out: Sequence[HeldOut]) -> FoldMetrics | None:
    """Metrics of all held-out rows at once, where each row of one dataset is held out once."""
    rows = np.concatenate([held.fold.test for held in held_out])
    if len(data.datasets) > 1 or len(held_out) < 2 or len(np.unique(rows)) < len(rows):
        return None
    predicted = np.concatenate([held.predicted for held in held_out])
    return fold_metrics(predicted, data.table.targets[rows], data.table.target_names)


def _summary(per_fold: Sequence[FoldMetrics]) -> dict[str, dict[str, Any]]:
    return {
        target: {metric: summary.to_json() for metric, summary in metrics.items()}
        for target, metrics in summarise(per_fold).items()
    }


def _numbers(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        target: {name: value if math.isfinite(value) else None for name, value in values.items()}
        for target, values in metrics.items()
    }


def calibration_folds(config: FitConfig, data: FitData) -> tuple[Fold, list[Fold]]:
    """The final model's rows, and the folds whose test rows give the residuals.

    `cross`: the folds of a k-fold over the final model's training rows. `split`: one fold without training of its
    own, whose test rows the final model leaves out.

    Raises:
        ConfigError: too few groups.
    """
    final, calibration = data.final, config.calibration
    if calibration is None:
        return final, []
    units = [data.units[row] for row in final.train.tolist()]
    salt = data.plan.protocol.salt if isinstance(data.plan.protocol, KFold) else ""
    try:
        if calibration.method == "cross":
            parts = list(kinds.kfold(units, calibration.folds, repeats=1, salt=salt))
        else:
            parts = list(kinds.repeated(units, 1, calibration.fraction, salt="calibration"))
    except ConfigError as error:
        raise ConfigError(
            f"calibration: {error.message}", hint="label more groups, or set calibration: null"
        ) from error
    if calibration.method == "cross":
        return final, [
            Fold(
                name=f"calibration/{part.name}",
                train=final.train[part.train],
                test=final.train[part.test],
                validation=final.validation,
            )
            for part in parts
        ]
    kept = Fold(name=final.name, train=final.train[parts[0].train], test=final.test, validation=final.validation)
    return kept, [Fold(name="calibration", train=kept.train, test=final.train[parts[0].test])]


def calibration_report(recipe: FitConfig, data: FitData, held_out: Sequence[HeldOut]) -> dict[str, Any] | None:
    """The document of schema `vqa-train/calibration/1`: half widths per target, and how often they hold a label.

    An interval is on the scale of the predictions, so rows of datasets with another scale are left out.
    """
    config = recipe.calibration
    if config is None:
        return None
    targets: dict[str, dict[str, Any]] = {}
    for column, name in enumerate(data.table.target_names):
        rows, residuals, parts = _residuals(recipe, data, held_out, column)
        units = np.asarray([data.units[row] for row in rows.tolist()], dtype=np.str_)
        interval = calibrate(residuals, config.level)
        held = cross_coverage(residuals, parts if config.method == "cross" else _parts(units), config.level)
        notes = [interval.note, group_note(units, config.level)]
        if len(rows) < sum(int(np.isfinite(data.table.targets[h.fold.test, column]).sum()) for h in held_out):
            reference = data.references[name].manifest.name
            notes.append(f"of rows of {reference} alone, whose scale the predictions have")
        targets[name] = {
            "half_width": interval.half_width if math.isfinite(interval.half_width) else None,
            "n": interval.n,
            "coverage": held.share if math.isfinite(held.share) else None,
            "coverage_n": held.n,
            "note": "; ".join(note for note in notes if note) or None,
        }
    return {"schema": CALIBRATION_SCHEMA, "level": config.level, "method": config.method, "targets": targets}


def _residuals(
    recipe: FitConfig, data: FitData, held_out: Sequence[HeldOut], column: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Held-out rows with a label of one target on the scale of its predictions, label less prediction, and fold."""
    shared = len(data.datasets) == 1 or all(member.train.scales == "same" for member in recipe.recipes)
    reference = data.references[data.table.target_names[column]]
    inside = data.rows_of(reference)
    rows, residuals, parts = [], [], []
    for number, held in enumerate(held_out):
        test = held.fold.test
        labels = data.table.targets[test, column].astype(np.float64)
        used = np.isfinite(labels)
        if not shared:
            same = data.reference_of(held.fold.train, column) is reference
            used &= inside[test] & same
        rows.append(test[used])
        residuals.append(labels[used] - held.predicted[used, column])
        parts.append(np.full(int(used.sum()), number))
    return np.concatenate(rows), np.concatenate(residuals), np.concatenate(parts)


def _parts(units: NDArray[np.str_]) -> NDArray[np.int64]:
    """A part per row for coverage of one set of residuals: whole units, up to five parts."""
    names = units.tolist()
    count = min(_SPLIT_PARTS, len(set(names)))
    parts = np.zeros(len(names), dtype=np.int64)
    if count > 1:
        for number, fold in enumerate(kinds.kfold(names, count, repeats=1, salt="coverage")):
            parts[fold.test] = number
    return parts

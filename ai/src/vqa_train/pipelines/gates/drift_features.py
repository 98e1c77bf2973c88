"""Features in a store, and the head's scores of them, against the training statistics of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqa_train.core.errors import UsageError
from vqa_train.onnx.runtime import OnnxModel
from vqa_train.pipelines.gates.drift_columns import Observed, RowCollector, allowed, compare_columns
from vqa_train.pipelines.gates.drift_input import DriftInput
from vqa_train.pipelines.gates.drift_limits import DriftLimits
from vqa_train.pipelines.gates.drift_rows import (
    Rows,
    from_sums,
    input_rows,
    keys_of,
    rows_of_datasets,
    rows_of_sets,
    sets_of,
    whole_set,
)
from vqa_train.pipelines.gates.drift_scores import score_checks
from vqa_train.pipelines.gates.model import GateModel
from vqa_train.pipelines.gates.result import Check
from vqa_train.pipelines.models.check_head import check_head
from vqa_train.registry.facts import InputStatistics, TrainingStatistics
from vqa_train.registry.sidecar import SCORES, ModelInput
from vqa_train.store.records import ShardCommit
from vqa_train.store.store import FeatureSet, FeatureStore

# Rows of a whole set that are read where its sums leave something open.
_SAMPLE = 4096


def feature_checks(
    model: GateModel, statistics: TrainingStatistics, store: FeatureStore, what: DriftInput, limits: DriftLimits
) -> tuple[list[Check], dict[str, Any], dict[str, Path]]:
    """Checks of what a store has for a model, details, and the datasets that were read.

    Raises:
        UsageError: rows of a text or full-reference model without a dataset.
        ModelError: the store has other features, or the head was changed.
        StoreError: no rows, no such tag, or a damaged store.
    """
    sidecar = model.sidecar
    sets = sets_of(sidecar, store)
    if what.datasets:
        rows = rows_of_datasets(
            sidecar, store, what.datasets, data_root=what.data_root, manifests_dir=what.manifests_dir
        )
        return *_from_rows(model, statistics, rows, limits), rows.inputs
    if sidecar.takes_reference:
        raise UsageError(
            f"model {sidecar.name!r} is full-reference, and a set holds videos and references alike",
            hint="name the rows with --dataset",
        )
    commits = {name: whole_set(found, what.tag) for name, found in sets.items()}
    rows_per_group = statistics.rows / statistics.groups
    checks: list[Check] = []
    details: dict[str, Any] = {"inputs": {}}
    for item in sidecar.inputs:
        observed = _whole(item, sets[item.name], commits[item.name], statistics, limits)
        some, details["inputs"][item.name] = _columns(item, observed, statistics, limits)
        checks += some
    if what.rows is None:
        details["not_looked_at"] = "scores, and ranges of inputs whose source is sums: --rows or --dataset reads rows"
        return checks, details, {}
    part = rows_of_sets(sidecar, sets, commits, what.rows, rows_per_group)
    some, more = _from_rows(model, statistics, part, limits)
    seen = {check.name for check in checks}
    # What the sums do not tell; columns were judged of the whole sets.
    new = [c for c in some if c.name.startswith("scores.") or c.name.endswith((".outside", ".beyond", ".missing"))]
    checks += [check for check in new if check.name not in seen]
    details |= {"rows": more["inputs"], "scores": more["scores"]}
    return checks, details, {}


def _whole(
    item: ModelInput,
    found: FeatureSet,
    commits: Sequence[ShardCommit],
    statistics: TrainingStatistics,
    limits: DriftLimits,
) -> Observed:
    """One input over a whole set: from sums where they say what rows would, else from rows."""
    known, rows_per_group = statistics.inputs[item.name], statistics.rows / statistics.groups
    observed = from_sums(found, item, commits, known, rows_per_group)
    if observed is None:
        return _read(item, found, keys_of(commits, found), known, rows_per_group, limits)
    constant = np.asarray(known.mean)
    varies = (np.asarray(known.std) == 0) & (observed.std > allowed(constant))
    if varies.any():
        # Sums do not say in how many rows a constant column is another: a sample does.
        sample = keys_of(commits, found)[:_SAMPLE]
        observed.moved = _read(item, found, sample, known, rows_per_group, limits).moved
    return observed


def _read(
    item: ModelInput,
    found: FeatureSet,
    keys: Sequence[str],
    known: InputStatistics,
    rows_per_group: float,
    limits: DriftLimits,
) -> Observed:
    collector = RowCollector(known, limits.beyond_sd)
    for block in input_rows(found, item.output, keys):
        collector.add(block)
    return collector.observed(round(len(keys) / rows_per_group))


def _from_rows(
    model: GateModel, statistics: TrainingStatistics, rows: Rows, limits: DriftLimits
) -> tuple[list[Check], dict[str, Any]]:
    """Checks of the rows' features and of the head's scores of them."""
    sidecar = model.sidecar
    head = OnnxModel(model.head, expected_sha256=sidecar.onnx.sha256)
    check_head(head, sidecar)
    collectors = {name: RowCollector(entry, limits.beyond_sd) for name, entry in statistics.inputs.items()}
    parts = []
    for block in rows.blocks:
        for name, collector in collectors.items():
            collector.add(block[name])
        parts.append(head.run(dict(block))[SCORES].astype(np.float64))
    checks: list[Check] = []
    details: dict[str, Any] = {"inputs": {}}
    for item in sidecar.inputs:
        observed = collectors[item.name].observed(rows.groups)
        some, details["inputs"][item.name] = _columns(item, observed, statistics, limits)
        checks += some
    scores = np.concatenate(parts) if parts else np.empty((0, len(sidecar.targets)))
    lacking = np.full((rows.lacking, len(sidecar.targets)), np.nan)
    some, details["scores"] = score_checks(
        sidecar, statistics, np.concatenate([scores, lacking]), rows.group_of or None, limits, "rows"
    )
    return checks + some, details


def _columns(
    item: ModelInput, observed: Observed, statistics: TrainingStatistics, limits: DriftLimits
) -> tuple[list[Check], dict[str, Any]]:
    names = item.feature_spec().output(item.output).names or [f"column {i}" for i in range(item.dim)]
    return compare_columns(item.name, names, observed, statistics.inputs[item.name], statistics.groups, limits)

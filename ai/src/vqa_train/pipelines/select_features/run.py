"""select-features: which feature sets repeat one another, what they tell of the labels, and which to take together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.files import display_path
from vqa_train.core.hashing import seed_from
from vqa_train.datasets.protocols import Protocol
from vqa_train.evaluation.metric import Metric
from vqa_train.heads.table import build_table
from vqa_train.pipelines.fit.config import FitConfig
from vqa_train.pipelines.fit.data import load_fit_data
from vqa_train.pipelines.select_features.columns import (
    Count,
    column_redundancy,
    finite,
    labels_of,
    order_of,
    ranked_columns,
    score_counts,
)
from vqa_train.pipelines.select_features.forward import fewest, forward_selection
from vqa_train.pipelines.select_features.measures import linear_cka, mutual_information, standardised
from vqa_train.pipelines.select_features.write import check_picture, write_tables
from vqa_train.pipelines.table import rows_of
from vqa_train.pipelines.tune.evaluate import Objective, Scored, Validation, objective_metric, training_folds

SELECT_SCHEMA = "vqa-train/select-features/1"
_ROWS = 2000


@dataclass(frozen=True, kw_only=True)
class SelectOptions:
    """How to select.

    Attributes:
        protocol: folds over the training rows.
        objective: name of a metric.
        max_sets: where forward selection ends; None for all sets.
        output: folder for CSV tables and the picture, or None.
        picture: `svg` or `png`; None for no picture.
        device, threads: where heads train.
    """

    protocol: Protocol
    objective: str = "srocc"
    max_sets: int | None = None
    output: Path | None = None
    picture: str | None = "svg"
    device: str = "cpu"
    threads: int = 1


def select_features(
    config: FitConfig,
    options: SelectOptions,
    *,
    features: Path,
    datasets: Sequence[str] = (),
    data_root: Path | None = None,
    manifests_dir: Path | None = None,
    on_score: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure the feature sets of a recipe on the rows it trains on; the report, schema vqa-train/select-features/1.

    Redundancy and mutual information come from up to 2,000 training rows, chosen by hash. An input over time is
    averaged over it for them. Where there is one set, its columns take the place of the sets.

    Args:
        config: its features are the sets to choose from, its heads are trained on each choice.
        options: how to select.
        features: the store.
        on_score: is called after each choice of sets, or number of columns, has been trained.
        warn: is given each warning.

    Raises:
        UsageError: an unknown objective or kind of picture.
        ConfigError: folds that do not fit the rows, or no set with a value.
        DependencyError: matplotlib is not installed and a picture is asked for.
    """
    if options.output is not None and options.picture is not None:
        check_picture(options.picture)
    data = load_fit_data(config, features=features, datasets=datasets, data_root=data_root, manifests_dir=manifests_dir)
    metric = objective_metric(options.objective, data)
    validation = training_folds(data, options.protocol)
    warnings = list(validation.warnings)
    if len(data.table.features) == 1 and not isinstance(next(iter(data.table.features.values())), np.ndarray):
        warnings.append(
            "the features are in a file, so few columns of them are not tried (a higher memory_limit would)"
        )
    for warning in warnings:
        (warn or _ignore)(warning)
    names = list(data.table.features)
    rows = sample(validation, validation.rows)
    columns = {name: standardised(_matrix(validation, name, rows)) for name in names}
    labels = labels_of(validation, rows)
    cka = [[linear_cka(columns[a][0], columns[b][0]) for b in names] for a in names]
    ranked = [entry for name in names for entry in ranked_columns(validation, config, name, *columns[name], labels)]

    def score(chosen: tuple[str, ...]) -> Scored:
        found = _objective(validation, metric, chosen, config, options).scores([config.recipes])[0]
        (on_score or _nothing)()
        return found

    steps, alone = forward_selection(names, score, higher=metric.higher_is_better, limit=options.max_sets)
    selected = fewest(steps, higher=metric.higher_is_better)
    report: dict[str, Any] = {
        "schema": SELECT_SCHEMA,
        "objective": {
            "metric": metric.name,
            "direction": "maximise" if metric.higher_is_better else "minimise",
            "protocol": options.protocol.model_dump(mode="json"),
            "folds": len(validation.folds),
            "splits": validation.plan_sha256,
        },
        "rows": {
            "training": len(validation.rows),
            "measured": len(rows),
            "without_features": len(data.table.without_features),
        },
        "sets": [
            {
                "name": name,
                "set": config.features[name].set,
                "output": config.features[name].output,
                **({"of": "reference"} if config.features[name].of == "reference" else {}),
                "fingerprint": data.table.specs[name].fingerprint,
                "columns": len(columns[name][1]),
                "constant": int((~columns[name][1]).sum()),
                "alone": {
                    "value": finite(alone[name].value),
                    "folds": alone[name].folds,
                    "reason": alone[name].reason,
                },
                "information": _of_predictions(validation, alone[name]),
            }
            for name in names
        ],
        "redundancy": {
            "measure": "debiased linear CKA",
            "sets": names,
            "matrix": [[finite(value) for value in line] for line in cka],
        },
        "columns": ranked,
        "forward": [step.to_json() for step in steps],
        "selected": list(steps[selected].sets),
        "best": list(max(steps, key=lambda step: step.value if metric.higher_is_better else -step.value).sets),
        "few_columns": None,
        "warnings": warnings,
        "files": [],
    }
    if len(names) == 1 and isinstance(data.table.features[names[0]], np.ndarray):
        objective = _objective(validation, metric, names, config, options)
        near = column_redundancy(names[0], columns[names[0]][0], ranked)
        counts = score_counts(
            validation,
            objective,
            config,
            names[0],
            lambda some: sample(validation, some),
            on_score or _nothing,
        )
        report["few_columns"] = {**near, **_few(validation, counts, names[0], rows, metric)}
    if options.output is not None:
        written = write_tables(options.output, report, options.picture)
        report["files"] = [display_path(path) for path in written]
    return report


def _objective(
    validation: Validation, metric: Metric, chosen: Sequence[str], config: FitConfig, options: SelectOptions
) -> Objective:
    """The objective of recipes that see these inputs alone, just as `fit` would train them."""
    data = validation.data
    table = data.table
    own = build_table(
        {name: table.features[name] for name in chosen},
        table.targets,
        table.target_names,
        data.units,
        table.row_keys,
        datasets=table.datasets,
        target_std=table.target_std,
    )
    narrowed = replace(validation, data=replace(data, training=own))
    return Objective(narrowed, metric, seeds=config.seeds, device=options.device, threads=options.threads)


def _few(
    validation: Validation, counts: Sequence[Count], name: str, rows: NDArray[np.int64], metric: Metric
) -> dict[str, Any]:
    """What `counts` come to, and which columns the same choice takes on all training rows."""
    if not counts:
        return {"counts": [], "selected": []}
    count = counts[fewest(counts, higher=metric.higher_is_better)].columns
    width = validation.data.table.features[name].shape[-1]
    chosen = list(range(width)) if count == width else order_of(validation, name, rows, count).tolist()
    return {
        "counts": [{"columns": c.columns, "value": c.value, "folds": c.folds} for c in counts],
        "selected": chosen,
    }


def sample(validation: Validation, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Up to 2,000 of some rows, by hash of their content."""
    keys = validation.data.table.row_keys
    chosen = sorted(rows.tolist(), key=lambda row: (seed_from("select-features", keys[row]), keys[row]))[:_ROWS]
    return np.sort(np.asarray(chosen, dtype=np.int64))


def _matrix(validation: Validation, name: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, D)."""
    values = rows_of(validation.data.table.features[name], rows)
    return values if values.ndim == 2 else np.asarray(values.mean(axis=1), dtype=np.float32)


def _of_predictions(validation: Validation, scored: Scored) -> dict[str, float | None]:
    """Target -> mutual information in nats of the set's held-out predictions with it: what the head got out of it."""
    table = validation.data.table
    if not scored.held_out:
        return dict.fromkeys(table.target_names)
    total = np.zeros(table.targets.shape)
    count = np.zeros(len(table.targets))
    for held in scored.held_out:
        total[held.fold.test] += held.predicted
        count[held.fold.test] += 1
    rows = np.flatnonzero(count)
    predicted = total[rows] / count[rows, None]
    labels = labels_of(validation, rows)
    return {
        target: finite(mutual_information(predicted[:, [number]], labels[:, number], seed_from(target))[0])
        for number, target in enumerate(table.target_names)
    }


def _ignore(_: str) -> None:
    pass


def _nothing() -> None:
    pass

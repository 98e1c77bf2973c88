"""The columns of feature sets: what each tells, which other repeats it, and how few of one set do as well as all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from
from vqa_train.evaluation import METRICS
from vqa_train.heads.table import build_table
from vqa_train.pipelines.fit.config import FitConfig
from vqa_train.pipelines.fit.crossfit import Fold
from vqa_train.pipelines.select_features.measures import (
    Floats,
    mutual_information,
    nearest,
    rank_correlation,
    ranks,
    stepwise,
)
from vqa_train.pipelines.table import rows_of
from vqa_train.pipelines.tune.evaluate import Objective, Scored, Validation

MOST = 128
_PICTURED = 40


@dataclass(frozen=True, kw_only=True)
class Count:
    """Heads that saw the first columns of a set.

    Attributes:
        columns: how many; chosen in each fold on its own training rows.
        value: objective, mean over the folds.
        folds: fold -> objective.
    """

    columns: int
    value: float
    folds: dict[str, float]


def ranked_columns(
    validation: Validation, config: FitConfig, name: str, values: Floats, varies: NDArray[np.bool_], labels: Floats
) -> list[dict[str, Any]]:
    """Every column of a set, per target those first that tell most of it.

    Args:
        values: (n, D), standardised.
        varies: (D,).
        labels: (n, K), NaN where missing.

    Returns:
        `set`, `column`, `name`, `target`, `information` in nats, `srocc` with the label, and `nearest`: the column of
        the same set with the largest absolute SROCC with it, `nearest_srocc`.
    """
    table = validation.data.table
    named = table.specs[name].output(config.features[name].output).names
    srocc = METRICS.get("srocc")
    others, close = nearest(ranks(values))
    entries = []
    for number, target in enumerate(table.target_names):
        information = np.full(len(varies), np.nan)
        if varies.any():
            seed = seed_from("mutual information", name, target)
            information[varies] = mutual_information(values[:, varies], labels[:, number], seed)
        known = np.isfinite(labels[:, number])
        found: list[dict[str, Any]] = [
            {
                "set": name,
                "column": column,
                "name": named[column] if named else None,
                "target": target,
                "information": finite(information[column]),
                "srocc": finite(srocc(values[known, column], labels[known, number])),
                "nearest": int(others[column]) if np.isfinite(close[column]) else None,
                "nearest_srocc": finite(close[column]),
            }
            for column in range(len(varies))
        ]
        entries += sorted(found, key=lambda e: (-(-1.0 if e["information"] is None else e["information"]), e["column"]))
    return entries


def column_redundancy(name: str, values: Floats, ranked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Absolute SROCC among the up to 40 most telling columns of a set (`columns`, `matrix`), near copies together."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    top = [e["column"] for e in ranked if e["target"] == ranked[0]["target"] and e["information"] is not None]
    chosen = top[:_PICTURED]
    matrix = np.abs(rank_correlation(ranks(values[:, chosen])))
    if len(chosen) > 2:
        apart = np.clip(1 - (matrix + matrix.T) / 2, 0, None)
        np.fill_diagonal(apart, 0)
        order = leaves_list(linkage(squareform(apart, checks=False), "average"))
        chosen = [chosen[i] for i in order]
        matrix = matrix[np.ix_(order, order)]
    return {"set": name, "columns": chosen, "matrix": [[finite(value) for value in line] for line in matrix]}


def tried_counts(width: int) -> list[int]:
    """1, 2, 4 and so on to 128, and all."""
    return [count for count in (2**power for power in range(8)) if count < width] + [width]


def labels_of(validation: Validation, rows: NDArray[np.int64]) -> Floats:
    """Labels of some rows (n, K), NaN where missing; of several datasets each on a scale of mean 0 and deviation 1."""
    table = validation.data.table
    labels = table.targets[rows].astype(np.float64)
    names = np.asarray([table.datasets[row] for row in rows.tolist()], dtype=np.str_)
    if len(np.unique(names)) < 2:
        return labels
    for name in np.unique(names):
        own = names == name
        for column in range(labels.shape[1]):
            found = labels[own, column]
            known = found[np.isfinite(found)]
            if len(known):
                deviation = known.std()
                labels[own, column] = (found - known.mean()) / (deviation if deviation > 0 else 1.0)
    return labels


def order_of(validation: Validation, name: str, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The first columns of a set by stepwise regression of the ranks of the labels, on some rows."""
    table = validation.data.table
    x = rows_of(table.features[name], rows)
    x = x.mean(axis=1) if x.ndim == 3 else x
    labels = labels_of(validation, rows)
    known = np.isfinite(labels).any(axis=1)
    values = np.where(np.isfinite(x[known]), x[known].astype(np.float64), np.nan)
    return stepwise(ranks(values), ranks(labels[known]), count)


def score_counts(
    validation: Validation,
    objective: Objective,
    config: FitConfig,
    name: str,
    sample: Callable[[NDArray[np.int64]], NDArray[np.int64]],
    on_score: Callable[[], None],
) -> list[Count]:
    """The objective of heads that see few columns of a set, chosen for each fold on the rows that train it.

    Args:
        objective: of heads that see the whole set.
        sample: some of many rows.
        on_score: is called after each number of columns.
    """
    width = validation.data.table.features[name].shape[-1]
    counts = tried_counts(width)
    orders = {
        fold.name: order_of(validation, name, sample(fold.train), counts[-2] if len(counts) > 1 else width)
        for fold in objective.folds
    }
    found = []
    for count in counts:
        if count == width:
            scored = objective.scores([config.recipes])[0]
        else:
            scored = _with_columns(validation, objective, config, name, {f: o[:count] for f, o in orders.items()})
        on_score()
        if scored.reason is None:
            folds = {fold: value for fold, value in scored.folds.items() if value is not None}
            found.append(Count(columns=count, value=scored.value, folds=folds))
    return found


def _with_columns(
    validation: Validation, objective: Objective, config: FitConfig, name: str, columns: dict[str, NDArray[np.int64]]
) -> Scored:
    """Folds with columns of their own: each fold's rows are rows of one table, so that all train in one batch."""
    data, table = validation.data, validation.data.table
    rows, parts, keys, folds, start = [], [], [], [], 0
    width = min(len(chosen) for chosen in columns.values())
    for fold in objective.folds:
        own = np.sort(np.concatenate([fold.train, fold.validation, fold.test]))
        parts.append(rows_of(table.features[name], own)[..., columns[fold.name][:width]])
        keys += [f"{fold.name}/{table.row_keys[row]}" for row in own.tolist()]
        placed = [start + np.searchsorted(own, part) for part in (fold.train, fold.test, fold.validation)]
        folds.append(Fold(name=fold.name, train=placed[0], test=placed[1], validation=placed[2]))
        rows.append(own)
        start += len(own)
    every = np.concatenate(rows)
    stacked = replace(
        table,
        videos=tuple(table.videos[row] for row in every.tolist()),
        features={name: np.concatenate(parts)},
        targets=table.targets[every],
        datasets=tuple(table.datasets[row] for row in every.tolist()),
        target_std=None if table.target_std is None else table.target_std[every],
    )
    units = [data.units[row] for row in every.tolist()]
    training = build_table(
        stacked.features,
        stacked.targets,
        stacked.target_names,
        units,
        keys,
        datasets=stacked.datasets,
        target_std=stacked.target_std,
    )
    changed = replace(data, table=stacked, training=training, units=tuple(units))
    narrowed = replace(validation, data=changed, folds=tuple(folds))
    return objective.on(narrowed).scores([config.recipes])[0]


def finite(value: float) -> float | None:
    """The number, or None where it is none."""
    return float(value) if np.isfinite(value) else None

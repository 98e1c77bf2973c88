"""Training of one head on cached features: AdamW, early stopping on held-out groups, best weights kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.core.hashing import seed_from
from vqa_train.heads.base import Head
from vqa_train.heads.config import TrainConfig
from vqa_train.heads.loop import Score, TrainingLoop, new_head, one_thread
from vqa_train.heads.split import hold_out
from vqa_train.heads.table import TrainingTable, build_table, scaling_statistics

_PREDICT_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class FittedHead:
    """A trained head and how it came about.

    Attributes:
        module: the best epoch's weights, in eval mode, on the CPU.
        history: per epoch: `epoch` (from 1), `lr` (of its last step), `train_loss`, and `validation_loss` and
            `validation_metric` (None where there are no validation rows or the metric is undefined).
        best_epoch: the epoch kept; the last one where there are no validation rows.
        validation: bool (N,), the rows that chose the epoch, in the caller's order.
        counts: `rows`, `train`, `validation`, `unlabelled` (in neither), `steps`.
        nonfinite: input name -> NaN and infinite values, which count as the column's mean.
        constant: input name -> columns that do not vary over the training rows, which are silenced.
    """

    module: Head
    history: list[dict[str, Any]]
    best_epoch: int
    validation: NDArray[np.bool_]
    counts: dict[str, int]
    nonfinite: dict[str, int]
    constant: dict[str, int]


def fit_head(
    features: Mapping[str, NDArray[np.float32]],
    targets: NDArray[np.float32],
    groups: Sequence[str],
    target_names: Sequence[str],
    config: TrainConfig,
    *,
    metric: Score,
    keys: Sequence[str] | None = None,
    validation: NDArray[np.bool_] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    device: str = "cpu",
) -> FittedHead:
    """Train the head that `config` describes.

    The same rows and config give the same weights, bit for bit on one machine's CPU; with `keys`, in whatever
    order the rows come. torch's global random state is neither read nor changed.

    Args:
        features: input name -> float32 (N, D); NaN and infinity are allowed. The order is that of the head's inputs.
        targets: float32 (N, K) on the labels' scales; NaN is a missing label and is masked.
        groups: (N,) content that must not straddle training and validation.
        target_names: (K,).
        metric: chooses the epoch: its mean over the targets, on the validation rows.
        keys: (N,) a name of each row, all different (the video's sha256).
        validation: bool (N,), the validation rows; None splits them off by hash of group as the config says.
        on_epoch: is given each epoch's entry of the history; an exception from it ends training.
        device: where to train.

    Raises:
        ConfigError: shapes that disagree, unknown names in target_weights, a target without labels (or with one
            value only) in the training part or without labels in the validation part, or a loss that diverged.
        LabelError: an infinite label.
    """
    table = build_table(features, targets, target_names, groups, keys)
    held_out, labelled = _split(table, validation, config), ~np.isnan(table.targets).all(axis=1)
    train_rows, val_rows = labelled & ~held_out, labelled & held_out
    _check_labels(table, train_rows, val_rows if held_out.any() else None)
    statistics = scaling_statistics(table, train_rows)
    head = new_head(table, config)
    head.set_statistics(statistics)
    head.initialise(torch.Generator().manual_seed(seed_from("init", config.seed, table.identity)))
    loop = TrainingLoop(
        head.to(device), table=table, train=train_rows, validation=val_rows, config=config, metric=metric
    )
    with one_thread():
        history, best_epoch = loop.run(on_epoch)
    edges = np.cumsum([0, *(matrix.shape[1] for matrix in table.features.values())])
    constant = np.add.reduceat(~statistics.input_varies, edges[:-1], dtype=np.int64)
    original = np.zeros(len(table.targets), dtype=np.bool_)
    original[table.order] = val_rows
    return FittedHead(
        module=loop.kept.eval().to("cpu"),
        history=history,
        best_epoch=best_epoch,
        validation=original,
        counts={
            "rows": len(table.targets),
            "train": int(train_rows.sum()),
            "validation": int(val_rows.sum()),
            "unlabelled": int((~labelled).sum()),
            "steps": len(history) * loop.steps,
        },
        nonfinite={name: int((~np.isfinite(matrix)).sum()) for name, matrix in table.features.items()},
        constant=dict(zip(table.features, map(int, constant), strict=True)),
    )


@torch.no_grad()
def predict(head: Head, features: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Scores of N rows, float32 (N, K) on the labels' scales, with the head as it is (in eval mode).

    Args:
        head: on the CPU.
        features: every input of the head by name, float32 (N, D); others are ignored.

    Raises:
        ConfigError: an input is missing or has another length.
    """
    for name, dim in head.inputs.items():
        if name not in features or features[name].shape[1:] != (dim,):
            got = f"shape {features[name].shape}" if name in features else f"only {', '.join(features) or 'nothing'}"
            raise ConfigError(f"the head needs features {name!r} of shape (N, {dim}), got {got}")
    was_training = head.training
    head.eval()
    inputs = [torch.as_tensor(np.asarray(features[name], dtype=np.float32)) for name in head.inputs]
    parts = [head(*rows) for rows in zip(*(torch.split(x, _PREDICT_ROWS) for x in inputs), strict=True)]
    head.train(was_training)
    return torch.cat(parts).numpy() if parts else np.zeros((0, len(head.targets)), dtype=np.float32)


def _split(table: TrainingTable, validation: NDArray[np.bool_] | None, config: TrainConfig) -> NDArray[np.bool_]:
    rows = len(table.targets)
    if validation is not None:
        if validation.shape != (rows,):
            raise ConfigError(f"validation has shape {validation.shape}, expected ({rows},)")
        held_out = np.asarray(validation, dtype=np.bool_)[table.order]
    elif config.validation.fraction:
        held_out = hold_out(table.groups, config.validation.fraction)
    else:
        held_out = np.zeros(rows, dtype=np.bool_)
    if config.patience is not None and not held_out.any():
        raise ConfigError(
            f"patience is {config.patience}, but there are no validation rows to stop by",
            hint="set patience: null, or validation.fraction above 0",
        )
    return held_out


def _check_labels(table: TrainingTable, train: NDArray[np.bool_], validation: NDArray[np.bool_] | None) -> None:
    for name, labels in zip(table.target_names, table.targets.T, strict=True):
        known = labels[train & ~np.isnan(labels)]
        if len(np.unique(known)) < 2:
            raise ConfigError(
                f"target {name!r} has {len(known)} labels with {len(np.unique(known))} distinct values in the training "
                f"rows, and needs at least 2",
                hint="leave the target out, or label more rows",
            )
        if validation is not None and np.isnan(labels[validation]).all():
            raise ConfigError(
                f"target {name!r} has no label in the validation rows",
                hint="label more groups, hold out more (validation.fraction), or set it to 0 and patience: null",
            )

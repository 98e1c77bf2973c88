"""Scores of trained heads for rows of features: one head or ensemble, or many heads on rows of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqa_train.core.errors import ConfigError
from vqa_train.heads.base import Head, standardise
from vqa_train.heads.table import TrainingTable, table_rows

if TYPE_CHECKING:
    from vqa_train.heads.trainer import FittedHead

_ROWS = 8192
# Numbers that many heads standardise at once.
_NUMBERS = 1 << 24


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch's CPU work in the calling thread alone.

    The steps of a head are too small to share: with several threads on a busy machine they took 20 times as long.
    One thread also makes the sums, and so the weights, independent of the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def predict(head: torch.nn.Module, features: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Scores of N rows, float32 (N, K) on the labels' scales.

    Args:
        head: a `Head` of one model or an `Ensemble`, on the CPU.
        features: every input of the head by name, (N, *shape); others are ignored.

    Raises:
        ConfigError: an input is missing, has another shape, or another number of rows.
    """
    return predict_spread(head, features)[0]


@torch.no_grad()
def predict_spread(
    head: torch.nn.Module, features: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Scores (N, K) as `predict`, and an ensemble's spread (N, K), None for a head."""
    shapes: dict[str, tuple[int, ...]] = head.inputs  # type: ignore[assignment]  # Module.__getattr__ is untyped
    for name, shape in shapes.items():
        if name not in features or tuple(features[name].shape[1:]) != tuple(shape):
            got = f"shape {features[name].shape}" if name in features else f"only {', '.join(features) or 'nothing'}"
            raise ConfigError(f"the head needs features {name!r} of shape (N, {', '.join(map(str, shape))}), got {got}")
    counts = {name: len(features[name]) for name in shapes}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"the head's features have different numbers of rows: {counts}")
    count = next(iter(counts.values()))
    was_training = head.training
    head.eval()
    parts = []
    with one_thread():
        for start in range(0, count, _ROWS):
            rows = [np.asarray(features[name][start : start + _ROWS], dtype=np.float32) for name in shapes]
            result = head(*map(torch.from_numpy, rows))
            parts.append(result if isinstance(result, tuple) else (result,))
    head.train(was_training)
    columns = len(head.targets)  # type: ignore[arg-type]  # Module.__getattr__ is untyped
    if not parts:
        return np.zeros((0, columns), dtype=np.float32), None
    scores, *spread = (torch.cat(pieces).numpy() for pieces in zip(*parts, strict=True))
    return scores, spread[0] if spread else None


@torch.no_grad()
def predict_many(
    heads: Sequence[FittedHead], table: TrainingTable, rows: Sequence[NDArray[np.int64]]
) -> list[NDArray[np.float32]]:
    """Scores (n, K) of each head on rows of its own, in the caller's numbering; heads of one batch run together.

    Raises:
        ConfigError: row numbers that are not the table's.
    """
    places = [table_rows(table, numbers, "rows to predict") for numbers in rows]
    batches: dict[int, list[int]] = {}
    for number, head in enumerate(heads):
        batches.setdefault(id(head.batch), []).append(number)
    results: dict[int, NDArray[np.float32]] = {}
    with one_thread():
        for numbers in batches.values():
            batch, indices = heads[numbers[0]].batch, [heads[number].index for number in numbers]
            if indices != list(range(batch.models)):
                batch = batch.select(indices)
            scores = scores_of(batch, table, [places[number] for number in numbers])
            results.update(zip(numbers, scores, strict=True))
    return [results[number] for number in range(len(heads))]


def scores_of(batch: Head, table: TrainingTable, rows: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
    """Scores (n, K) of model i on rows[i] of the table; float32."""
    size = max(1, min(_ROWS, _NUMBERS // table.rows.columns) // batch.models)
    parts: list[list[NDArray[np.float32]]] = [[np.zeros((0, len(table.target_names)), np.float32)] for _ in rows]
    for start in range(0, max(map(len, rows)), size):
        pieces = [part[start : start + size] for part in rows]
        plan = np.full((len(rows), max(map(len, pieces))), max(pieces, key=len)[0], dtype=np.int64)
        for line, piece in zip(plan, pieces, strict=True):
            line[: len(piece)] = piece
        taken = torch.from_numpy(table.rows.take(plan.ravel())).float().view(*plan.shape, -1)
        x = standardise(taken, batch.input_mean, batch.input_std, batch.input_varies, batch.config.clip_sd)
        scores = batch.scores(batch.network(x)).numpy()
        for part, piece, values in zip(parts, pieces, scores, strict=True):
            part.append(values[: len(piece)])
    return [np.concatenate(part) for part in parts]

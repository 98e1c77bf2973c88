"""Permutation importance: what SROCC loses when a feature set, or a part of it, is shuffled over the videos.

Source: Breiman, Random forests, Machine Learning 45 (2001); Fisher, Rudin, Dominici, All models are wrong, but many
are useful, JMLR 20 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.hashing import seed_from
from vqa_train.evaluation.srocc import SROCC
from vqa_train.pipelines.report import figure as draw
from vqa_train.pipelines.report.figure import Picture

Features = Mapping[str, NDArray[np.float32]]
Predict = Callable[[Features], NDArray[np.float32]]

MOST_ROWS = 1000
_MOST_WORK = 2_000_000_000
_FEWEST_ROWS = 20
_FEWEST_OF_MANY = 200
_SET_REPEATS = 10
_MOST_REPEATS = 5
_MOST_SHUFFLES = 3000
_MOST_COLUMNS = 1024
_BLOCKS = 64
_TOP = 18


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What shuffling one thing costs: mean and standard deviation over repeats of the loss of SROCC, averaged over the
    targets; the deviation is NaN for one repeat."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Importance of inputs and columns.

    Attributes:
        baseline: SROCC with nothing shuffled, averaged over the targets; NaN where it is undefined.
        rows: videos that it rests on.
        sets: per feature set, in their order.
        columns: per column, or per block of `block` neighbours where there are many, most important first.
        total: columns of all sets.
        block: columns shuffled together.
        repeats: shuffles per column or block.
    """

    baseline: float
    rows: int
    sets: tuple[Loss, ...]
    columns: tuple[Loss, ...]
    total: int
    block: int
    repeats: int


def rows_to_use(columns: int, row_elements: int) -> int:
    """How many videos: fewer where there are many columns to shuffle, of many numbers each."""
    shuffled = -(-columns // block_of(columns))
    return max(_FEWEST_OF_MANY, min(MOST_ROWS, _MOST_WORK // max(shuffled * row_elements, 1)))


def block_of(columns: int) -> int:
    """Columns to shuffle together, so that it does not take long: 1 up to 1,024 of them, else about a 64th of all."""
    return 1 if columns <= _MOST_COLUMNS else math.ceil(columns / _BLOCKS)


def steps_of(features: Features) -> int:
    """How often `permutation_importance` calls `advance`."""
    widths: list[int] = [matrix.shape[-1] for matrix in features.values()]
    block = block_of(sum(widths))
    return len(features) + sum(-(-width // block) for width in widths)


def permutation_importance(
    predict: Predict,
    features: Features,
    label: NDArray[np.floating],
    names: Mapping[str, Sequence[str] | None],
    *,
    advance: Callable[[], None] = lambda: None,
) -> Importance:
    """Shuffle every set and every column (or block of columns) and measure.

    Args:
        predict: features -> scores (N, K).
        features: input name -> (N, D) or (N, T, D); a column is shuffled at all T times together.
        label: (N, K), NaN where unknown.
        names: input name -> names of its D columns, or None.
        advance: called after every set and column or block.
    """
    base = _srocc(predict(features), label)
    total = sum(matrix.shape[-1] for matrix in features.values())
    rows = len(label)
    sets = []
    for name, matrix in features.items():
        found = [
            base - _srocc(predict({**features, name: matrix[_order(rows, "set", name, repeat)]}), label)
            for repeat in range(_SET_REPEATS)
        ]
        sets.append(_loss(name, found))
        advance()
    block = block_of(total)
    repeats = max(1, min(_MOST_REPEATS, _MOST_SHUFFLES // max(steps_of(features), 1)))
    columns = []
    for name, matrix in features.items():
        work = matrix.copy()
        for start in range(0, matrix.shape[-1], block):
            part = slice(start, min(start + block, matrix.shape[-1]))
            found = []
            for repeat in range(repeats):
                work[..., part] = matrix[_order(rows, "column", name, start, repeat)][..., part]
                found.append(base - _srocc(predict({**features, name: work}), label))
            work[..., part] = matrix[..., part]
            columns.append(_loss(_part_name(name, part, names.get(name), len(features)), found))
            advance()
    columns.sort(key=lambda loss: (-loss.mean if math.isfinite(loss.mean) else math.inf, loss.name))
    return Importance(
        baseline=base, rows=rows, sets=tuple(sets), columns=tuple(columns), total=total, block=block, repeats=repeats
    )


def importance_pictures(found: Importance, what: str) -> tuple[list[Picture], list[str]]:
    """Bars per feature set (where there are several) and of the most important columns, and notes.

    Args:
        found: from `permutation_importance`.
        what: the rows in words, for the caption.
    """
    if not math.isfinite(found.baseline) or found.rows < _FEWEST_ROWS:
        return [], [f"importance is undefined: {found.rows} rows, SROCC {found.baseline:.3g}"]
    pictures = []
    rests = f"{found.rows} rows, {what}; SROCC {found.baseline:.3f} with nothing shuffled"
    if len(found.sets) > 1:
        pictures.append(
            _bars(
                found.sets,
                key="importance-sets",
                title="Importance of the feature sets",
                caption="How much SROCC falls when one whole feature set is shuffled among the videos. A set near "
                "zero is one that the model hardly uses; leaving it out would save its extraction.",
                rests_on=f"{rests}; {_SET_REPEATS} shuffles each",
            )
        )
    top = found.columns[:_TOP]
    largest = f"the {len(top)} largest of {len(found.columns)}" if len(found.columns) > len(top) else "all of them"
    unnamed = any("[" in loss.name for loss in top)
    pictures.append(
        _bars(
            top,
            key="importance-columns",
            title="Most important columns" if found.block == 1 else "Most important blocks of columns",
            caption=(
                f"How much SROCC falls when one column (one number of the features) is shuffled: {largest}. "
                if found.block == 1
                else f"How much SROCC falls when {found.block} neighbouring columns (numbers of the features) are "
                f"shuffled together: {largest}. There are {found.total} columns, too many to shuffle one by one. "
            )
            + ("In brackets are places in the set, counted from 0. " if unnamed else "")
            + "What says the same thing shares its importance, so each part of it may look small.",
            rests_on=f"{rests}; {found.repeats} shuffle{'s' if found.repeats > 1 else ''} each",
        )
    )
    return pictures, []


def _bars(losses: Sequence[Loss], *, key: str, title: str, caption: str, rests_on: str) -> Picture:
    with draw.drawing(height=max(2.2, 1.0 + 0.27 * len(losses))) as (figure, axes):
        places = np.arange(len(losses))[::-1]
        error = [loss.std if math.isfinite(loss.std) else 0.0 for loss in losses]
        axes.barh(
            places, [loss.mean for loss in losses], xerr=error, color=draw.POINT, alpha=0.85, height=0.68,
            error_kw={"ecolor": draw.INK, "elinewidth": 1},
        )  # fmt: skip
        axes.set_yticks(places, [draw.short(loss.name, 26) for loss in losses])
        axes.axvline(0, color=draw.MUTED, linewidth=1)
        axes.grid(False, axis="y")
        draw.label_below(figure, "loss of SROCC when shuffled")
        return draw.picture(
            figure,
            key=key,
            title=title,
            describe="; ".join(f"{loss.name}: {loss.mean:.3f}" for loss in losses),
            caption=caption,
            rests_on=rests_on,
        )


def _srocc(predicted: NDArray[np.floating], label: NDArray[np.floating]) -> float:
    values = [SROCC(predicted[:, target], label[:, target]) for target in range(label.shape[1])]
    known = [value for value in values if math.isfinite(value)]
    return float(np.mean(known)) if known else math.nan


def _order(rows: int, *parts: str | int) -> NDArray[np.int64]:
    return np.random.default_rng(seed_from("permutation", *parts)).permutation(rows)


def _loss(name: str, found: Sequence[float]) -> Loss:
    return Loss(
        name=name,
        mean=float(np.mean(found)),
        std=float(np.std(found, ddof=1)) if len(found) > 1 else math.nan,
    )


def _part_name(name: str, part: slice, names: Sequence[str] | None, sets: int) -> str:
    """`set: column` by name where columns have one, else `set[place]` or `set[first to last]`."""
    if part.stop - part.start > 1:
        return f"{name}[{part.start} to {part.stop - 1}]"
    if names is None:
        return f"{name}[{part.start}]"
    return f"{name}: {names[part.start]}" if sets > 1 else names[part.start]

"""Score curves: which features a model would have been given were the whole video as it is at one second.

A backbone that gives `temporal` (steps, d) looks at its video step by step. The features of a second are those that the
whole video would have if all its steps were moved by one vector, so that their mean became that second's mean. A
mean and a percentile move with the steps, a deviation over them stays (docs/scoring.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from vqa_train.core.errors import ModelError, UsageError
from vqa_train.core.types import FeatureSpec
from vqa_train.pipelines.score.features import Role, Seen
from vqa_train.pipelines.score.seconds import TEMPORAL, Seconds
from vqa_train.registry.sidecar import ModelInput

_MOVES = frozenset({"mean", "worst"})
# `pooled` is held to the mean of `temporal` to this share of a column's size; both are float32 sums of a graph.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Columns:
    """How one input of a head follows its backbone's `temporal`.

    Attributes:
        sources: for each column of the input, the column of `temporal` that moves it, or -1 where none does.
        means: for each column, whether it is the mean over time of its source.
    """

    sources: NDArray[np.int64]
    means: NDArray[np.bool_]


def columns_of(item: ModelInput, spec: FeatureSpec) -> Columns | None:
    """How the features of a model input follow those of each time step; None for a text, which holds throughout.

    Raises:
        UsageError: they do not; says why.
    """
    if item.modality == "text":
        return None
    temporal = next((output for output in spec.outputs if output.name == TEMPORAL), None)
    if temporal is None or len(temporal.shape) != 2:
        _refuse(item, f"backbone {spec.backbone!r} gives no features in time (an output {TEMPORAL!r})")
    if spec.sampling is None or spec.sampling.mode != "uniform":
        _refuse(item, f"backbone {spec.backbone!r} does not look at the whole video evenly")
    if spec.sampling.num_frames % temporal.shape[0]:
        _refuse(item, f"backbone {spec.backbone!r} has steps that are no equal parts of its frames")
    output, width = spec.output(item.output), temporal.shape[1]
    if item.output == TEMPORAL:
        return Columns(np.arange(width), np.ones(width, np.bool_))
    if item.output == "pooled" and output.names is None and temporal.names is None and output.shape == (width,):
        return Columns(np.arange(width), np.ones(width, np.bool_))
    if item.output == "pooled" and output.names and temporal.names:
        places = {name: i for i, name in enumerate(temporal.names)}
        parts = [name.rpartition(".") for name in output.names]
        moved = [places.get(name, -1) if how in _MOVES else -1 for name, _, how in parts]
        means = [source >= 0 and how == "mean" for source, (_, _, how) in zip(moved, parts, strict=True)]
        if any(means):
            return Columns(np.array(moved, np.int64), np.array(means))
    _refuse(item, f"how {item.output!r} of {spec.backbone!r} follows its features in time is not known")


def _refuse(item: ModelInput, why: str) -> NoReturn:
    raise UsageError(f"no timeline: model input {item.name!r}: {why}", hint="score without --timeline")


def moved(
    name: str,
    row: NDArray[np.float32],
    temporal: NDArray[np.float32],
    weights: NDArray[np.float64],
    columns: Columns,
) -> NDArray[np.float32]:
    """The input for each second, (seconds, *row.shape).

    Args:
        name: of the input, for messages.
        row: what the head is given of the whole video, (d,), or (steps, d) for a head over time.
        temporal: (views, steps, d) of its backbone.
        weights: `shares`.
        columns: `columns_of` the input.

    Raises:
        ModelError: the backbone's `pooled` is not the mean of its `temporal`.
    """
    steps = temporal.reshape(-1, temporal.shape[-1]).astype(np.float64)
    mean = steps.mean(axis=0)
    change = weights @ steps - mean
    whole = row.reshape(-1, row.shape[-1]).astype(np.float64).mean(axis=0)
    means, sources = columns.means, columns.sources
    expected = mean[sources[means]]
    scale = np.maximum(np.abs(steps).max(axis=0)[sources[means]], 1.0)
    if (np.abs(whole[means] - expected) > _TOLERANCE * scale).any():
        raise ModelError(
            f"no timeline: model input {name!r} is not the mean over time of its backbone's {TEMPORAL!r}",
            hint="score without --timeline",
        )
    shift = np.where(sources >= 0, change[:, sources], 0.0)
    shift = shift.reshape(len(shift), *[1] * (row.ndim - 1), row.shape[-1])
    return (row[None].astype(np.float64) + shift).astype(np.float32)


@dataclass(frozen=True)
class Curve:
    """What the head is given for a curve: input -> (seconds, ...), the seconds, and the fewest steps of an input."""

    rows: dict[str, NDArray[np.float32]]
    seconds: Seconds
    steps: int


def curve_rows(
    inputs: Sequence[ModelInput],
    rows: Mapping[str, NDArray[np.float32]],
    found: Mapping[Role, Seen],
    followed: Mapping[str, Columns | None],
    video: str,
) -> Curve:
    """The inputs of the head for each second of a video.

    Args:
        inputs: of the model.
        rows: input -> (1, ...), of the whole video.
        found: what the backbones saw of the video and of its reference.
        followed: input -> `columns_of` it.
        video: its name, for messages.

    Raises:
        UsageError: the reference is not as long as the video.
        ModelError: a `pooled` that is not the mean of its `temporal`.
    """
    durations = {role: seen.duration_s for role, seen in found.items() if seen.duration_s is not None}
    seconds = Seconds(durations.get("video", next(iter(durations.values()))))
    if any(Seconds(duration).count != seconds.count for duration in durations.values()):
        raise UsageError(
            f"no timeline of {video!r}: it lasts {seconds.duration_s:.2f} s, its reference "
            f"{durations['reference']:.2f} s",
            hint="score without --timeline",
        )
    curve, steps = {}, []
    for item in inputs:
        columns, row = followed[item.name], rows[item.name]
        if columns is None:
            curve[item.name] = np.repeat(row, seconds.count, axis=0)
            continue
        seen = found["reference" if item.of == "reference" else "video"]
        temporal = seen.temporal[item.fingerprint]
        steps.append(temporal.shape[0] * temporal.shape[1])
        curve[item.name] = moved(item.name, row[0], temporal, seen.weights[item.fingerprint], columns)
    return Curve(curve, seconds, min(steps))
